from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from nn.fields import noise

from autoseg.core.networks import Network, SimilarityNetwork
from autoseg.core.plan_rules import require_sound_network
from autoseg.nn.build import build_network
from autoseg.nn.similarity import FeatureEncoder, build_similarity
from autoseg.planning.memory import parameter_count

FEATURES, PATCH = (4, 4, 6, 6, 6), 17


def described(dims, kernel=3):
    """Simonovsky's five layers; with a kernel of 1 along the first axis, single slices."""
    strides = tuple((stride if kernel > 1 else 1, *(stride,) * (dims - 1)) for stride in (1, 2, 1, 1, 1))
    return SimilarityNetwork("patches", dims, 1, FEATURES, strides, ((kernel, *(3,) * (dims - 1)),) * 5, (1,) * 5)


def built(network):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_similarity(network)


def classifier(dims):
    return built(described(dims))


def unet_encoder():
    network = Network("plain_unet", 2, 1, 3, (4, 6), ((1, 1), (2, 4)), ((3, 3), (3, 3)), (1, 1), (1,), False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return FeatureEncoder(list(build_network(network).encoder), (2, 4))


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


def test_along_an_axis_without_room_a_score_sees_one_voxel():
    network = described(3, kernel=1)
    assert network.patch == (1, PATCH, PATCH) and described(2).patch == (PATCH, PATCH)
    assert built(network)(noise(1, 1, 3, PATCH, PATCH), noise(1, 1, 3, PATCH, PATCH, seed=1)).shape == (1, 3, 1, 1)


@pytest.mark.parametrize("kind", ["plain", "residual"])
def test_the_encoder_is_that_of_a_unet(kind):
    strides, kernels = ((1, 1), (2, 2), (2, 1)), ((3, 3), (3, 1), (3, 3))
    unet = Network(f"{kind}_unet", 2, 2, 3, (4, 6, 8), strides, kernels, (1, 2, 1), (1, 1), False)
    network = SimilarityNetwork(f"{kind}_encoder", 2, 2, (4, 6), strides[:2], kernels[:2], (1, 2))
    theirs = {name: tensor.shape for name, tensor in build_network(unet).state_dict().items()
              if name.startswith(("encoder.0.", "encoder.1."))}
    assert {name: tensor.shape for name, tensor in built(network).state_dict().items()} == theirs


def test_parameters_are_counted_with_those_of_the_registrar():
    from nn.test_registrar import registrar

    alone = registrar(2)
    parts = [described(2), *(SimilarityNetwork(kind, 2, 1, (4, 6), ((1, 1), (2, 2)), ((3, 3), (3, 1)), (1, 2))
                             for kind in ("plain_encoder", "residual_encoder"))]
    for part in parts:
        expected = sum(tensor.numel() for tensor in built(part).parameters())
        assert parameter_count(replace(alone, similarity=part)) - parameter_count(alone) == expected


def test_a_registrar_answers_the_same_with_and_without_it():
    from nn.test_registrar import built as built_registrar
    from nn.test_registrar import registrar

    plain, learned = (built_registrar(registrar(2, similarity=part)) for part in (None, described(2)))
    own = plain.state_dict()
    held = learned.state_dict()
    assert all(torch.equal(own[name], held[name]) for name in own)
    assert {name.split(".")[0] for name in held.keys() - own.keys()} == {"similarity"}


def test_a_part_that_does_not_fit_the_registrar_is_refused():
    from nn.test_registrar import registrar

    for part, message in ((described(3), "dims 3"), (replace(described(2), in_channels=2), "in_channels 2"),
                          (replace(described(2), blocks=(1,)), "network.similarity: features has 5 stages; blocks")):
        with pytest.raises(ValueError, match=message):
            require_sound_network(registrar(2, similarity=part))
