from __future__ import annotations

import numpy as np
import pytest
import torch

from autoseg.augment.deformations import DeformationRules, draw_displacement, draw_velocity, integration_steps
from autoseg.nn.warp import compose, exponential, jacobian_determinant

SPACING = (3.0, 1.0, 1.5)
RULES = DeformationRules(length_mm=(4.0, 4.0), widths_mm=(6.0, 12.0))
SHAPE = (12, 36, 26)


def test_lengths_are_in_millimetres_whatever_the_voxels():
    for spacing in (SPACING, (1.0, 1.0, 1.0)):
        velocity = draw_velocity(SHAPE, spacing, RULES, np.random.default_rng(0))
        in_mm = velocity * np.array(spacing).reshape(3, 1, 1, 1)
        assert np.sqrt((in_mm**2).sum(0).mean()) == pytest.approx(4.0, rel=1e-4)


def test_widths_are_in_millimetres_along_every_axis():
    """Differences of neighbours per mm are alike along all axes, where those per voxel are not."""
    rules = DeformationRules((4.0, 4.0), (5.0,))
    fields = [draw_velocity((20, 60, 40), SPACING, rules, np.random.default_rng(seed))[1] for seed in range(4)]
    slopes = [np.sqrt(np.mean([np.diff(field, axis=axis)[4:-4, 8:-8, 6:-6] ** 2 for field in fields])) / SPACING[axis]
              for axis in range(3)]
    assert max(slopes) / min(slopes) < 1.35


@pytest.mark.parametrize("seed", range(3))
def test_nothing_folds_and_the_inverse_is_that_of_minus_the_velocity(seed):
    velocity = draw_velocity(SHAPE, SPACING, RULES, np.random.default_rng(seed))
    there = draw_displacement(SHAPE, SPACING, RULES, np.random.default_rng(seed))
    back = exponential(torch.from_numpy(-velocity)[None], integration_steps(velocity))
    returned = compose(torch.from_numpy(there)[None], back)[0].abs()
    away = np.abs(there).max()
    assert float(jacobian_determinant(torch.from_numpy(there)[None]).min()) > 0
    assert away > 2
    assert float(returned[:, 4:-4, 10:-10, 8:-8].mean()) < 0.02 * away


def test_steps_are_as_many_as_half_a_voxel_needs():
    assert [integration_steps(np.full((3, 1, 1, 1), size, np.float32)) for size in (0.0, 0.5, 0.6, 4.0, 5.0)] == [0, 0, 1, 3, 4]


def test_two_dimensions_and_one_slice():
    assert draw_displacement((9, 12), (1.0, 2.0), RULES, np.random.default_rng(0)).shape == (2, 9, 12)
    flat = draw_displacement((1, 9, 12), SPACING, RULES, np.random.default_rng(0))
    assert np.isfinite(flat).all()


def test_the_generator_decides():
    first, second, third = (draw_displacement(SHAPE, SPACING, RULES, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, third)
