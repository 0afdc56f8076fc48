from __future__ import annotations

import numpy as np
import pytest
import torch
from nn.fields import noise

from autoseg.losses.jacobian import folding_penalty, hyperelastic_energy, volume_change
from autoseg.nn.warp import jacobian


def matrices(*diagonals):
    return torch.stack([torch.diag(torch.tensor(diagonal)) for diagonal in diagonals])


def naive_hyperelastic(matrix):
    """Burger et al. 2013, by numpy's inverse: cofactors are det times the inverse, transposed."""
    volume = np.linalg.det(matrix)
    cofactors = volume * np.linalg.inv(matrix).T
    length = 0.5 * ((matrix - np.eye(3)) ** 2).sum()
    area = sum(max(0.0, (cofactors[:, column] ** 2).sum() - 1) ** 2 for column in range(3))
    return length + area + ((volume - 1) ** 2 / volume) ** 2


def test_volume_change_is_the_mean_distance_from_one():
    assert float(volume_change(matrices([2.0, 1.0, 1.0], [1.0, 0.5, 1.0]))) == pytest.approx((1 + 0.5) / 2)


def test_folds_cost_what_they_lack():
    found = folding_penalty(matrices([-2.0, 1.0, 1.0], [0.5, 1.0, 1.0]))
    assert float(found) == pytest.approx(1.0)
    assert float(folding_penalty(matrices([0.5, 1.0, 1.0]), smallest=0.75)) == pytest.approx(0.25)


def test_hyperelastic_energy_is_that_of_a_naive_loop():
    many = torch.eye(3) + 0.2 * noise(50, 3, 3)
    many = many[torch.linalg.det(many) > 0.15]
    expected = np.mean([naive_hyperelastic(matrix) for matrix in many.double().numpy()])
    assert float(hyperelastic_energy(many)) == pytest.approx(expected, rel=1e-4)


def test_hyperelastic_energy_of_a_grid_is_the_mean_over_voxels():
    field = 0.1 * noise(2, 3, 4, 5, 6)
    derivatives = jacobian(field, (2.0, 1.0, 0.5))
    points = derivatives.movedim((1, 2), (4, 5)).reshape(-1, 3, 3)
    torch.testing.assert_close(hyperelastic_energy(derivatives), hyperelastic_energy(points))


def test_a_rotation_changes_no_area_and_no_volume():
    turn = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])[None]
    assert float(hyperelastic_energy(turn, length=0)) == 0
    assert float(hyperelastic_energy(torch.eye(3)[None])) == 0


def test_in_two_dimensions_there_are_lengths_and_volumes():
    stretch = torch.tensor([[2.0, 0.0], [0.0, 1.0]])[None]
    assert float(hyperelastic_energy(stretch)) == pytest.approx(0.5 * 1 + (1 / 2) ** 2)


def test_the_penalty_of_volumes_has_no_jump_and_undoes_folds():
    sizes = torch.tensor([0.1 - 1e-4, 0.1 + 1e-4, -0.5], requires_grad=True)
    one = torch.ones(3)
    jacobians = torch.diag_embed(torch.stack([sizes, one, one], dim=1))
    energies = [hyperelastic_energy(entry[None], length=0, area=0) for entry in jacobians]
    assert energies[0].item() == pytest.approx(energies[1].item(), rel=0.01)
    sum(energies).backward()
    assert torch.isfinite(sizes.grad).all()
    assert (sizes.grad < 0).all()
    assert float(sizes.grad[0]) == pytest.approx(float(sizes.grad[1]), rel=0.01)
