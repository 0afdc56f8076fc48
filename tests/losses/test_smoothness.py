from __future__ import annotations

import itertools

import pytest
import torch
from nn.fields import SHAPES, noise

from autoseg.losses.smoothness import bending_energy, diffusion_energy
from autoseg.nn.warp import affine_displacement

SPACING = (3.0, 1.0, 0.5)


def naive_diffusion(field, spacing):
    """Mean over axes of the mean squared difference of neighbours, component by component."""
    dims, total = field.shape[0], 0.0
    for axis in range(dims):
        terms = []
        for d in range(dims):
            for index in itertools.product(*map(range, field.shape[1:])):
                after = tuple(i + (e == axis) for e, i in enumerate(index))
                if after[axis] < field.shape[axis + 1]:
                    terms.append((float(field[d][after] - field[d][index]) * spacing[d] / spacing[axis]) ** 2)
        total += sum(terms) / len(terms)
    return total / dims


@pytest.mark.parametrize("dims", [2, 3])
def test_diffusion_is_that_of_a_naive_loop(dims):
    field, spacing = noise(1, dims, *(4, 5, 6)[:dims]), SPACING[:dims]
    assert float(diffusion_energy(field, spacing)) == pytest.approx(naive_diffusion(field[0], spacing), rel=1e-5)


def test_diffusion_of_a_stretch_is_worked_out_by_hand():
    """10 % along the first axis and a shear of 0.2 mm per mm: (0.1**2 + 0.2**2) over nine derivatives."""
    matrix = torch.eye(3, 4)
    matrix[0, 0] = 1.1
    matrix[1, 2] = 0.2 * SPACING[2] / SPACING[1]
    field = affine_displacement(matrix[None], SHAPES[3])
    assert float(diffusion_energy(field, SPACING)) == pytest.approx(0.05 / 9, rel=1e-4)


@pytest.mark.parametrize("energy", [diffusion_energy, bending_energy])
def test_a_shift_costs_nothing(energy):
    assert float(energy(torch.full((1, 3, 4, 5, 6), 2.5), SPACING)) == 0


def test_an_affine_map_does_not_bend():
    matrix = torch.eye(3, 4)[None] + 0.2 * noise(1, 3, 4)
    assert float(bending_energy(affine_displacement(matrix, SHAPES[3]), SPACING)) == pytest.approx(0, abs=1e-8)


def quadratic(shape, spacing):
    """u_0 = 0.1 z z / 2 + 0.2 z y + 0.3 y x, u_1 = 0.4 x x / 2, in mm of positions in mm; as voxels."""
    lines = [torch.arange(float(size)) * step for size, step in zip(shape, spacing, strict=True)]
    z, y, x = torch.meshgrid(*lines, indexing="ij")
    field = torch.stack([0.1 * z * z / 2 + 0.2 * z * y + 0.3 * y * x, 0.4 * x * x / 2, torch.zeros_like(x)])
    return (field / torch.tensor(spacing).reshape(3, 1, 1, 1))[None]


def test_bending_of_a_quadratic_field_is_worked_out_by_hand():
    """Mixed derivatives count twice: 0.1**2 + 2 * 0.2**2 + 2 * 0.3**2 + 0.4**2 per mm**2."""
    assert float(bending_energy(quadratic((5, 6, 7), SPACING), SPACING)) == pytest.approx(0.43, rel=1e-3)


def test_bending_of_cubic_voxels_is_that_of_monai_for_a_quadratic_field():
    """MONAI takes the mean over components and has no spacing; its mixed terms reach over more voxels."""
    monai = pytest.importorskip("monai.losses", reason="MONAI is not installed", exc_type=ImportError)
    field = quadratic((5, 6, 7), (1.0, 1.0, 1.0))
    torch.testing.assert_close(bending_energy(field, (1, 1, 1)), 3 * monai.BendingEnergyLoss()(field), rtol=1e-4, atol=0)


def test_a_sawtooth_is_seen_which_central_differences_do_not():
    saw = torch.zeros(1, 2, 8, 8)
    saw[:, 0, ::2, ::2] = saw[:, 0, 1::2, 1::2] = 1.0
    assert float(diffusion_energy(saw, (1, 1))) == pytest.approx(0.5)
    assert float(bending_energy(saw, (1, 1))) == pytest.approx(2 * 4 + 2 * 4)


def test_an_axis_of_one_voxel_adds_nothing():
    field = noise(1, 3, 1, 5, 6)
    for energy in (diffusion_energy, bending_energy):
        assert torch.isfinite(energy(field, SPACING))
    flat = noise(1, 3, 1, 1, 1).requires_grad_()
    (diffusion_energy(flat, SPACING) + bending_energy(flat, SPACING)).backward()
    assert torch.equal(flat.grad, torch.zeros_like(flat))
