from __future__ import annotations

import pytest
import torch
from nn.fields import smooth_field

from autoseg.losses.inverse_consistency import gradient_inverse_consistency, inverse_consistency
from autoseg.nn.warp import exponential


def test_a_shift_that_does_not_come_back_costs_its_square_in_millimetres():
    forward, backward = torch.zeros(1, 3, 4, 5, 6), torch.zeros(1, 3, 4, 5, 6)
    forward[:, 0], backward[:, 0] = 2.0, -1.0
    assert float(inverse_consistency(forward, backward, (3.0, 1.0, 1.0))) == pytest.approx(9.0)
    assert float(gradient_inverse_consistency(forward, backward, (3.0, 1.0, 1.0))) == 0


def test_exponentials_of_both_signs_are_nearly_consistent():
    velocity = smooth_field(2, amplitude=2.0, shape=(30, 40))
    there, back = exponential(velocity, 6), exponential(-velocity, 6)
    consistent = inverse_consistency(there, back, (1.0, 1.0))
    assert float(consistent) < 1e-3
    assert float(inverse_consistency(there, there, (1.0, 1.0))) > 100 * float(consistent)
