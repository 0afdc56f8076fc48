from __future__ import annotations

from types import SimpleNamespace

import pytest
from nn.classifiers import small

from autoseg.core.plan_rules import require_sound_configuration


def configuration(network, patch_size):
    """What the rules look at."""
    return SimpleNamespace(network=network, patch_size=patch_size, spacing_mm=(1.0, 1.0, 1.0), start=None, whole_image=True)


def test_a_network_over_slices_takes_any_number_of_them_and_one_of_a_slice_takes_one():
    require_sound_configuration(configuration(small("resnet", slices=True), (5, 16, 24)))
    with pytest.raises(ValueError, match="must begin with 1"):
        require_sound_configuration(configuration(small("resnet"), (5, 16, 24)))
