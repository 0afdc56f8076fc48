from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from autoseg.core.errors import IncompatibleError
from autoseg.core.plan import Network
from autoseg.nn.build import build_network
from autoseg.planning.memory import parameter_count


def anisotropic(**changes) -> Network:
    network = Network(
        kind="plain_unet", dims=3, in_channels=2, out_channels=3, features=(4, 6, 8),
        strides=((1, 1, 1), (1, 2, 2), (2, 2, 2)), kernel_sizes=((1, 3, 3), (3, 3, 3), (3, 3, 3)),
        convs_encoder=(2, 2, 3), convs_decoder=(2, 1), deep_supervision=True)
    return replace(network, **changes)


def conv_outputs(network: torch.nn.Module, shape: tuple[int, ...]) -> int:
    """Elements that all convolutions of one forward pass put out, heads below full resolution left out."""
    total = 0

    def count(module, inputs, output):
        nonlocal total
        total += output[0].numel()

    kinds = (torch.nn.Conv3d, torch.nn.ConvTranspose3d, type(network.heads[0]))
    for module in network.modules():
        if isinstance(module, kinds):
            module.register_forward_hook(count)
    network(torch.zeros(shape))
    return total


def test_training_outputs_go_from_full_to_lowest_decoder_resolution():
    outputs = build_network(anisotropic()).train()(torch.randn(2, 2, 4, 8, 12))

    assert [tuple(output.shape) for output in outputs] == [(2, 3, 4, 8, 12), (2, 3, 4, 4, 6)]


def test_evaluation_output_is_the_full_resolution_output_of_training():
    network = build_network(anisotropic())
    image = torch.randn(1, 2, 4, 8, 12)

    training = network.train()(image)[0]

    torch.testing.assert_close(network.eval()(image), training)


def test_without_deep_supervision_there_is_one_head_and_one_output():
    network = build_network(anisotropic(deep_supervision=False)).train()

    assert len(network.heads) == 1
    assert network(torch.randn(1, 2, 4, 8, 12)).shape == (1, 3, 4, 8, 12)


def test_parameters_of_the_anisotropic_network_are_those_counted_by_hand():
    norms = 2 * (2 * 4 + 2 * 6 + 3 * 8 + 2 * 6 + 1 * 4)
    biases = 2 * 4 + 2 * 6 + 3 * 8 + 2 * 6 + 1 * 4
    encoder = 9 * (2 * 4 + 4 * 4) + 27 * (4 * 6 + 6 * 6) + 27 * (6 * 8 + 8 * 8 + 8 * 8)
    upsamplings = 8 * 8 * 6 + 6 + 4 * 6 * 4 + 4
    decoder = 27 * (12 * 6 + 6 * 6) + 9 * 8 * 4
    heads = 6 * 3 + 3 + 4 * 3 + 3

    network = build_network(anisotropic())

    expected = norms + biases + encoder + upsamplings + decoder + heads
    assert sum(p.numel() for p in network.parameters()) == expected


@pytest.mark.parametrize(("patch", "strides", "expected"), [
    # measured of nnU-Net 2.8.1's network for MSD Hippocampus: 40 x 56 x 40, four stages, 32 to 256 features
    ((40, 56, 40), ((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2)), 19_174_400)])
def test_convolution_outputs_equal_nnunets_memory_estimate(patch, strides, expected):
    stages = len(strides)
    network = Network(
        kind="plain_unet", dims=3, in_channels=1, out_channels=3, features=(32, 64, 128, 256), strides=strides,
        kernel_sizes=((3, 3, 3),) * stages, convs_encoder=(2,) * stages, convs_decoder=(2,) * (stages - 1),
        deep_supervision=False)

    with torch.device("meta"):
        built = build_network(network)
        assert conv_outputs(built, (1, 1, *patch)) == expected


def test_both_memory_formats_give_the_same_logits():
    network = build_network(anisotropic()).eval()
    image = torch.randn(2, 2, 4, 8, 12)

    contiguous = network(image)
    channels_last = network.to(memory_format=torch.channels_last_3d)(image)

    assert channels_last.is_contiguous(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(channels_last, contiguous, atol=1e-4, rtol=1e-4)


def test_two_dimensional_network_works_on_slices():
    network = build_network(Network(
        kind="plain_unet", dims=2, in_channels=1, out_channels=2, features=(4, 8), strides=((1, 1), (2, 2)),
        kernel_sizes=((3, 3), (3, 3)), convs_encoder=(1, 1), convs_decoder=(1,), deep_supervision=True)).eval()

    assert network(torch.randn(3, 1, 6, 10)).shape == (3, 2, 6, 10)


def test_forward_equals_the_published_structure_written_with_torchs_functions():
    network = build_network(anisotropic()).eval()
    w = dict(network.named_parameters())
    image = torch.randn(2, 2, 4, 8, 12)

    def block(x, name, stride, kernel):
        x = functional.conv3d(x, w[f"{name}.0.weight"], w[f"{name}.0.bias"], stride, tuple(k // 2 for k in kernel))
        x = functional.instance_norm(x, weight=w[f"{name}.1.weight"], bias=w[f"{name}.1.bias"], eps=1e-5)
        return torch.where(x > 0, x, 0.01 * x)

    flat, cube = (1, 3, 3), (3, 3, 3)
    top = block(block(image, "encoder.0.0", 1, flat), "encoder.0.1", 1, flat)
    middle = block(block(top, "encoder.1.0", (1, 2, 2), cube), "encoder.1.1", 1, cube)
    bottom = block(block(block(middle, "encoder.2.0", 2, cube), "encoder.2.1", 1, cube), "encoder.2.2", 1, cube)
    up = functional.conv_transpose3d(bottom, w["upsamplings.0.weight"], w["upsamplings.0.bias"], 2)
    up = block(block(torch.cat([up, middle], 1), "decoder.0.0", 1, cube), "decoder.0.1", 1, cube)
    up = functional.conv_transpose3d(up, w["upsamplings.1.weight"], w["upsamplings.1.bias"], (1, 2, 2))
    up = block(torch.cat([up, top], 1), "decoder.1.0", 1, flat)
    expected = functional.conv3d(up, w["heads.1.weight"], w["heads.1.bias"])

    torch.testing.assert_close(network(image), expected, atol=1e-4, rtol=1e-4)


def test_patch_that_strides_do_not_divide_is_refused_with_the_divisor():
    with pytest.raises(IncompatibleError, match=r"\(3, 8, 12\).*multiple of \(2, 4, 4\)"):
        build_network(anisotropic())(torch.randn(1, 2, 3, 8, 12))


@pytest.mark.parametrize("changes", [
    {"strides": ((1, 1, 1), (1, 2, 2))}, {"convs_decoder": (2, 1, 1)}, {"kernel_sizes": ((3, 3), (3, 3), (3, 3))}])
def test_numbers_that_do_not_fit_each_other_are_refused(changes):
    with pytest.raises(IncompatibleError, match="3 stages"):
        build_network(anisotropic(**changes))


def test_a_residual_encoder_has_the_parameters_that_the_plan_counts():
    network = anisotropic(kind="residual_unet", deep_supervision=False)
    built = build_network(network)
    assert sum(p.numel() for p in built.parameters()) == parameter_count(network)


def test_outputs_start_from_their_planned_bias():
    torch.manual_seed(0)
    built = build_network(anisotropic(output_bias=(2.0, -1.0, -1.0), out_channels=3)).eval()
    built.heads[-1].weight.data.zero_()
    logits = built(torch.randn(1, 2, 8, 16, 16))
    assert torch.equal(logits.amax((0, 2, 3, 4)), torch.tensor([2.0, -1.0, -1.0]))
