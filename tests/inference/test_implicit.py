from __future__ import annotations

import math
from dataclasses import replace

import nibabel
import numpy as np
import pytest
import torch
from inference.pairs import deformed_pair, error, length
from nn.fields import noise, smooth_field
from torch.nn import functional

from autoseg.core.errors import UsageError
from autoseg.inference.implicit import (
    ImplicitRules,
    bending_of,
    correlation_loss,
    deformation_gradient,
    fit_implicit,
    fresh_siren,
    implicit_displacement,
)
from autoseg.losses.jacobian import hyperelastic_energy, volume_change
from autoseg.losses.smoothness import bending_energy
from autoseg.nn.warp import exponential, jacobian, warp

RULES = ImplicitRules(widths=(48, 48), frequency=12.0, iterations=150, rate=1e-3, points=800, regularizer="none", weight=0.0)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("regularizer", "weight"), [("none", 0.0), ("jacobian", 0.05), ("hyperelastic", 0.1), ("bending", 0.1)])
def test_a_known_deformation_is_found_with_every_regularizer(regularizer, weight):
    fixed, moving, truth = deformed_pair((30, 36))
    rules = replace(RULES, regularizer=regularizer, weight=weight, blur=2)
    network = fit_implicit(fixed, 5 + 2 * moving, torch.ones(30, 36, dtype=torch.bool), (1.0, 1.0), rules, generator())
    assert error(implicit_displacement(network, (30, 36)), truth) < 0.35 * length(truth)


def test_the_same_seed_gives_the_same_displacement():
    fixed, moving, _ = deformed_pair((12, 14))
    mask, rules = torch.ones(12, 14, dtype=torch.bool), replace(RULES, iterations=5)
    torch.manual_seed(1)
    first = implicit_displacement(fit_implicit(fixed, moving, mask, (1.0, 1.0), rules, generator()), (12, 14))
    torch.manual_seed(2)
    assert torch.equal(implicit_displacement(fit_implicit(fixed, moving, mask, (1.0, 1.0), rules, generator()), (12, 14)), first)


def test_derivatives_in_millimetres_are_those_of_the_grid():
    """The displacement is drawn on a fine grid and differentiated there."""
    shape, spacing = (41, 61, 51), (2.0, 0.5, 1.0)
    network = fresh_siren(3, replace(RULES, widths=(24, 24), frequency=2.0), generator(3))
    with torch.no_grad():
        network.layers[-1].weight.mul_(30)
        half_mm = torch.tensor([(size - 1) / 2 * step for size, step in zip(shape, spacing, strict=True)])
        points = torch.stack(torch.meshgrid(*(torch.linspace(-1, 1, size) for size in shape), indexing="ij"), dim=-1)
        _, first, second = network.with_second(points[1:-1, 1:-1, 1:-1].reshape(-1, 3))
        grid = implicit_displacement(network, shape)
    own = deformation_gradient(first, half_mm)
    theirs = jacobian(grid, spacing)[:, :, :, 1:-1, 1:-1, 1:-1].flatten(3)[0].movedim(2, 0)
    torch.testing.assert_close(own, theirs, atol=2e-3, rtol=0.01)
    torch.testing.assert_close(volume_change(own), volume_change(theirs), rtol=0.02, atol=0)
    torch.testing.assert_close(hyperelastic_energy(own), hyperelastic_energy(theirs), rtol=0.02, atol=0)
    torch.testing.assert_close(bending_of(second, half_mm), bending_energy(grid, spacing), rtol=0.05, atol=0)


def test_only_the_mask_is_matched():
    fixed, moving, truth = deformed_pair((30, 36), amplitude=2.5)
    elsewhere = noise(1, 1, 30, 36, seed=9)
    mask = torch.zeros(30, 36, dtype=torch.bool)
    mask[:, :18] = True
    cut = torch.where(mask, fixed, elsewhere)
    found = implicit_displacement(fit_implicit(cut, moving, mask, (1.0, 1.0), replace(RULES, blur=2), generator()), (30, 36))
    assert error(found[..., :16], truth[..., :16]) < 0.4 * length(truth[..., :16])


def test_an_empty_mask_is_told():
    with pytest.raises(UsageError, match="no voxel of the .* is set"):
        fit_implicit(*deformed_pair((8, 9))[:2], torch.zeros(8, 9, dtype=torch.bool), (1.0, 1.0), RULES, generator())


def test_correlation_is_that_of_numpy_and_a_constant_has_none():
    first, second = noise(1, 2, 50), noise(1, 2, 50, seed=1)
    expected = 1 - np.mean([np.corrcoef(first[0, c], second[0, c])[0, 1] for c in range(2)])
    assert float(correlation_loss(first, second)) == pytest.approx(expected, abs=1e-5)
    constant = torch.zeros(1, 2, 50, requires_grad=True)
    loss = correlation_loss(first, constant)
    loss.backward()
    assert float(loss.detach()) == 1
    assert torch.isfinite(constant.grad).all()


def test_a_known_warp_of_a_real_scan_is_found(real_data):
    """Points of the fixed image, 2.6 mm from where they belong at the start, lie within a third of that after four seconds."""
    scan = nibabel.load(sorted((real_data / "Dataset105_FetalBrainSB" / "imagesTr").glob("*_0000.nii.gz"))[0])
    voxels = torch.from_numpy(np.asarray(scan.dataobj, dtype=np.float32).T.copy())[None, None]
    moving = functional.interpolate(voxels, (32, 44, 36), mode="trilinear", align_corners=True)
    spacing = [0.8 * (large - 1) / (small - 1) for large, small in zip(voxels.shape[2:], moving.shape[2:], strict=True)]
    truth = exponential(smooth_field(3, amplitude=2.5, seed=4, shape=moving.shape[2:]), 6)
    fixed = warp(moving, truth)
    mask = fixed[0, 0] > float(fixed.mean())
    rules = ImplicitRules(widths=(64, 64), frequency=12.0, iterations=200, rate=1e-3, points=2000, regularizer="jacobian",
                          weight=0.05, blur=2)
    found = implicit_displacement(fit_implicit(fixed, moving, mask, spacing, rules, generator()), moving.shape[2:])
    scale = torch.tensor(spacing).reshape(1, 3, 1, 1, 1)
    before, after = (float((((u - truth) * scale).square().sum(1).sqrt())[0][mask].mean()) for u in (0 * truth, found))
    assert not math.isnan(after)
    assert after < before / 3
