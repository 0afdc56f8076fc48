from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch
from torch import nn
from torch.nn import functional

from autoseg.core.errors import IncompatibleError
from autoseg.core.networks import ImageHead, Network
from autoseg.core.plan import Inference
from autoseg.inference.engine import forward_of, in_use
from autoseg.nn.build import build_network
from autoseg.nn.image_head import add_image_head

needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="OpenVINO is not installed: pip install 'autoseg[cpu]'")


def two_heads(dims=2, *, deep_supervision=True, kind="residual_unet", **head):
    """A small U-Net of two channels and three outputs, and four numbers for the image."""
    strides = ((1,) * dims, (1,) * (dims - 2) + (2, 2), (2,) * dims)
    described = Network(kind, dims, 2, 3, (4, 6, 10), strides, ((3,) * dims,) * 3, (1, 1, 1), (1, 1), deep_supervision)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build_network(described)
        add_image_head(network, ImageHead(4, **head))
    return network


def image(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(7))


def deepest(network, voxels):
    for stage in network.encoder:
        voxels = stage(voxels)
    return voxels


def test_training_gets_the_logits_of_all_levels_and_the_vector():
    outputs, vector = two_heads().train()(image(2, 2, 16, 24))
    assert [tuple(output.shape) for output in outputs] == [(2, 3, 16, 24), (2, 3, 8, 12)] and vector.shape == (2, 4)


@pytest.mark.parametrize(("dims", "shape"), [(2, (2, 2, 16, 24)), (3, (2, 2, 4, 8, 12))])
@pytest.mark.parametrize("deep_supervision", [True, False])
def test_evaluation_says_what_training_says_with_the_vector_everywhere(dims, shape, deep_supervision):
    network = two_heads(dims, deep_supervision=deep_supervision)
    outputs, vector = network.train()(image(*shape))
    answer = network.eval()(image(*shape))
    torch.testing.assert_close(answer[:, :3], outputs[0] if deep_supervision else outputs)
    torch.testing.assert_close(answer[:, 3:].flatten(2), vector.unsqueeze(2).expand(-1, -1, answer[0, 0].numel()))


def test_the_vector_is_the_mean_of_a_hidden_layer_of_the_deepest_features():
    network = two_heads()
    head, features = network.image_head, deepest(network, image(1, 2, 16, 24))
    weight, bias = head.hidden.weight.flatten(1), head.hidden.bias
    places = [functional.leaky_relu(weight @ place + bias, 0.01) for place in features[0].flatten(1).T]
    expected = head.outputs.weight @ (sum(places) / len(places)) + head.outputs.bias
    torch.testing.assert_close(network.train()(image(1, 2, 16, 24))[1][0], expected)


def test_it_tells_images_apart_whose_features_are_the_same_one_by_one():
    """Instance norm makes them so, nearly; what differs is which features go together at a place."""
    head = two_heads().image_head
    together = image(1, 10, 6, 8)
    apart = together.clone()
    apart[:, :5] = torch.flip(apart[:, :5], (2, 3))
    torch.testing.assert_close(head.pooling(together), head.pooling(apart))
    assert (head(together) - head(apart)).abs().max() > 0.01


def test_outputs_start_from_the_planned_bias():
    network = two_heads(output_bias=(0.5, -1.0, 0.0, 2.0))
    nn.init.zeros_(network.image_head.outputs.weight)
    assert network.train()(image(1, 2, 16, 24))[1][0].tolist() == [0.5, -1.0, 0.0, 2.0]


def test_dropout_changes_training_only():
    network = two_heads(dropout=0.5)
    voxels = image(1, 2, 16, 24)
    assert not torch.equal(network.train()(voxels)[1], network(voxels)[1])
    torch.testing.assert_close(network.eval()(voxels), network(voxels))


def test_the_encoder_keeps_its_names_so_that_its_weights_serve_other_networks():
    plain = build_network(Network("residual_unet", 2, 2, 3, (4, 6, 10), ((1, 1), (2, 2), (2, 2)), ((3, 3),) * 3, (1, 1, 1),
                                  (1, 1), True)).state_dict()
    more = {name for name in two_heads().state_dict() if name not in plain}
    assert plain.keys() <= two_heads().state_dict().keys() and all(name.startswith("image_head.") for name in more)


@pytest.mark.parametrize("bias", [(1.0,), (1.0,) * 5])
def test_a_bias_of_another_length_is_refused(bias):
    with pytest.raises(IncompatibleError, match="4 outputs"):
        two_heads(output_bias=bias)


def test_only_a_unet_can_have_a_second_head():
    with pytest.raises(IncompatibleError, match="needs a U-Net, and the network is a Linear"):
        add_image_head(nn.Linear(2, 2), ImageHead(2))


@needs_openvino
@pytest.mark.parametrize(("dims", "shape"), [(3, (3, 2, 6, 20, 12)), (2, (3, 2, 20, 28))])
@pytest.mark.parametrize("pooling", ["mean", "log_sum_exp"])
def test_openvino_gives_the_numbers_of_torch(dims, shape, pooling):
    rules, found = Inference(0.5, 0.125, 3, (), False), {}
    for engine in ("torch", "openvino"):
        network = in_use(two_heads(dims, pooling=pooling), rules, "cpu", engine)
        with torch.inference_mode():
            found[engine] = forward_of(network, rules, "cpu")(image(*shape))
    assert found["openvino"].shape == (3, 7, *shape[2:])
    torch.testing.assert_close(found["openvino"], found["torch"], rtol=0, atol=1e-4)
