from __future__ import annotations

import pytest
import torch

from autoseg.losses.deep_supervision import deep_supervision_weights, deeply_supervised, downsample_target


@pytest.mark.parametrize(("count", "expected"), [
    (1, (1.0,)), (2, (1.0, 0.0)), (3, (2 / 3, 1 / 3, 0.0)), (4, (4 / 7, 2 / 7, 1 / 7, 0.0))])
def test_weights_halve_with_each_level_and_the_lowest_has_none(count, expected):
    assert deep_supervision_weights(count) == pytest.approx(expected)


def test_halving_takes_the_voxel_whose_centre_is_nearest_to_the_coarse_one():
    assert downsample_target(torch.arange(8)[None], (4,)).tolist() == [[1, 3, 5, 7]]
    assert downsample_target(torch.arange(9)[None], (3,)).tolist() == [[1, 4, 7]]


def test_downsampled_target_equals_torchs_nearest_exact_on_unequal_axes():
    target = torch.randint(0, 9, (2, 6, 10, 28), generator=torch.Generator().manual_seed(0))

    expected = torch.nn.functional.interpolate(target[:, None].float(), (3, 10, 7), mode="nearest-exact")[:, 0]

    assert torch.equal(downsample_target(target, (3, 10, 7)), expected.long())


def test_target_of_the_same_size_is_handed_on():
    target = torch.zeros(1, 2, 3, 4)

    assert downsample_target(target, (2, 3, 4)) is target


def test_total_is_the_weighted_sum_over_levels_with_the_target_of_each_level():
    target = torch.arange(8)[None]
    outputs = [torch.full((1, 1, size), value) for size, value in ((8, 1.0), (4, 10.0), (2, 100.0))]

    def loss(output, on_level):
        return output.mean() * on_level.sum()

    total = deeply_supervised(loss, outputs, target)

    assert float(total) == pytest.approx(2 / 3 * 1 * 28 + 1 / 3 * 10 * 16)


def test_single_output_gives_the_plain_loss():
    assert float(deeply_supervised(lambda o, t: (o - t).sum(), torch.ones(1, 3), torch.zeros(1, 3))) == 3
