from __future__ import annotations

from typing import get_args, get_type_hints

from autoseg.core.plan import Network
from autoseg.nn.build import KINDS


def test_every_kind_that_a_plan_may_name_can_be_built():
    assert set(get_args(get_type_hints(Network)["kind"])) == set(KINDS)
