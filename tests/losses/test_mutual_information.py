from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from nn.fields import noise

from autoseg.losses.mutual_information import joint_probabilities, mutual_information_loss, normalised_mutual_information_loss


def test_values_far_apart_have_the_information_of_their_classes():
    """Four equally frequent values, each of which tells the other image's: 2 bits."""
    first = torch.tensor([0.0, 10, 20, 31]).repeat(100).reshape(1, 1, 20, 20)
    second = torch.tensor([31.0, 0, 20, 10]).repeat(100).reshape(1, 1, 20, 20)
    # windows spread a value over neighbouring bins, which are of the same class here
    assert float(mutual_information_loss(first, second)) == pytest.approx(-math.log(4), abs=0.01)


def test_the_joint_histogram_is_that_of_a_naive_loop():
    first, second = noise(1, 1, 5, 6), noise(1, 1, 5, 6, seed=1)
    expected = np.zeros((8, 8))
    scaled = [((image - image.min()) / (image.max() - image.min()) * 7).flatten().double().numpy() for image in (first, second)]
    for a, b in zip(*scaled, strict=True):
        weights = [np.exp(-0.5 * ((value - np.arange(8)) / 0.5) ** 2) for value in (a, b)]
        expected += np.outer(weights[0] / weights[0].sum(), weights[1] / weights[1].sum()) / 30
    np.testing.assert_allclose(joint_probabilities(first, second, bins=8)[0].numpy(), expected, atol=1e-6)


def test_it_is_that_of_monai_for_the_same_windows():
    monai = pytest.importorskip("monai.losses", reason="MONAI is not installed", exc_type=ImportError)
    first, second = (torch.sigmoid(noise(2, 1, 8, 9, 10, seed=seed)) for seed in (0, 1))
    second = 0.3 * second + 0.7 * first
    first, second = ((image - image.amin((1, 2, 3, 4), True)) / (image.amax((1, 2, 3, 4), True) - image.amin((1, 2, 3, 4), True))
                     for image in (first, second))
    theirs = monai.GlobalMutualInformationLoss(num_bins=32, sigma_ratio=0.5)(first, second)
    torch.testing.assert_close(mutual_information_loss(first, second), theirs, atol=1e-3, rtol=0)


def test_unrelated_images_share_nothing_and_equal_ones_most():
    image, unrelated = noise(1, 1, 30, 30, 30), noise(1, 1, 30, 30, 30, seed=1)
    assert float(normalised_mutual_information_loss(image, unrelated)) == pytest.approx(-1, abs=0.02)
    assert float(mutual_information_loss(image, unrelated)) == pytest.approx(0, abs=0.03)
    assert float(normalised_mutual_information_loss(image, 3 - 2 * image)) < -1.4


def test_normalised_information_is_the_ratio_of_entropies():
    image, other = noise(1, 1, 10, 10, 10), noise(1, 1, 10, 10, 10, seed=1) + noise(1, 1, 10, 10, 10)
    joint = joint_probabilities(image, other)[0].double().numpy()
    entropy = [-(p[p > 0] * np.log(p[p > 0])).sum() for p in (joint.sum(1), joint.sum(0), joint)]
    expected = -(entropy[0] + entropy[1]) / entropy[2]
    assert float(normalised_mutual_information_loss(image, other)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("value", [0.0, -1e5])
def test_a_constant_image_says_nothing_and_has_no_gradient(value):
    constant = torch.full((1, 1, 6, 7, 8), value, requires_grad=True)
    loss = mutual_information_loss(noise(1, 1, 6, 7, 8), constant)
    loss.backward()
    assert float(loss) == pytest.approx(0, abs=1e-5)
    assert torch.equal(constant.grad, torch.zeros_like(constant))


def test_a_shift_of_an_inverted_image_is_told():
    image = torch.sin(torch.arange(40.0) / 3).expand(40, 40)[None, None] + torch.cos(torch.arange(40.0) / 4)[:, None]
    inverted = image.square().neg()
    losses = [float(mutual_information_loss(image, inverted.roll(shift, 3))) for shift in (0, 1, 3)]
    assert losses == sorted(losses)
