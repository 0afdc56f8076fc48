from __future__ import annotations

from typing import get_args, get_type_hints

from autoseg.core.networks import Classifier, Network, Registrar
from autoseg.nn.build import KINDS


def test_every_kind_that_a_plan_may_name_can_be_built():
    planned = {name for described in (Network, Classifier, Registrar) for name in get_args(get_type_hints(described)["kind"])}
    assert planned == set(KINDS)
