from __future__ import annotations

import pytest
import torch
from nn.fields import noise

from autoseg.losses.end_point import end_point_error, robust_displacement_error


def test_the_error_is_a_length_in_millimetres():
    truth = noise(2, 2, 4, 5)
    found = truth.clone()
    found[:, 0] += 1.5
    found[:, 1] -= 2.0
    assert float(end_point_error(found, truth, (2.0, 2.0))) == pytest.approx(5.0, rel=1e-4)
    assert float(robust_displacement_error(found, truth, (2.0, 2.0))) == pytest.approx((2.5 + 3.5) / 2, rel=1e-4)


def test_weights_choose_the_voxels():
    truth, found = torch.zeros(1, 2, 1, 4), torch.zeros(1, 2, 1, 4)
    found[0, 1, 0] = torch.tensor([1.0, 2, 3, 4])
    weights = torch.tensor([[[0.0, 1, 0, 1]]])
    assert float(end_point_error(found, truth, (1.0, 1.0), weights)) == pytest.approx(3.0, rel=1e-4)
    assert float(end_point_error(found, truth, (1.0, 1.0), 0 * weights)) == 0


def test_no_error_has_a_gradient_of_zero():
    found = torch.zeros(1, 2, 3, 4, requires_grad=True)
    end_point_error(found, torch.zeros(1, 2, 3, 4), (1.0, 1.0)).backward()
    assert torch.equal(found.grad, torch.zeros_like(found))
