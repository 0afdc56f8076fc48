from __future__ import annotations

import pytest
import torch
from torch import nn

from autoseg.nn.blocks import (
    ConvBlock,
    InstanceNorm,
    PointwiseConv,
    ResidualBlock,
    conv_stage,
    initialise,
    upsampling,
)


def features(*shape: int, channels_last: bool) -> torch.Tensor:
    made = torch.randn(*shape, generator=torch.Generator().manual_seed(3)) * 2 + 1
    if channels_last:
        made = made.contiguous(memory_format={4: torch.channels_last, 5: torch.channels_last_3d}[made.ndim])
    return made.requires_grad_(True)


def gradients(module: nn.Module, inputs: torch.Tensor) -> list[torch.Tensor]:
    weights = torch.randn(module(inputs).shape, generator=torch.Generator().manual_seed(4))
    return list(torch.autograd.grad((module(inputs) * weights).sum(), [inputs, *module.parameters()]))


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(("shape", "torch_norm"), [
    ((3, 4, 5, 6, 7), nn.InstanceNorm3d(4, eps=1e-5, affine=True)), ((2, 4, 5, 6), nn.InstanceNorm2d(4, affine=True))])
def test_instance_norm_and_its_gradients_equal_torchs_in_both_memory_formats(shape, torch_norm, channels_last):
    ours = InstanceNorm(4)
    with torch.no_grad():
        for norm in (ours, torch_norm):
            norm.weight.copy_(torch.tensor([0.5, 1.0, -2.0, 3.0]))
            norm.bias.copy_(torch.tensor([0.1, 0.0, 1.0, -1.0]))
    inputs = features(*shape, channels_last=channels_last)

    torch.testing.assert_close(ours(inputs), torch_norm(inputs), atol=2e-6, rtol=1e-5)
    for own, theirs in zip(gradients(ours, inputs), gradients(torch_norm, inputs), strict=True):
        torch.testing.assert_close(own, theirs, atol=2e-5, rtol=1e-4)


def test_instance_norm_of_two_values_per_channel_is_plus_and_minus_one():
    inputs = torch.tensor([3.0, 5.0]).reshape(1, 1, 1, 1, 2)

    assert InstanceNorm(1)(inputs).flatten().tolist() == pytest.approx([-1.0, 1.0], abs=1e-4)


@pytest.mark.parametrize("module", [
    InstanceNorm(4), PointwiseConv(4, 3, 3), ConvBlock(4, 6, kernel=(1, 3, 3), stride=(1, 1, 1))])
def test_channels_last_features_stay_channels_last(module):
    initialise(module)
    module.to(memory_format=torch.channels_last_3d)
    inputs = features(2, 4, 3, 5, 7, channels_last=True)

    assert module(inputs).is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(("shape", "convolve"), [
    ((2, 4, 3, 5, 7), nn.functional.conv3d), ((2, 4, 3, 5), nn.functional.conv2d)])
def test_pointwise_convolution_equals_torchs_convolution_of_kernel_one(shape, convolve, channels_last):
    module = PointwiseConv(4, 3, len(shape) - 2)
    initialise(module)
    nn.init.normal_(module.bias)
    inputs = features(*shape, channels_last=channels_last)

    torch.testing.assert_close(module(inputs), convolve(inputs, module.weight, module.bias), atol=1e-5, rtol=1e-5)


def test_stage_strides_once_and_keeps_the_size_after():
    stage = conv_stage(2, 6, count=3, kernel=(1, 3, 3), stride=(1, 2, 2))

    assert [block[0].stride for block in stage] == [(1, 2, 2), (1, 1, 1), (1, 1, 1)]
    assert [block[0].in_channels for block in stage] == [2, 6, 6]
    assert stage(torch.randn(1, 2, 3, 8, 12)).shape == (1, 6, 3, 4, 6)


def test_block_with_identity_kernel_normalises_and_then_leaks_one_hundredth():
    block = ConvBlock(1, 1, kernel=(1, 1, 1), stride=(1, 1, 1))
    nn.init.ones_(block[0].weight)
    nn.init.zeros_(block[0].bias)

    out = block(torch.tensor([3.0, 5.0]).reshape(1, 1, 1, 1, 2))

    assert out.flatten().tolist() == pytest.approx([-0.01, 1.0], abs=1e-4)


def test_upsampling_paints_each_voxel_into_its_own_box():
    module = upsampling(1, 1, (1, 2, 3))
    nn.init.ones_(module.weight)
    nn.init.zeros_(module.bias)

    out = module(torch.tensor([[1.0, 2.0]]).reshape(1, 1, 1, 1, 2))

    assert out.reshape(2, 6).tolist() == [[1, 1, 1, 2, 2, 2], [1, 1, 1, 2, 2, 2]]


def test_initial_kernels_have_he_variance_for_slope_one_hundredth_and_zero_bias():
    torch.manual_seed(0)
    block = ConvBlock(32, 64, kernel=(3, 3, 3), stride=(1, 1, 1))
    initialise(block)

    assert float(block[0].weight.detach().var()) == pytest.approx(2 / (1 + 0.01**2) / (32 * 27), rel=0.02)
    assert block[0].bias.abs().max() == 0


def test_a_residual_block_with_silent_convolutions_is_its_pooled_and_projected_input():
    torch.manual_seed(0)
    block = ResidualBlock(3, 5, kernel=(3, 3, 3), stride=(1, 2, 2))
    block.main[-1].weight.data.zero_()
    image = torch.randn(2, 3, 4, 6, 8)
    pool, project, norm = block.shortcut
    projected = nn.functional.conv3d(nn.functional.avg_pool3d(image, (1, 2, 2)), project.weight)
    expected = nn.functional.leaky_relu(nn.functional.instance_norm(projected, eps=1e-5), 0.01)
    assert torch.allclose(block(image), expected, atol=1e-5)


def test_a_residual_block_that_keeps_its_width_and_size_adds_the_input_itself():
    block = ResidualBlock(4, 4, kernel=(3, 3), stride=(1, 1))
    block.main[-1].weight.data.zero_()
    image = torch.randn(1, 4, 6, 5)
    assert torch.equal(block(image), nn.functional.leaky_relu(image, 0.01))


def test_a_traced_group_norm_says_what_torchs_does():
    from autoseg.nn.blocks import group_norm

    norm = group_norm(24)
    torch.manual_seed(0)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    features = torch.randn(2, 24, 5, 4, 3) * 3 + 7
    traced = torch.jit.trace(norm, features)
    expected = torch.nn.functional.group_norm(features, 3, norm.weight, norm.bias, norm.eps)
    assert torch.allclose(traced(features), expected, atol=1e-5) and "group_norm" not in str(traced.graph)
