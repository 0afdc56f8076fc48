from __future__ import annotations

import pytest
import torch
from nn.fields import noise

from autoseg.core.networks import Network
from autoseg.nn.build import build_network
from autoseg.nn.similarity import PATCH, FeatureEncoder, PatchClassifier

FEATURES = (4, 4, 6, 6, 6)


def classifier(dims):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return PatchClassifier(1, dims, FEATURES)


def unet_encoder():
    described = Network("plain_unet", 2, 1, 3, (4, 6), ((1, 1), (2, 4)), ((3, 3), (3, 3)), (1, 1), (1,), False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return FeatureEncoder(list(build_network(described).encoder), (2, 4))


@pytest.mark.parametrize("dims", [2, 3])
def test_a_score_sees_a_patch_and_nothing_else(dims):
    network = classifier(dims)
    size = (PATCH + 4,) * dims
    fixed, moving = noise(1, 1, *size), noise(1, 1, *size, seed=1)
    scores = network(fixed, moving)
    assert scores.shape == (1, *(3,) * dims)
    last = (..., *(slice(4, 4 + PATCH),) * dims)
    torch.testing.assert_close(network(fixed[last], moving[last])[0], scores[(0, *(slice(2, 3),) * dims)], atol=1e-5, rtol=1e-4)


def test_features_are_those_of_the_stages_and_the_weights_stay():
    encoder = unet_encoder().train()
    assert not any(module.training for module in encoder.modules())
    image = noise(2, 1, 5, 6, seed=3).requires_grad_()
    features = encoder(image)
    assert [tuple(found.shape) for found in features] == [(2, 4, 6, 8), (2, 6, 3, 2)]
    sum(found.square().sum() for found in features).backward()
    assert float(image.grad.abs().sum()) > 0
    assert all(weights.grad is None for weights in encoder.parameters())
