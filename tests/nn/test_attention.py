from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import torch
from nn.classifiers import image
from torch import nn

from autoseg.nn.attention import Cbam, SqueezeExcitation, attention_of
from autoseg.nn.blocks import norm_of


def squeezed(weigh, values):
    """Two layers with a ReLU between them, one number at a time."""
    first, _, second = weigh
    hidden = [max(0.0, sum(w * v for w, v in zip(row, values, strict=True)) + b)
              for row, b in zip(first.weight.tolist(), first.bias.tolist(), strict=True)]
    return [sum(w * h for w, h in zip(row, hidden, strict=True)) + b
            for row, b in zip(second.weight.tolist(), second.bias.tolist(), strict=True)]


def sigmoid(value):
    return 1 / (1 + np.exp(-np.asarray(value)))


def naive_squeeze_excitation(module, sample):
    weights = sigmoid(squeezed(module.weigh, [float(feature.mean()) for feature in sample]))
    return np.stack([w * feature for w, feature in zip(weights, sample, strict=True)])


def naive_cbam(module, sample):
    means = squeezed(module.weigh, [float(feature.mean()) for feature in sample])
    largest = squeezed(module.weigh, [float(feature.max()) for feature in sample])
    weights = sigmoid(np.add(means, largest))
    sample = np.stack([w * feature for w, feature in zip(weights, sample, strict=True)])
    planes = np.stack([sample.max(0), sample.mean(0)])
    kernel = module.look[0].weight.detach().numpy()[0]
    padded = np.pad(planes, [(0, 0), *[(3, 3)] * (sample.ndim - 1)])
    looked = np.zeros(sample.shape[1:])
    for place in product(*map(range, looked.shape)):
        window = padded[(slice(None), *(slice(i, i + 7) for i in place))]
        looked[place] = (window * kernel).sum()
    norm = module.look[1]  # in evaluation: mean 0 and variance 1
    looked = looked / math.sqrt(1 + norm.eps) * norm.weight.item() + norm.bias.item()
    return sample * sigmoid(looked)


@pytest.mark.parametrize("shape", [(2, 20, 5, 6), (2, 20, 3, 5, 4)])
@pytest.mark.parametrize(("kind", "naive"), [("squeeze_excitation", naive_squeeze_excitation), ("cbam", naive_cbam)])
def test_attention_is_that_of_loops(kind, naive, shape):
    torch.manual_seed(3)
    module = attention_of(kind, 20, len(shape) - 2, norm_of("batch", len(shape) - 2)).double().eval()
    if kind == "cbam":
        nn.init.constant_(module.look[1].weight, 1.5)
        nn.init.constant_(module.look[1].bias, -0.25)
    features = image(*shape).double()
    with torch.no_grad():
        found = module(features).numpy()
    for sample, expected in zip(found, features.numpy(), strict=True):
        assert np.allclose(sample, naive(module, expected), atol=1e-12)


def test_a_sixteenth_of_the_features_is_squeezed_and_at_least_4():
    assert [SqueezeExcitation(channels).weigh[0].out_features for channels in (8, 64, 96, 256)] == [4, 4, 6, 16]


def test_no_attention_changes_nothing():
    features = image(1, 4, 3, 3)
    assert attention_of("none", 4, 2, norm_of("batch", 2))(features) is features


def test_attention_of_cbam_uses_the_planned_norm():
    assert isinstance(Cbam(16, 3, norm_of("group", 3)).look[1], nn.GroupNorm)
