from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from nn.classifiers import image

from autoseg.nn.pooling import AttentionPooling, LogSumExpPooling, MeanPooling, RecurrentPooling


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 3, 4, 5, 2)])
@pytest.mark.parametrize("sharpness", [0.5, 10.0])
def test_log_sum_exp_is_the_formula_with_the_largest_value_apart(shape, sharpness):
    features = image(*shape).double()
    found = LogSumExpPooling(3, sharpness)(features)
    for sample, row in zip(features, found, strict=True):
        for feature, value in zip(sample, row.tolist(), strict=True):
            places = feature.flatten().tolist()
            largest = max(places)
            total = sum(math.exp(sharpness * (x - largest)) for x in places)
            assert value == pytest.approx(largest + math.log(total / len(places)) / sharpness, rel=1e-9)


def test_log_sum_exp_lies_between_the_mean_and_the_largest_value_and_reaches_both():
    features = image(1, 1, 40, 50)
    mean, largest = features.mean().item(), features.max().item()
    values = [LogSumExpPooling(1, r)(features).item() for r in (1e-2, 1.0, 10.0, 1e4)]
    assert values == sorted(values) and mean <= values[0] and values[-1] <= largest
    assert values[0] == pytest.approx(mean, abs=1e-2) and values[-1] == pytest.approx(largest, abs=1e-2)


def test_log_sum_exp_of_large_features_is_finite():
    assert LogSumExpPooling(1, 10.0)(torch.tensor([[[[1e4, -1e4]]]])).item() == pytest.approx(1e4 - math.log(2) / 10)


def test_mean_pooling_by_hand():
    assert MeanPooling(1)(torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]]])).tolist() == [[3.0]]


def naive_attention(module, instances):
    """Softmax of w tanh(V f) over instances, and the weighted mean of these."""
    first, _, last = module.score
    scores = [float(last.weight.detach().numpy()[0] @ np.tanh(first.weight.detach().numpy() @ f + first.bias.detach().numpy()))
              for f in instances]
    weights = [math.exp(s) / sum(map(math.exp, scores)) for s in scores]
    return weights, sum(w * f for w, f in zip(weights, instances, strict=True))


@pytest.mark.parametrize("over_slices", [False, True])
def test_attention_is_the_formula(over_slices):
    torch.manual_seed(0)
    module = AttentionPooling(6, over_slices=over_slices).double()
    features = image(2, 6, 4, 3, 5).double()
    with torch.no_grad():
        found, weights = module(features), module.weights(features)
    for place, sample in enumerate(features.numpy()):
        instances = list(sample.mean((2, 3)).T if over_slices else sample.reshape(6, -1).T)
        expected_weights, expected = naive_attention(module, instances)
        assert np.allclose(weights[place], expected_weights, atol=1e-12) and np.allclose(found[place], expected, atol=1e-12)


def weights_of(reader, suffix):
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    return [getattr(reader, f"{name}_l0{suffix}").detach().numpy() for name in names]


def naive_gru(reader, sequence, suffix):
    """Last state of one direction, by the equations in torch's documentation of GRU."""
    weights = weights_of(reader, suffix)
    state = np.zeros(reader.hidden_size)
    for entry in sequence:
        inner, outer = weights[0] @ entry + weights[2], weights[1] @ state + weights[3]
        (ir, iz, ic), (hr, hz, hc) = np.split(inner, 3), np.split(outer, 3)
        reset, update = 1 / (1 + np.exp(-(ir + hr))), 1 / (1 + np.exp(-(iz + hz)))
        state = (1 - update) * np.tanh(ic + reset * hc) + update * state
    return state


def naive_lstm(reader, sequence, suffix):
    weights = weights_of(reader, suffix)
    state, memory = np.zeros(reader.hidden_size), np.zeros(reader.hidden_size)
    for entry in sequence:
        enter, forget, candidate, out = np.split(weights[0] @ entry + weights[2] + weights[1] @ state + weights[3], 4)
        memory = memory / (1 + np.exp(-forget)) + np.tanh(candidate) / (1 + np.exp(-enter))
        state = np.tanh(memory) / (1 + np.exp(-out))
    return state


@pytest.mark.parametrize(("cell", "naive"), [("gru", naive_gru), ("lstm", naive_lstm)])
def test_recurrent_pooling_reads_the_slices_up_and_down_and_takes_the_last_states(cell, naive):
    torch.manual_seed(0)
    module = RecurrentPooling(5, cell).double()
    features = image(2, 5, 4, 3, 2).double()
    with torch.no_grad():
        found = module(features).numpy()
    assert module.out_features == 6 == found.shape[1]
    for sample, row in zip(features.numpy(), found, strict=True):
        sequence = sample.mean((2, 3)).T
        expected = np.concatenate([naive(module.reader, sequence, ""), naive(module.reader, sequence[::-1], "_reverse")])
        assert np.allclose(row, expected, atol=1e-10)
