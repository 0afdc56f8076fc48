from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

import pytest
import safetensors.torch
import torch
from nn.classifiers import built, image, needs_monai, small
from nn.test_registrar import registrar

from autoseg.core.errors import IncompatibleError, ReadError, UnsafeError
from autoseg.core.networks import Classifier, Network, SimilarityNetwork, Start
from autoseg.core.plan_rules import require_sound_start
from autoseg.nn.build import build_network
from autoseg.nn.stages import rate_factors, stages_of, trained_names, trained_parameters
from autoseg.nn.weights import load_start, save_weights


def start_of(path, **rest):
    return Start(**{"weights": path.name, "sha256": sha256(path.read_bytes()).hexdigest(), "parts": ("encoder.",)} | rest)


def stored(path, tensors):
    path.write_bytes(safetensors.torch.save({name: tensor.contiguous() for name, tensor in tensors.items()}))
    return path


def encoder_of(kind, unet):
    """The classifier that has the encoder of a U-Net."""
    return Classifier(kind, unet.dims, unet.in_channels, 2, unet.features, unet.strides, unet.kernel_sizes, unet.convs_encoder,
                      norm="instance")


@pytest.mark.parametrize(("kind", "unet_kind"), [("plain_encoder", "plain_unet"), ("residual_encoder", "residual_unet")])
@pytest.mark.parametrize("dims", [2, 3])
def test_a_classifier_takes_the_encoder_of_a_segmentation_network_and_has_its_features(kind, unet_kind, dims, tmp_path):
    described = Network(unet_kind, dims, 2, 3, (8, 12, 16), ((1,) * dims, (2,) * dims, (2,) * dims), ((3,) * dims,) * 3,
                        (2, 1, 2), (1, 1), False)
    unet = built(described).eval()
    save_weights(tmp_path / "unet.safetensors", unet)
    network = built(encoder_of(kind, described), seed=1).eval()

    taken = load_start(tmp_path / "unet.safetensors", network, start_of(tmp_path / "unet.safetensors", trained="fresh"))

    assert set(taken) == {name for name in network.state_dict() if name.startswith("encoder.")}
    features = batch = image(1, 2, *(8, 16, 12)[:dims])
    with torch.no_grad():
        for stage in unet.encoder:
            features = stage(features)
        assert torch.equal(network.features(batch), features)


def test_kernels_of_slices_become_kernels_of_volumes_that_see_the_same_in_a_constant_stack(tmp_path):
    flat, deep = built(small("resnet")).eval(), built(small("resnet", 3), seed=1).eval()
    save_weights(tmp_path / "flat.safetensors", flat)
    taken = load_start(tmp_path / "flat.safetensors", deep, start_of(tmp_path / "flat.safetensors"))
    assert set(taken) == {name for name in deep.state_dict() if name.startswith("encoder.")}
    kernel = deep.encoder[0][0].weight
    assert torch.equal(kernel[:, :, 0], flat.encoder[0][0].weight / 3) and torch.equal(kernel[:, :, 0], kernel[:, :, 2])
    slices = image(1, 1, 16, 16)
    with torch.no_grad():  # the stem alone: behind it the padding of the first and last slice spreads
        found = deep.encoder[0][0](slices[:, :, None].expand(-1, -1, 5, -1, -1))[:, :, 2]
        torch.testing.assert_close(found, flat.encoder[0][0](slices))


@pytest.mark.parametrize(("before", "after"), [(3, 1), (1, 3)])
def test_first_layers_of_grey_and_of_colour_see_the_same_in_a_grey_image(before, after, tmp_path):
    first, second = (built(small("densenet", in_channels=count), seed=count) for count in (before, after))
    save_weights(tmp_path / "a.safetensors", first)
    load_start(tmp_path / "a.safetensors", second, start_of(tmp_path / "a.safetensors"))
    grey = image(2, 1, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(second.eval().features(grey.expand(-1, after, -1, -1)),
                                   first.eval().features(grey.expand(-1, before, -1, -1)))


def test_a_first_layer_of_two_channels_becomes_none_of_three(tmp_path):
    two, three = (built(small("resnet", in_channels=count), seed=count) for count in (2, 3))
    save_weights(tmp_path / "a.safetensors", two)
    fresh = three.encoder[0][0].weight.clone()
    taken = load_start(tmp_path / "a.safetensors", three, start_of(tmp_path / "a.safetensors"))
    assert "encoder.0.0.weight" not in taken and "encoder.1.1.main.0.weight" in taken
    assert torch.equal(three.encoder[0][0].weight, fresh)


def test_what_does_not_fit_is_refused_where_it_would_stay_untrained(tmp_path):
    two, three = (built(small("resnet", in_channels=count)) for count in (2, 3))
    save_weights(tmp_path / "a.safetensors", two)
    with pytest.raises(IncompatibleError, match=r"'encoder.0.0.weight' of shape \(8, 3, 3, 3\), and the file has shape \(8, 2"):
        load_start(tmp_path / "a.safetensors", three, start_of(tmp_path / "a.safetensors", trained="last"))


def test_running_statistics_and_their_counts_are_taken_and_the_head_is_not(tmp_path):
    source = built(small("resnet")).train()
    with torch.no_grad():
        source(image(4, 1, 16, 16))
    save_weights(tmp_path / "a.safetensors", source)
    network = built(small("resnet"), seed=1)
    head = network.head.weight.clone()
    load_start(tmp_path / "a.safetensors", network, start_of(tmp_path / "a.safetensors"))
    assert network.encoder[0][1].num_batches_tracked == 1
    assert torch.equal(network.encoder[0][1].running_var, source.encoder[0][1].running_var)
    assert torch.equal(network.head.weight, head)


def test_weights_of_half_precision_are_taken_in_the_precision_of_the_network(tmp_path):
    source, network = built(small("plain_encoder")), built(small("plain_encoder"), seed=1)
    halves = {name: tensor.half() for name, tensor in source.state_dict().items() if tensor.is_floating_point()}
    path = stored(tmp_path / "a.safetensors", halves)
    load_start(path, network, start_of(path))
    weight = network.encoder[1][0][0].weight
    assert weight.dtype == torch.float32 and torch.equal(weight, source.encoder[1][0][0].weight.half().float())


@pytest.mark.parametrize(("tensors", "parts", "words"), [
    ({"encoder.0.0.weight": torch.zeros(4, 1, 3, 3)}, ("encoder.",),
     r"'encoder.0.0.weight' of shape \(8, 1, 3, 3\), and the file has shape \(4, 1, 3, 3\)"),
    ({"backbone.conv": torch.zeros(3)}, ("encoder.",), "no tensor of the file has a name that begins with 'encoder.'"),
    ({"backbone.conv": torch.zeros(3)}, ("backbone.",), "no tensor of the network has a name that begins with 'backbone.'"),
    ({"encoder.7.0.weight": torch.zeros(3)}, ("encoder.",), "'encoder.0.0.weight' .* the file has no such tensor"),
])
def test_where_nothing_fits_the_first_tensor_is_named(tensors, parts, words, tmp_path):
    path, network = stored(tmp_path / "a.safetensors", tensors), built(small("resnet"))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(IncompatibleError, match=words):
        load_start(path, network, start_of(path, parts=parts))
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_other_weights_than_the_plans_are_refused(tmp_path):
    network = built(small("resnet"))
    save_weights(tmp_path / "a.safetensors", network)
    start = start_of(tmp_path / "a.safetensors")
    save_weights(tmp_path / "a.safetensors", built(small("resnet"), seed=1))
    with pytest.raises(UnsafeError, match="not those that the plan starts from") as error:
        load_start(tmp_path / "a.safetensors", network, start)
    assert error.value.code == "E_DIGEST"


def test_a_pickle_is_never_opened_and_weights_that_are_not_finite_are_refused(tmp_path):
    network = built(small("resnet"))
    torch.save(network.state_dict(), tmp_path / "a.pt")
    with pytest.raises(UnsafeError, match="never opened"):
        load_start(tmp_path / "a.pt", network, start_of(tmp_path / "a.pt"))
    broken = stored(tmp_path / "b.safetensors", {"encoder.0.0.weight": torch.full((8, 1, 3, 3), float("nan"))})
    with pytest.raises(UnsafeError, match="72 of 72 values"):
        load_start(broken, network, start_of(broken))
    with pytest.raises(ReadError, match="missing.safetensors"):
        load_start(tmp_path / "missing.safetensors", network, start_of(broken))


def start(**rest):
    return Start("a.safetensors", "0" * 64, ("encoder.",), **rest)


def test_every_parameter_has_its_stage():
    network = build_network(small("resnet", attention="cbam", pooling="attention"))
    stages = stages_of(network)
    assert set(stages) == {name for name, _ in network.named_parameters()}
    assert {name: stages[name] for name in ("encoder.0.0.weight", "attentions.1.look.0.weight", "encoder.2.0.main.0.weight",
                                            "pooling.score.0.weight", "head.bias")} == {
        "encoder.0.0.weight": 0, "attentions.1.look.0.weight": 1, "encoder.2.0.main.0.weight": 2, "pooling.score.0.weight": 3,
        "head.bias": 3}


@needs_monai
def test_every_block_of_a_transformer_is_a_stage():
    assert set(stages_of(build_network(small("vit"))).values()) == {0, 1, 2, 3}


def test_rates_fall_by_a_factor_per_stage_towards_the_image():
    network = build_network(small("resnet"))
    factors = dict(zip(trained_names(network, start(rate_decay=0.5)), rate_factors(network, start(rate_decay=0.5)), strict=True))
    assert factors["head.weight"] == 1 and factors["encoder.2.0.main.0.weight"] == 0.5 and factors["encoder.0.0.weight"] == 0.125
    assert set(rate_factors(network, None)) == {1.0}


def test_last_trains_the_last_stage_and_fresh_what_the_start_has_no_part_for():
    network = build_network(small("resnet", attention="squeeze_excitation"))
    tops = {trained: {name.split(".")[0] + name.split(".")[1] * name.startswith("encoder")
                      for name in trained_names(network, start(trained=trained))} for trained in ("all", "last", "fresh")}
    assert tops == {"all": {"encoder0", "encoder1", "encoder2", "attentions", "head"},
                    "last": {"encoder2", "attentions", "head"}, "fresh": {"attentions", "head"}}
    assert trained_names(network, None) == [name for name, _ in network.named_parameters()]


def test_a_network_without_a_list_of_stages_has_one():
    network = torch.nn.ModuleDict({"encoder": torch.nn.Linear(2, 3), "head": torch.nn.Linear(3, 1)})
    assert set(stages_of(network).values()) == {0} and set(rate_factors(network, start(rate_decay=0.5))) == {1.0}
    assert trained_names(network, start(trained="fresh")) == ["head.weight", "head.bias"]


def test_trained_parameters_are_those_of_the_names():
    network = build_network(small("resnet"))
    named = dict(network.named_parameters())
    names, parameters = trained_names(network, start(trained="last")), trained_parameters(network, start(trained="last"))
    assert all(named[name] is parameter for name, parameter in zip(names, parameters, strict=True))


def test_an_encoder_becomes_the_part_of_another_network_that_the_start_names(tmp_path):
    strides = ((1, 1), (2, 2), (2, 2))
    unet = built(Network("plain_unet", 2, 1, 2, (4, 6, 8), strides, ((3, 3),) * 3, (1, 1, 1), (1, 1), False))
    save_weights(tmp_path / "unet.safetensors", unet)
    part = SimilarityNetwork("plain_encoder", 2, 1, (4, 6), strides[:2], ((3, 3),) * 2, (1, 1))
    network = built(registrar(2, similarity=part), seed=1)
    own = network.encoder[0][0][0].weight.clone()
    start = replace(start_of(tmp_path / "unet.safetensors", trained="fresh"), into="similarity.")
    taken = load_start(tmp_path / "unet.safetensors", network, start)
    assert all(name.startswith("similarity.encoder.") for name in taken) and len(taken) == len(network.similarity.state_dict())
    assert torch.equal(network.similarity.encoder[1][0][0].weight, unet.encoder[1][0][0].weight)
    assert torch.equal(network.encoder[0][0][0].weight, own)
    require_sound_start(start)
    with pytest.raises(ValueError, match=r"start.into '\.\./' must name a part of the network"):
        require_sound_start(replace(start, into="../"))
