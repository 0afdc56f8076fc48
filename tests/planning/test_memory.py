from __future__ import annotations

from dataclasses import replace

import pytest

from autoseg.core.errors import ResourceError
from autoseg.core.plan import Network
from autoseg.planning.memory import (
    Architecture,
    batch_that_fits,
    feature_map_values,
    fit_patch,
    limit_batch,
    low_resolution_spacing,
    parameter_count,
    stage_widths,
)
from autoseg.planning.topology import plan_topology


def nnunet(out_channels, largest=320):
    return Architecture(lambda stages: stage_widths(stages, first=32, largest=largest), 2, out_channels)


TINY = Network("plain_unet", 2, in_channels=2, out_channels=3, features=(4, 8), strides=((1, 1), (2, 2)),
               kernel_sizes=((3, 3), (1, 3)), convs_encoder=(2, 2), convs_decoder=(2,), deep_supervision=False)


def test_feature_maps_of_a_cube_of_128_are_those_that_nnunet_counts():
    assert feature_map_values(plan_topology((1, 1, 1), (128, 128, 128)), nnunet(3)) == 452_796_416


def test_feature_maps_of_the_hippocampus_patch_are_those_that_nnunet_counts():
    assert feature_map_values(plan_topology((1, 1, 1), (36, 50, 35)), nnunet(3)) == 19_174_400


def test_widths_double_up_to_the_largest():
    assert stage_widths(6, first=32, largest=320) == (32, 64, 128, 256, 320, 320)


@pytest.mark.parametrize(("spacing", "shape", "cases", "outputs", "patch", "batch"), [
    ((1, 1, 1), (36, 50, 35), 260, 3, (40, 56, 40), 9),
    ((1, 1, 1), (36, 50, 35), 200, 3, (40, 56, 40), 7),
    ((1, 1, 1), (138, 169, 138), 484, 4, (128, 128, 128), 2),
    ((5, 1.5625, 1.5625), (18, 237, 208), 200, 4, (20, 256, 224), 4),
    ((1, 0.7676, 0.7676), (482, 512, 512), 131, 3, (128, 128, 128), 2),
    ((3.6, 0.625, 0.625), (20, 320, 320), 32, 3, (20, 320, 256), 2),
])
def test_patch_and_batch_of_known_datasets(spacing, shape, cases, outputs, patch, batch):
    fit = fit_patch(spacing, shape, nnunet(outputs), scale=1)
    voxels = shape[0] * shape[1] * shape[2] * cases
    assert fit.topology.patch_size == patch
    assert limit_batch(batch_that_fits(fit, 3, 1), voxels, fit.topology.voxels) == batch


def test_batch_covers_at_most_a_twentieth_of_the_dataset_but_two_samples():
    assert limit_batch(50, dataset_voxels=1000, patch_voxels=10) == 5
    assert limit_batch(50, dataset_voxels=100, patch_voxels=10) == 2
    assert limit_batch(1, dataset_voxels=1e9, patch_voxels=10) == 2


def test_more_memory_gives_a_larger_patch_and_less_a_smaller_one():
    shape = (482, 512, 512)
    small, usual, large = (fit_patch((1, 0.7676, 0.7676), shape, nnunet(3), scale=s).topology.voxels for s in (0.25, 1, 4))
    assert small < usual < large


def test_the_axis_that_covers_most_of_the_median_shape_is_shortened_first():
    # 80 of 80 slices against 256 of 400: the slices go first
    fit = fit_patch((1, 1, 1), (80, 400, 400), nnunet(3), scale=1)
    assert fit.topology.patch_size[0] < 80
    assert fit.values <= 560e6


def test_a_limit_of_voxels_is_kept_although_memory_would_hold_more():
    fit = fit_patch((1, 1, 1), (138, 169, 138), nnunet(4), scale=1, largest_voxels=2**19)
    assert fit.topology.voxels <= 2**19


def test_a_budget_that_holds_no_patch_is_refused_with_its_size():
    with pytest.raises(ResourceError, match=r"0\.00 GB .* --memory"):
        fit_patch((1, 1, 1), (138, 169, 138), nnunet(4), scale=1e-7)


def test_liver_calls_for_a_low_resolution_configuration_of_a_quarter_coverage():
    spacing, shape = (1, 0.7676, 0.7676), (482, 512, 512)
    low = low_resolution_spacing(spacing, shape, 128**3, nnunet(3), scale=1)
    factor = low[0] / spacing[0]
    assert low == pytest.approx([s * factor for s in spacing])  # isotropic enough: all axes grow together
    assert factor == pytest.approx(1.03**31)
    grown = [round(size / factor) for size in shape]
    covered = fit_patch(low, grown, nnunet(3), scale=1).topology.voxels
    assert covered / (shape[0] * shape[1] * shape[2] / factor**3) >= 0.25


def test_an_axis_below_half_of_the_coarsest_grows_first():
    low = low_resolution_spacing((5, 1, 1), (100, 800, 800), 20 * 128 * 128, nnunet(3), scale=1)
    assert low[0] / low[1] <= 2


def test_a_patch_that_covers_a_quarter_needs_no_low_resolution():
    assert low_resolution_spacing((1, 1, 1), (138, 169, 138), 128**3, nnunet(4), scale=1) is None


def test_parameters_of_a_tiny_network_are_counted_by_hand():
    encoder = (9 * 2 * 4 + 12) + (9 * 4 * 4 + 12) + (3 * 4 * 8 + 24) + (3 * 8 * 8 + 24)
    decoder = (4 * 8 * 4 + 4) + (9 * 8 * 4 + 12) + (9 * 4 * 4 + 12)
    assert parameter_count(TINY) == encoder + decoder + (4 * 3 + 3)


def test_parameters_are_those_of_the_network_that_is_built():
    from autoseg.nn.build import build_network

    network = replace(TINY, deep_supervision=True, features=(4, 8, 12), strides=((1, 1), (2, 2), (1, 2)),
                      kernel_sizes=((3, 3),) * 3, convs_encoder=(2, 2, 2), convs_decoder=(2, 2))
    assert parameter_count(network) == sum(p.numel() for p in build_network(network).parameters())
    assert parameter_count(TINY) == sum(p.numel() for p in build_network(TINY).parameters())


def test_a_patch_is_shortened_as_often_as_asked():
    sizes = [fit_patch((1, 1, 1), (80, 400, 400), nnunet(3), scale=1, shorter=times).topology.patch_size for times in range(3)]
    # nnU-Net's rule: the axis that covers most of the median shape, by what the strides divide
    assert [sum(a != b for a, b in zip(*pair, strict=True)) for pair in zip(sizes, sizes[1:], strict=False)] == [1, 1]
    smallest = fit_patch((1, 1, 1), (80, 400, 400), nnunet(3), scale=1e-7, or_smallest=True).topology.patch_size
    assert smallest == (4, 16, 16)  # no axis can be shortened below 4 voxels
