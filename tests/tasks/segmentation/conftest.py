"""The toy of segmentation alone, instead of one per task."""

from __future__ import annotations

import pytest
from toy_tasks.datasets import Toy, make_toy


@pytest.fixture(scope="package")
def toy(tmp_path_factory) -> Toy:
    return make_toy("segmentation", tmp_path_factory.mktemp("toy"))
