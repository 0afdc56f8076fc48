from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from squares import SIDE, SquareNetwork, draw, trained
from torch import nn

from autoseg.inference import explain, faithfulness

SOFTMAX = partial(torch.softmax, dim=1)
EXPLANATIONS = {**explain.METHODS, "occlusion": partial(explain.occlusion, window=(SIDE, SIDE))}


@pytest.fixture(scope="module")
def network() -> SquareNetwork:
    return trained()


def positive(seed: int = 5) -> torch.Tensor:
    return draw(2, np.random.default_rng(seed))[0][1:]


def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def edges(network, image, output) -> np.ndarray:
    """What looks like an explanation and does not look at the network (Adebayo et al. 2018)."""
    rows, columns = np.gradient(image[0, 0].numpy())
    return np.hypot(rows, columns).astype(np.float32)


@pytest.mark.parametrize("name", EXPLANATIONS)
def test_explanations_of_what_was_learnt_are_faithful(network: SquareNetwork, name: str):
    found = faithfulness.check(EXPLANATIONS[name], network, positive(), 1, rng(), probabilities=SOFTMAX)
    assert found.verdict == "faithful" and found.similarity < 0.5
    assert found.deletion < 0.2 and found.insertion > 0.7


def test_an_edge_detector_is_not_faithful(network: SquareNetwork):
    found = faithfulness.check(edges, network, positive(), 1, rng(), probabilities=SOFTMAX)
    assert found.similarity == pytest.approx(1.0) and found.verdict == "not faithful"


def test_a_map_without_evidence_is_neither(network: SquareNetwork):
    nothing = faithfulness.check(lambda *_: np.full((28, 36), -1.0, np.float32), network, positive(), 1, rng())
    assert math.isnan(nothing.similarity) and nothing.verdict == "no evidence"


def test_what_points_at_the_evidence_beats_chance_in_deletion_and_insertion(network: SquareNetwork):
    image = positive()
    right = faithfulness.removal(explain.grad_cam(network, image, 1), network, image, 1, probabilities=SOFTMAX)
    chance = faithfulness.removal(rng().random((28, 36)).astype(np.float32), network, image, 1, probabilities=SOFTMAX)
    assert right[0] < chance[0] and right[1] > chance[1]


def test_deletion_and_insertion_by_hand():
    class Sum(nn.Module):
        def forward(self, image):
            return image.flatten(1).sum(dim=1, keepdim=True)

    image = torch.tensor([[[[4.0, 1.0], [3.0, 2.0]]]])
    # 10, 6, 3, 1, 0 are left of the image; 0, 4, 7, 9, 10 are there
    found = faithfulness.removal(image[0, 0].numpy(), Sum(), image, 0, probabilities=lambda outputs: outputs, parts=4)
    assert found == pytest.approx(((5 + 6 + 3 + 1) / 4, (4 + 7 + 9 + 5) / 4))
    options = {"probabilities": lambda outputs: outputs, "parts": 4}
    ones = faithfulness.removal(image[0, 0].numpy(), Sum(), image, 0, baseline=1.0, **options)
    assert ones == pytest.approx(((5 + 7 + 5 + 4 + 2) / 4, (2 + 7 + 9 + 10 + 5) / 4))


def test_shuffling_moves_numbers_and_makes_none():
    network = trained(steps=2)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    copied = faithfulness.shuffled(network, rng())
    for name, tensor in copied.state_dict().items():
        assert torch.equal(tensor.flatten().sort().values, before[name].flatten().sort().values)
        assert torch.equal(network.state_dict()[name], before[name])
    assert not torch.equal(copied.body[3].weight, network.body[3].weight)
    assert torch.equal(faithfulness.shuffled(network, rng()).body[3].weight, copied.body[3].weight)


def test_statistics_of_a_channel_move_together():
    norm = nn.BatchNorm2d(6)
    for place, tensor in enumerate((norm.weight, norm.bias, norm.running_mean, norm.running_var)):
        tensor.data = torch.arange(6.0) + 10 * place
    copied = faithfulness.shuffled(norm, rng())
    assert torch.equal(copied.weight + 20, copied.running_mean) and torch.equal(copied.weight + 30, copied.running_var)
    assert not torch.equal(copied.weight, norm.weight)


def spot(row: int, column: int) -> np.ndarray:
    heat = np.zeros((30, 40), np.float32)
    heat[row:row + 4, column:column + 4] = 0.7
    return heat


def test_spots_in_two_places_are_not_alike_although_most_of_both_maps_is_empty():
    one, other = spot(3, 5), spot(20, 30)
    assert structural_similarity(one, other, data_range=1.0) > 0.8
    assert faithfulness.similarity(one, other) < 0.1
    assert faithfulness.similarity(one, one) == pytest.approx(1.0)


def test_similarity_does_not_depend_on_the_scale_and_ignores_evidence_against():
    one, other = rng().random((30, 40)).astype(np.float32), np.random.default_rng(1).random((30, 40)).astype(np.float32)
    assert faithfulness.similarity(one, 50 * other) == pytest.approx(faithfulness.similarity(one, other), abs=1e-5)
    assert faithfulness.similarity(one - 0.5, np.maximum(one - 0.5, 0)) == pytest.approx(1.0)
    assert faithfulness.similarity(one, -one) == 0.0 and math.isnan(faithfulness.similarity(-one, one))


def test_local_similarity_is_that_of_scikit_image_inside():
    one, other = rng().random((30, 40)), np.random.default_rng(1).random((30, 40))
    expected = structural_similarity(one, other, data_range=1.0, full=True, use_sample_covariance=False)[1]
    np.testing.assert_allclose(faithfulness._local_similarity(one, other), expected, atol=1e-12)


def test_a_value_has_no_probability_to_remove_anything_from():
    found = faithfulness.check(explain.grad_cam, trained(), draw(2, rng())[0][1:], 1, rng(), probabilities=None)
    assert math.isnan(found.deletion) and math.isnan(found.insertion) and not math.isnan(found.similarity)


def test_an_ensemble_is_compared_with_ensembles_of_random_networks():
    ensemble, image = explain.Ensemble([trained(seed=seed) for seed in (0, 1)]), draw(2, rng())[0][1:]
    found = faithfulness.check(explain.of_members(explain.activation_map), ensemble, image, 1, rng(),
                               probabilities=lambda outputs: outputs.softmax(1))
    assert found.verdict == "faithful" and found.insertion > found.deletion
