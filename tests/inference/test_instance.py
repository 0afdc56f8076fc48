from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from inference.pairs import deformed_pair, error, length, texture
from torch.nn import functional

from autoseg.inference.convex import ConvexSearch, convex_displacement
from autoseg.inference.instance import (
    InstanceRules,
    Level,
    optimise_affine,
    optimise_pair,
    shrunken,
    shrunken_shape,
    velocity_shape,
)
from autoseg.losses.local_correlation import local_correlation_loss
from autoseg.losses.mind import mind_descriptors
from autoseg.nn.registrar import Deformation
from autoseg.nn.warp import affine_displacement, jacobian_determinant, resize, warp
from autoseg.ops.pyramid import axis_factors

SHAPE = (30, 36)
CORRELATION = partial(local_correlation_loss, radius=2)
RULES = InstanceRules(levels=(Level(2, 4, 40), Level(1, 2, 40)), rate_voxels=0.1, smoothness=0.05, energy="diffusion",
                      integration_steps=5)


def test_a_known_deformation_is_found_whatever_the_contrast():
    fixed, moving, truth = deformed_pair(SHAPE)
    found = optimise_pair(fixed, 40 - 3 * moving, (1.0, 1.0), RULES, CORRELATION)
    assert length(truth) > 0.7
    assert error(found.displacement, truth) < 0.25 * length(truth)
    assert float(jacobian_determinant(found.displacement).min()) > 0


def test_a_known_deformation_in_three_dimensions_is_found():
    fixed, moving, truth = deformed_pair((14, 16, 18), amplitude=1.5)
    rules = replace(RULES, levels=(Level(1, 2, 40),))
    found = optimise_pair(fixed, moving, (1.0, 1.0, 1.0), rules, CORRELATION)
    assert error(found.displacement, truth) < 0.3 * length(truth)


def test_features_are_compared_in_place_of_images():
    fixed, moving, truth = deformed_pair(SHAPE)
    rules = replace(RULES, smoothness=0.2)
    found = optimise_pair(fixed, moving.exp(), (1.0, 1.0), rules, functional.mse_loss, describe=mind_descriptors)
    assert error(found.displacement, truth) < 0.6 * length(truth)


@pytest.mark.parametrize("shrink", [1, 2])
def test_an_affine_map_is_found_at_any_resolution(shrink):
    moving = texture((31, 41))
    matrix = torch.tensor([[[1.05, 0.08, 1.2], [-0.06, 0.96, -1.5]]])
    truth = affine_displacement(matrix, (31, 41))
    found = optimise_affine(warp(moving, truth), moving, (1.0, 1.0), Level(shrink, 1, 150),
                            partial(local_correlation_loss, radius=4), rate_voxels=0.1)
    assert error(affine_displacement(found, (31, 41)), truth) < 0.1 * length(truth)


def test_it_goes_on_from_a_start_and_keeps_its_affine_part():
    fixed, moving, truth = deformed_pair(SHAPE)
    rough = optimise_pair(fixed, moving, (1.0, 1.0), replace(RULES, levels=(Level(2, 4, 15),)), CORRELATION)
    start = Deformation(rough.displacement, rough.velocity, rough.affine)
    still = optimise_pair(fixed, moving, (1.0, 1.0), replace(RULES, levels=(Level(1, 2, 0),)), CORRELATION, start=start)
    torch.testing.assert_close(still.velocity, resize(rough.velocity, still.velocity.shape[2:]))
    better = optimise_pair(fixed, moving, (1.0, 1.0), replace(RULES, levels=(Level(1, 2, 30),)), CORRELATION, start=start)
    assert error(better.displacement, truth) < 0.7 * error(rough.displacement, truth)
    assert torch.equal(better.affine, rough.affine)


def test_a_pair_is_the_same_to_the_last_bit_and_whatever_is_beside_it():
    pairs = [deformed_pair(SHAPE, seed=seed)[:2] for seed in (0, 5)]
    rules = replace(RULES, levels=(Level(2, 4, 5),), affine=Level(2, 1, 5))
    alone, again = (optimise_pair(*pairs[1], (1.0, 1.0), rules, CORRELATION).displacement for _ in range(2))
    assert torch.equal(alone, again)
    both = [torch.cat(images) for images in zip(*pairs, strict=True)]
    together = optimise_pair(*both, (1.0, 1.0), rules, CORRELATION).displacement[1:]
    torch.testing.assert_close(together, alone, atol=0.02, rtol=0)  # Adam divides by gradients, whose rounding differs


def test_smoothness_is_in_millimetres():
    """Voxels ten times as long along one axis bend less along the other, as the same mm of displacement has fewer mm to fade."""
    fixed, moving, _ = deformed_pair(SHAPE)
    energies = []
    for spacing in ((1.0, 1.0), (10.0, 1.0)):
        rules = replace(RULES, smoothness=1.0, levels=(Level(1, 2, 30),))
        velocity = optimise_pair(fixed, moving, spacing, rules, CORRELATION).velocity
        energies.append(float(velocity[:, 0].diff(dim=2).square().mean()))
    assert energies[1] < 0.1 * energies[0]


def test_a_step_is_as_many_millimetres_along_thick_slices_as_within_them():
    """The first step of Adam moves every value by the rate: 0.1 of the finest voxels, 0.05 mm, which is 0.02 voxels of 2.5 mm."""
    fixed, moving, _ = deformed_pair(SHAPE)
    first = optimise_pair(fixed, moving, (2.5, 0.5), replace(RULES, levels=(Level(1, 1, 1),)), CORRELATION)
    assert [float(first.velocity[:, axis].abs().median()) for axis in (0, 1)] == pytest.approx([0.02, 0.1], rel=1e-3)
    matrix = optimise_affine(fixed, moving, (2.5, 0.5), Level(1, 1, 1), CORRELATION, rate_voxels=0.1)[0] - torch.eye(2, 3)
    half = 29 * 2.5 / 2  # mm, of the longest side; there the linear part moves as far as the shift does, 0.05 mm
    expected = [[0.05 / half, 0.05 / half * 0.5 / 2.5, 0.02], [0.05 / half * 2.5 / 0.5, 0.05 / half, 0.1]]
    np.testing.assert_allclose(matrix.abs().numpy(), expected, rtol=1e-3)


def test_a_coarse_grid_lies_between_the_same_voxels():
    assert shrunken_shape((9, 30, 1, 3), (4,) * 4) == (2, 8, 1, 2)
    line = torch.linspace(0, 8, 9).reshape(1, 1, 9, 1).expand(1, 1, 9, 2)
    coarse = shrunken(line, (2, 2))
    assert coarse.shape == (1, 1, 4, 2)
    np.testing.assert_allclose(coarse[0, 0, 1:-1, 0], [8 / 3, 16 / 3], atol=0.02)


def test_thick_slices_are_smoothed_within_themselves_only():
    image = texture((6, 40))
    coarse = shrunken(image, axis_factors(4, (8.0, 1.0)))
    assert coarse.shape == (1, 1, 6, 10)
    for row in range(6):  # each is smoothed along its own pixels only
        torch.testing.assert_close(coarse[:, :, row:row + 1], shrunken(image[:, :, row:row + 1], (1, 4)))
    assert velocity_shape((6, 40), Level(4, 4, 1), (8.0, 1.0)) == (6, 10)


def test_the_convex_search_finds_a_shift_that_gradients_would_not():
    moving = texture((40, 48))
    shift = torch.tensor([6.0, -4.0]).reshape(1, 2, 1, 1).expand(1, 2, 40, 48)
    fixed = warp(moving, shift)
    found = convex_displacement(mind_descriptors(fixed), mind_descriptors(moving), ConvexSearch(cell=2, reach=4))
    fine = resize(found, (40, 48))
    assert found.shape == (1, 2, 20, 24)
    assert error(fine, shift, margin=8) < 1.0
    rules = replace(RULES, levels=(Level(1, 2, 0),), search=ConvexSearch(cell=2, reach=4))
    assert error(optimise_pair(fixed, moving, (1.0, 1.0), rules, CORRELATION).displacement, shift, margin=8) < 1.0


def test_the_convex_search_is_its_own_converse():
    fixed, moving, _ = deformed_pair((30, 36), amplitude=4.0)
    there, back = (convex_displacement(mind_descriptors(a), mind_descriptors(b), ConvexSearch(cell=3, reach=3))
                   for a, b in ((fixed, moving), (moving, fixed)))
    returned = there + warp(back, there)
    assert float(returned.abs().mean()) < 0.2 * float(there.abs().mean())
