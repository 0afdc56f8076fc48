from __future__ import annotations

import numpy as np
import pytest
import torch
from nn.fields import noise
from nn.test_similarity import classifier, unet_encoder

from autoseg.losses.learned import feature_loss, patch_loss


def test_patch_loss_is_the_mean_surprise_of_alignment():
    fixed, moving = noise(2, 1, 21, 22), noise(2, 1, 21, 22, seed=1)
    standard = [(image - image.mean((2, 3), keepdim=True)) / image.var((2, 3), keepdim=True, unbiased=False).sqrt()
                for image in (fixed, moving)]
    scores = classifier(2)(*standard).detach().double().numpy()
    expected = -np.log(1 / (1 + np.exp(-scores))).mean()
    assert float(patch_loss(classifier(2), fixed, 9 - 0 * moving + 5 * moving).detach()) == pytest.approx(expected, rel=1e-4)


def test_feature_loss_is_the_mean_angle_of_features_place_by_place():
    encoder, fixed, moving = unet_encoder(), noise(1, 1, 6, 8), noise(1, 1, 6, 8, seed=1)
    levels = []
    for first, second in zip(encoder(fixed), encoder(moving), strict=True):
        a, b = (features[0].flatten(1).double().numpy() for features in (first, second))
        levels.append(np.mean([1 - x @ y / np.sqrt((x @ x) * (y @ y)) for x, y in zip(a.T, b.T, strict=True)]))
    assert float(feature_loss(encoder, fixed, moving)) == pytest.approx(np.mean(levels), rel=1e-4)
    assert float(feature_loss(encoder, fixed, fixed)) == pytest.approx(0, abs=1e-6)


def test_a_constant_image_has_a_finite_gradient():
    for loss, similarity in ((feature_loss, unet_encoder()), (patch_loss, classifier(2))):
        constant = torch.ones(1, 1, 20, 20, requires_grad=True)
        loss(similarity, noise(1, 1, 20, 20), constant).backward()
        assert torch.isfinite(constant.grad).all()
