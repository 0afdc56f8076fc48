from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from nn.classifiers import KINDS, built, image, needs_monai, per_axis, published, small

from autoseg.core.errors import IncompatibleError, UsageError
from autoseg.nn.build import build_network
from autoseg.nn.weights import load_weights, save_weights

SHAPES = {2: (2, 1, 16, 32), 3: (2, 1, 16, 8, 24)}


@pytest.mark.parametrize(("described", "count"), [
    # MONAI 1.6.1's DenseNet121, and torchvision's and timm's published counts (Inception without its auxiliary head).
    (published("densenet", 2, 1, 14, (1, 6, 12, 24, 16)), 6_961_934),
    (published("densenet", 3, 1, 2, (1, 6, 12, 24, 16)), 11_244_674),
    (published("resnet", 2, 3, 1000, (1, 2, 2, 2, 2)), 11_689_512),
    (published("resnet", 2, 3, 1000, (1, 3, 4, 6, 3)), 21_797_672),
    (published("resnet", 2, 3, 1000, (1, 3, 4, 6, 3), bottleneck=True), 25_557_032),
    (published("inception", 2, 3, 1000, (1, 1, 3, 4, 2)), 23_834_568),
    # ViT-B/16 has 86,567,656, of which 768 are its class token and 197 x 768 its learned positions.
    pytest.param(published("vit", 2, 3, 1000, (12,)), 86_567_656 - 768 - 197 * 768, marks=needs_monai),
], ids=["densenet121", "densenet121_3d", "resnet18", "resnet34", "resnet50", "inception_v3", "vit_b16"])
def test_published_networks_have_their_published_number_of_parameters(described, count):
    with torch.device("meta"):
        assert sum(p.numel() for p in build_network(described).parameters()) == count


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dims", [2, 3])
def test_features_have_the_places_that_the_strides_leave_and_logits_are_a_vector(kind, dims):
    described, batch = small(kind, dims), image(*SHAPES[dims])
    network = built(described).eval()
    steps = [torch.Size(column).numel() for column in zip(*described.strides, strict=True)]
    with torch.no_grad():
        features, logits = network.features(batch), network(batch)
    assert features.shape[2:] == tuple(size // step for size, step in zip(batch.shape[2:], steps, strict=True))
    assert logits.shape == (2, 3) and logits.std() > 0
    torch.testing.assert_close(logits, network.head(features.flatten(2).mean(2)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pooling", ["mean", "attention"])
def test_class_activation_maps_and_biases_make_the_logits(kind, pooling):
    network = built(small(kind, pooling=pooling, output_bias=(0.5, -1.0, 2.0))).double().eval()
    batch = image(*SHAPES[2]).double()
    with torch.no_grad():
        maps, logits = network.maps(batch), network(batch)
    torch.testing.assert_close(maps.mean((2, 3)) + network.head.bias, logits, rtol=0, atol=1e-12)
    assert maps.std((2, 3)).min() > 0


@pytest.mark.parametrize("pooling", ["mean", "attention"])
def test_maps_of_slices_make_the_logits_too(pooling):
    network = built(small("resnet", slices=True, pooling=pooling)).double().eval()
    batch = image(2, 1, 5, 16, 8).double()
    with torch.no_grad():
        maps, logits = network.maps(batch), network(batch)
    assert maps.shape == (2, 3, 5, 4, 2)
    torch.testing.assert_close(maps.mean((2, 3, 4)) + network.head.bias, logits, rtol=0, atol=1e-12)


def test_maps_after_log_sum_exp_are_what_the_last_layer_says_of_every_place():
    network = built(small("resnet", pooling="log_sum_exp")).eval()
    batch = image(1, 1, 8, 16)
    with torch.no_grad():
        features, maps = network.features(batch), network.maps(batch)
    place = network.head(features[:, :, 1, 2]) - network.head.bias
    torch.testing.assert_close(maps[:, :, 1, 2], place)


def test_maps_after_recurrent_pooling_are_refused():
    network = built(small("resnet", slices=True, pooling="recurrent"))
    with pytest.raises(IncompatibleError, match="recurrent pooling"):
        network.maps(image(1, 1, 2, 8, 8))


def test_slices_are_seen_one_by_one():
    network = built(small("densenet", slices=True, pooling="attention")).eval()
    batch = image(2, 1, 3, 16, 24)
    with torch.no_grad():
        found = network.features(batch)
        alone = network.features(batch[1:, :, 2:])
    torch.testing.assert_close(found[1, :, 2], alone[0, :, 0])
    assert (found[1, :, 2] - found[1, :, 1]).abs().max() > 0.1


@pytest.mark.parametrize("recurrence", ["gru", "lstm"])
def test_a_recurrent_network_sees_the_order_of_slices_and_attention_does_not(recurrence):
    batch = image(1, 1, 6, 16, 16)
    results = {}
    for pooling in ("recurrent", "attention"):
        network = built(small("resnet", slices=True, pooling=pooling, recurrence=recurrence)).eval()
        with torch.no_grad():
            results[pooling] = (network(batch) - network(batch.flip(2))).abs().max()
    assert results["attention"] < 1e-5 < 1e-3 < results["recurrent"]


@pytest.mark.parametrize("kind", ["densenet", "resnet"])
def test_strides_of_1_in_stem_and_max_pool_keep_the_resolution_of_small_images(kind):
    described = replace(published(kind, 2, 1, 2, (1, 1, 1, 1, 1)), strides=per_axis(2, 1, 1, 2, 2, 2))
    with torch.device("meta"):
        assert build_network(described).features(torch.zeros(1, 1, 32, 32)).shape[2:] == (4, 4)


@pytest.mark.parametrize("kind", ["densenet", "resnet", "bottleneck", "inception", "residual_encoder"])
def test_anisotropic_kernels_and_strides_keep_slices_apart_in_an_encoder(kind):
    """Strides and kernels of 1 along z everywhere: a change of one slice reaches no other."""
    described = small(kind, 3)
    flat = replace(described, strides=tuple((1, *s[1:]) for s in described.strides),
                   kernel_sizes=tuple((1, *k[1:]) for k in described.kernel_sizes))
    network = built(flat).eval()
    batch = image(1, 1, 3, 16, 16)
    changed = batch.clone()
    changed[:, :, 1] += 1
    with torch.no_grad():
        difference = (network.features(batch) - network.features(changed)).abs().amax((0, 1, 3, 4))
    assert difference[0] == 0 == difference[2] and difference[1] > 1e-3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("norm", ["batch", "instance", "group"])
def test_every_norm_normalises_over_what_it_says(kind, norm):
    """With batch norm a sample's result in training depends on the others; with the other norms it does not."""
    network = built(small(kind, norm=norm)).train()
    batch, other = image(*SHAPES[2]), image(*SHAPES[2], seed=8)
    with torch.no_grad():
        together = network(torch.cat([batch, 3 * other]))[:2]
        difference = (together - network(batch)).abs().max()
    depends = norm == "batch" and kind != "vit"
    assert (difference > 1e-3) == depends


@pytest.mark.parametrize("attention", ["squeeze_excitation", "cbam"])
@pytest.mark.parametrize("kind", KINDS)
def test_attention_stands_after_every_stage(kind, attention):
    network = built(small(kind, attention=attention)).eval()
    plain = built(small(kind)).eval()
    assert len(network.attentions) == len(network.encoder)
    assert all(any(True for _ in module.parameters()) for module in network.attentions)
    assert {n for n in plain.state_dict()} == {n for n in network.state_dict() if not n.startswith("attentions.")}


@pytest.mark.parametrize("kind", KINDS)
def test_weights_come_from_the_global_generator_and_training_repeats_to_the_bit(kind):
    results = []
    for _ in range(2):
        network = built(small(kind, attention="cbam", pooling="attention")).train()
        optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
        for step in range(3):
            optimizer.zero_grad()
            network(image(4, 1, 16, 16, seed=step)).square().sum().backward()
            optimizer.step()
        results.append(network.state_dict())
    assert all(torch.equal(results[0][name], tensor) for name, tensor in results[1].items())
    other = built(small(kind, attention="cbam", pooling="attention"), seed=1).state_dict()
    assert any(not torch.equal(results[0][name], tensor) for name, tensor in other.items())


@pytest.mark.parametrize("kind", KINDS)
def test_there_is_no_weight_that_nothing_moves(kind):
    network = built(small(kind, attention="cbam", pooling="attention")).train()
    network(image(4, 1, 16, 16)).square().sum().backward()
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("kind", KINDS)
def test_weights_and_running_statistics_come_back_from_a_file(kind, tmp_path):
    described = small(kind)
    written, read = built(described).train(), built(described, seed=1)
    with torch.no_grad():
        written(image(*SHAPES[2]))
    save_weights(tmp_path / "a.safetensors", written)
    load_weights(tmp_path / "a.safetensors", read)
    found = read.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in written.state_dict().items())
    counters = [tensor for name, tensor in found.items() if name.endswith("num_batches_tracked")]
    assert bool(counters) == (kind != "vit") and all(c.dtype == torch.int64 and c == 1 for c in counters)


def test_outputs_start_from_their_bias():
    network = built(small("resnet", output_bias=(0.5, -1.0, 2.0))).eval()
    with torch.no_grad():
        network.head.weight.zero_()
        assert network(image(1, 1, 8, 8)).tolist() == [[0.5, -1.0, 2.0]]


def test_shared_outputs_differ_by_their_biases_only_so_that_grades_stay_in_order():
    network = built(small("resnet", shared_output=True, output_bias=(2.0, 0.5, -1.0))).eval()
    with torch.no_grad():
        logits = network(image(5, 1, 8, 8))
    torch.testing.assert_close(logits - logits[:, :1], torch.tensor([[0.0, -1.5, -3.0]]).expand(5, 3))
    assert logits[:, 0].std() > 0


def test_dropout_acts_in_training_only():
    network = built(small("plain_encoder", norm="instance", dropout=0.5))
    batch = image(1, 1, 16, 16)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        assert not torch.equal(network.train()(batch), network(batch))
        assert torch.equal(network.eval()(batch), network(batch))


def test_an_image_that_the_strides_do_not_divide_is_refused_in_words():
    with pytest.raises(IncompatibleError, match=r"an image of \(18, 16\) voxels.*multiples of \(4, 4\)"):
        built(small("residual_encoder"))(image(1, 1, 18, 16))


@pytest.mark.parametrize("kind", ["densenet", "resnet", "bottleneck", "inception", "plain_encoder"])
def test_convolutions_take_images_that_the_strides_do_not_divide(kind):
    network = built(small(kind)).double().eval()
    batch = image(1, 1, 27, 30).double()
    with torch.no_grad():
        torch.testing.assert_close(network.maps(batch).mean((2, 3)) + network.head.bias, network(batch), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("change", "words"), [
    ({"kind": "inception"}, "inception 5 stages"), ({"growth": 4}, "growth is 4"),
    ({"features": (8, 10, 16), "bottleneck": True}, "multiples of 4"), ({"pooling": "recurrent"}, "runs over slices"),
    ({"output_bias": (1.0,)}, "output_bias has 1 values"), ({"blocks": (1, 1)}, "blocks must have as many"),
])
def test_numbers_that_describe_no_classifier_are_refused(change, words):
    with pytest.raises(IncompatibleError, match=words):
        build_network(replace(small("resnet"), **change))


def test_a_three_dimensional_network_has_no_slices_and_a_vit_one_stage_of_a_fitting_width():
    for described, words in ((small("resnet", 3, slices=True), "one by one"),
                             (replace(small("vit", 3), features=(50,)), "multiple of 6")):
        with pytest.raises(IncompatibleError, match=words):
            build_network(described)


def test_a_vit_without_monai_says_what_to_install(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "monai.networks.blocks.transformerblock", None)
    with pytest.raises(UsageError, match="needs MONAI") as error:
        build_network(small("vit"))
    assert "autoseg[classification]" in error.value.hint
