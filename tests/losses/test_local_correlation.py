from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from nn.fields import SHAPES, noise

from autoseg.losses.local_correlation import local_correlation_loss, local_mean, squared_correlation


def naive(first, second, radius):
    """Squared correlation coefficient in every box, clipped at the border, window by window."""
    found = np.zeros(first.shape)
    for index in itertools.product(*map(range, first.shape)):
        box = tuple(slice(max(i - radius, 0), i + radius + 1) for i in index)
        found[index] = np.corrcoef(first[box].ravel(), second[box].ravel())[0, 1] ** 2
    return found


@pytest.mark.parametrize("dims", [2, 3])
def test_boxes_are_those_of_a_naive_loop(dims):
    first, second = noise(2, 2, *SHAPES[dims]), noise(2, 2, *SHAPES[dims], seed=1)
    found = squared_correlation(first, 3 + 50 * second, radius=2)
    for sample, channel in itertools.product(range(2), range(2)):
        expected = naive(first[sample, channel].numpy(), second[sample, channel].numpy(), 2)
        np.testing.assert_allclose(found[sample, channel].numpy(), expected, atol=2e-5)
    assert float(local_correlation_loss(first, second, radius=2)) == pytest.approx(1 - float(found.mean()), abs=1e-5)


def test_boxes_inside_the_image_are_those_of_monai():
    monai = pytest.importorskip("monai.losses", reason="MONAI is not installed", exc_type=ImportError)
    first, second = noise(1, 1, 12, 13, 14), noise(1, 1, 12, 13, 14, seed=1)
    loss = monai.LocalNormalizedCrossCorrelationLoss(kernel_size=5, smooth_dr=0, reduction="none")
    inside = (..., *(slice(2, -2),) * 3)  # MONAI fills windows at the border with zeros, which correlate
    found = squared_correlation(first, second, radius=2)
    torch.testing.assert_close(found[inside], -loss(first, second)[inside], atol=1e-4, rtol=0)


def test_a_gaussian_window_weighs_the_centre_most():
    spike = torch.zeros(1, 1, 1, 15)
    spike[..., 7] = 1
    weights = torch.exp(-0.5 * ((torch.arange(15.0) - 7) / 1.5) ** 2) * ((torch.arange(15.0) - 7).abs() <= 5)
    expected = weights / weights.sum()
    torch.testing.assert_close(local_mean(spike, [1.0, 1.5], "gaussian")[0, 0, 0, 5:10], expected[5:10], atol=1e-4, rtol=0)


@pytest.mark.parametrize("window", ["box", "gaussian"])
def test_means_of_a_constant_are_that_constant_up_to_the_border(window):
    torch.testing.assert_close(local_mean(torch.full((1, 2, 5, 6, 7), 3.0), [1, 2, 3], window), torch.full((1, 2, 5, 6, 7), 3.0))


@pytest.mark.parametrize("window", ["box", "gaussian"])
def test_scale_offset_and_sign_of_an_image_do_not_count(window):
    first, second = noise(1, 1, 8, 9, 10), noise(1, 1, 8, 9, 10, seed=1)
    reference = local_correlation_loss(first, second, radius=2, window=window)
    for changed in (second * 1e5, second * 1e-5, -second + 300):
        torch.testing.assert_close(local_correlation_loss(first, changed, radius=2, window=window), reference, atol=1e-3, rtol=0)
    assert float(local_correlation_loss(first, -2 * first, radius=2, window=window)) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("value", [0.0, 1.0, -1e6, 1e-30])
def test_a_constant_image_has_no_relation_and_a_finite_gradient(value):
    constant = torch.full((1, 1, 8, 9, 10), value, requires_grad=True)
    loss = local_correlation_loss(noise(1, 1, 8, 9, 10), constant)
    loss.backward()
    assert float(loss) == pytest.approx(1, abs=1e-4)
    assert torch.isfinite(constant.grad).all()


def test_air_beside_an_object_does_not_make_the_gradient_explode():
    """With VoxelMorph's absolute 1e-5 the noise of air pulls thousands of times as strongly as the object."""
    half = torch.cat([torch.zeros(1, 1, 8, 8, 8), torch.ones(1, 1, 8, 8, 8)], dim=4)
    fixed = half * noise(1, 1, 8, 8, 16) + 1e-4 * noise(1, 1, 8, 8, 16, seed=1)
    moving = (half * noise(1, 1, 8, 8, 16, seed=2) + 1e-4 * noise(1, 1, 8, 8, 16, seed=3)).requires_grad_()
    local_correlation_loss(fixed, moving, radius=1).backward()
    air, tissue = moving.grad[..., :6].abs().max(), moving.grad[..., 10:].abs().max()
    assert float(air) < float(tissue)
