from __future__ import annotations

import math

import pytest
import torch

from autoseg.losses.uncertainty import UncertaintyWeights


def weights_of(*log_variances):
    weights = UncertaintyWeights(len(log_variances))
    weights.log_variances.data.copy_(torch.tensor(log_variances))
    return weights


def test_it_begins_with_the_plain_sum():
    assert UncertaintyWeights(2)([torch.tensor(0.75), torch.tensor(2.0)]).item() == 2.75


def test_the_sum_is_that_of_the_formula():
    """exp(-ln 2) 0.6 + ln 2 + exp(ln 4) 3 - ln 4 = 0.3 + 12 - ln 2."""
    total = weights_of(math.log(2), -math.log(4))([torch.tensor(0.6), torch.tensor(3.0)])
    assert total.item() == pytest.approx(12.3 - math.log(2))


def test_the_log_variance_settles_at_the_logarithm_of_the_loss():
    losses = [torch.tensor(0.05), torch.tensor(3.0)]
    weights = UncertaintyWeights(2)
    optimizer = torch.optim.SGD(weights.parameters(), 0.1)
    for _ in range(150):
        optimizer.zero_grad()
        weights(losses).backward()
        optimizer.step()
    torch.testing.assert_close(weights.log_variances.detach(), torch.log(torch.stack(losses)), rtol=0, atol=1e-3)


def test_each_task_is_moved_by_its_loss_over_its_variance():
    first, second = (torch.tensor(value, requires_grad=True) for value in (0.5, 7.0))
    weights_of(math.log(0.5), math.log(4))([first, second]).backward()
    assert (first.grad.item(), second.grad.item()) == pytest.approx((2.0, 0.25))
