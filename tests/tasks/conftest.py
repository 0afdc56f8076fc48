"""The toy of every task, made once for the contract suite."""

from __future__ import annotations

import pytest
from toy_tasks.datasets import SPECS, Toy, make_toy


@pytest.fixture(scope="package", params=sorted(SPECS))
def toy(request, tmp_path_factory) -> Toy:
    return make_toy(request.param, tmp_path_factory.mktemp("toy"))
