from __future__ import annotations

import math
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import naive_logits
from scipy import ndimage
from torch.nn import functional

from autoseg.core.plan import Normalization
from autoseg.inference import sliding_window
from autoseg.inference.sliding_window import predict_logits, predict_slabs, window_starts, window_weights
from autoseg.io.images import read_image
from autoseg.ops.largest import first_largest
from autoseg.ops.normalize import normalize
from autoseg.ops.resample import axis_operators
from autoseg.ops.streaming import stream_labels

PLAN = {"patch_size": (4, 6, 5), "tile_step": 0.5, "gaussian_sigma": 1 / 8, "tiles_per_batch": 3, "out_channels": 2,
        "dims": 3}


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).normal(size=shape).astype(np.float32)


def double_and_negate(windows: torch.Tensor) -> torch.Tensor:
    """Pointwise network of two outputs."""
    return torch.cat([2 * windows, -windows], dim=1)


def position(windows: torch.Tensor) -> torch.Tensor:
    """Network whose output depends on the place within the window only."""
    ramp = torch.arange(windows[0, 0].numel(), dtype=torch.float32).reshape(windows.shape[2:])
    return ramp.expand(len(windows), 1, *ramp.shape)


def naive_windows(forward, voxels: np.ndarray, patch, tile_step: float, sigma: float) -> np.ndarray:
    """One window after the other with 3-D weights from scipy, all divided at the end."""
    delta = np.zeros(patch)
    delta[tuple(size // 2 for size in patch)] = 1
    weights = ndimage.gaussian_filter(delta, [size * sigma for size in patch], mode="constant")
    weights[weights == 0] = weights[weights > 0].min()
    starts = []
    for size, width in zip(voxels.shape[1:], patch, strict=True):
        count = math.ceil((size - width) / (width * tile_step)) + 1
        starts.append([int(np.round(i * (size - width) / max(count - 1, 1))) for i in range(count)])
    total, weight = 0.0, np.zeros(voxels.shape[1:])
    for z in starts[0]:
        for y in starts[1]:
            for x in starts[2]:
                place = (slice(z, z + patch[0]), slice(y, y + patch[1]), slice(x, x + patch[2]))
                logits = forward(torch.from_numpy(voxels[(slice(None), *place)].copy())[None])[0].double().numpy()
                part = np.zeros((len(logits), *voxels.shape[1:]))
                part[(slice(None), *place)] = logits * weights
                total = total + part
                weight[place] += weights
    return total / weight


@pytest.mark.parametrize("shape", [(4, 6, 5), (3, 5, 2), (1, 1, 1), (4, 3, 5)])
def test_pointwise_network_in_one_window_gives_exactly_its_output(shape):
    voxels = noise(1, *shape)
    logits = predict_logits(double_and_negate, voxels, **PLAN)
    assert logits.dtype == torch.float32
    np.testing.assert_array_equal(logits.numpy(), np.concatenate([2 * voxels, -voxels]))


@pytest.mark.parametrize("shape", [(9, 6, 5), (11, 17, 13), (3, 17, 5), (5, 7, 6)])
def test_pointwise_network_in_many_windows_gives_its_output(shape):
    voxels = noise(1, *shape)
    logits = predict_logits(double_and_negate, voxels, **PLAN)
    np.testing.assert_allclose(logits.numpy(), np.concatenate([2 * voxels, -voxels]), rtol=1e-6)


def test_pointwise_classes_keep_their_labels():
    label = np.random.default_rng(5).integers(0, 3, (9, 14, 12))
    one_hot = np.eye(3, dtype=np.float32)[label].transpose(3, 0, 1, 2)
    logits = predict_logits(lambda windows: windows, one_hot, **{**PLAN, "out_channels": 3})
    np.testing.assert_array_equal(logits.argmax(dim=0).numpy(), label)


@pytest.mark.parametrize("tile_step", [0.25, 0.5, 1.0])
@pytest.mark.parametrize("sigma", [1 / 8, 1.0])
def test_overlapping_windows_are_weighted_as_by_a_naive_loop(tile_step, sigma):
    voxels = noise(1, 9, 13, 8)
    plan = {**PLAN, "tile_step": tile_step, "gaussian_sigma": sigma, "out_channels": 1}
    expected = naive_windows(position, voxels, PLAN["patch_size"], tile_step, sigma)
    np.testing.assert_allclose(predict_logits(position, voxels, **plan).numpy(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("tiles_per_batch", [1, 2, 5, 1000])
def test_batching_does_not_change_the_result(tiles_per_batch):
    voxels = noise(1, 9, 13, 8)
    single = predict_logits(position, voxels, **{**PLAN, "out_channels": 1, "tiles_per_batch": 1})
    batched = predict_logits(position, voxels, **{**PLAN, "out_channels": 1, "tiles_per_batch": tiles_per_batch})
    assert torch.equal(single, batched)


def test_network_never_sees_more_windows_than_planned():
    seen = []

    def forward(windows: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(windows.shape))
        return double_and_negate(windows)

    predict_logits(forward, noise(1, 9, 13, 5), **PLAN)  # 4 x 4 x 1 windows
    assert seen == [(3, 1, 4, 6, 5)] * 5 + [(1, 1, 4, 6, 5)]


def test_small_image_lies_in_the_middle_of_the_patch_among_zeros():
    seen = []

    def forward(windows: torch.Tensor) -> torch.Tensor:
        seen.append(windows.clone())
        return double_and_negate(windows)

    predict_logits(forward, np.ones((1, 2, 3, 5), np.float32), **PLAN)
    expected = torch.zeros(1, 1, 4, 6, 5)
    expected[:, :, 1:3, 1:4] = 1  # 3 missing along y: one before, two behind
    assert torch.equal(seen[0], expected)


def test_slices_of_a_2d_network_are_independent_and_batched():
    seen = []

    def blur(windows: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(windows.shape))
        return functional.avg_pool2d(windows, 3, stride=1, padding=1)

    voxels = noise(1, 7, 6, 5)
    plan = {**PLAN, "patch_size": (1, 6, 5), "dims": 2, "out_channels": 1, "tiles_per_batch": 4}
    logits = predict_logits(blur, voxels, **plan)
    expected = functional.avg_pool2d(torch.from_numpy(voxels[0])[:, None], 3, stride=1, padding=1)[:, 0]
    assert torch.equal(logits[0], expected)
    assert seen == [(4, 1, 6, 5), (3, 1, 6, 5)]


def test_large_slices_of_a_2d_network_are_tiled():
    voxels = noise(1, 3, 13, 9)
    plan = {**PLAN, "patch_size": (1, 6, 5), "dims": 2, "out_channels": 1}
    logits = predict_logits(position, voxels, **plan)
    for index in range(3):
        slice_alone = predict_logits(position, voxels[:, index:index + 1], **plan)
        assert torch.equal(logits[:, index:index + 1], slice_alone)
    np.testing.assert_allclose(
        logits[0, 0].numpy(), naive_windows(position, voxels[:, :1], (1, 6, 5), 0.5, 1 / 8)[0, 0], rtol=1e-4, atol=1e-4)


def test_logits_of_half_precision_are_added_in_float32():
    voxels = noise(1, 9, 13, 8)
    logits = predict_logits(lambda windows: double_and_negate(windows).bfloat16(), voxels, **PLAN)
    assert logits.dtype == torch.float32
    np.testing.assert_allclose(logits[1].numpy(), -voxels[0], rtol=1e-2)


@pytest.mark.filterwarnings("error")
def test_read_only_and_strided_arrays_are_accepted():
    voxels = noise(1, 5, 6, 4)[:, ::-1]
    voxels.setflags(write=False)
    logits = predict_logits(double_and_negate, voxels, **PLAN)
    np.testing.assert_allclose(logits[0].numpy(), 2 * voxels[0], rtol=1e-6)


def test_no_gradients_are_kept():
    weight = torch.ones(1, requires_grad=True)
    logits = predict_logits(lambda windows: double_and_negate(windows * weight), noise(1, 4, 6, 5), **PLAN)
    assert not logits.requires_grad
    logits += 1  # an ordinary tensor, that the caller may go on with


def blurred(windows: torch.Tensor) -> torch.Tensor:
    """Network of two outputs whose answer depends on neighbours and on the border of the window."""
    pool = functional.avg_pool3d if windows.ndim == 5 else functional.avg_pool2d
    smooth = pool(windows, 3, stride=1, padding=1)
    return torch.cat([smooth, windows - smooth], dim=1)


@pytest.mark.parametrize("shape", [(4, 6, 5), (3, 5, 2), (15, 13, 8), (3, 17, 5), (23, 6, 5)])
@pytest.mark.parametrize("dims", [2, 3])
def test_slabs_are_bit_for_bit_those_of_one_sum_over_the_whole_image(shape, dims):
    plan = {**PLAN, "dims": dims, "patch_size": (1, 6, 5) if dims == 2 else PLAN["patch_size"]}
    voxels = noise(1, *shape)
    slabs = predict_slabs(blurred, voxels, **plan)
    assert slabs.shape == (2, *shape)
    np.testing.assert_array_equal(np.concatenate(list(slabs.parts), axis=1), naive_logits(blurred, voxels, **plan))


def test_planes_are_released_as_soon_as_no_later_window_reaches_them():
    asked = []

    def forward(windows: torch.Tensor) -> torch.Tensor:
        asked.append(len(windows))
        return double_and_negate(windows)

    parts = predict_slabs(forward, noise(1, 10, 6, 5), **{**PLAN, "tiles_per_batch": 1}).parts  # starts 0, 2, 4, 6
    assert not asked
    seen = [(next(parts).shape[1], len(asked)) for _ in range(4)]
    assert seen == [(2, 2), (2, 3), (2, 4), (4, 4)]
    assert next(parts, None) is None


def test_sums_exist_for_as_many_planes_as_the_patch_has(monkeypatch):
    shapes = []
    zeros = torch.zeros
    monkeypatch.setattr(sliding_window.torch, "zeros", lambda shape, **how: shapes.append(tuple(shape)) or zeros(shape, **how))
    list(predict_slabs(double_and_negate, noise(1, 50, 6, 5), **PLAN).parts)
    assert shapes == [(2, 4, 6, 5)]


def test_large_slabs_are_cut(monkeypatch):
    monkeypatch.setattr("autoseg.ops.slabs.SLAB_BYTES", 3 * 2 * 6 * 5 * 4)
    parts = list(predict_slabs(double_and_negate, noise(1, 4, 6, 5), **PLAN).parts)
    assert [part.shape for part in parts] == [(2, 3, 6, 5), (2, 1, 6, 5)]


def test_sums_above_the_limit_are_kept_in_half_precision(monkeypatch):
    voxels = noise(1, 15, 13, 8)
    exact = naive_logits(blurred, voxels, **PLAN)
    monkeypatch.setattr(sliding_window, "LARGEST_SUMS_BYTES", 4 * 2 * 4 * 13 * 8 - 1)
    parts = list(predict_slabs(blurred, voxels, **PLAN).parts)
    halved = np.concatenate(parts, axis=1)
    assert all(part.dtype == np.float32 for part in parts)
    assert 0 < np.abs(halved - exact).max() < 2e-3 * np.abs(exact).max()


def count_windows(asked: list[int]):
    def forward(windows: torch.Tensor) -> torch.Tensor:
        asked.append(len(windows))
        return blurred(windows)
    return forward


def body_in_air(air: float) -> np.ndarray:
    """A small object in a constant; shape (1, 20, 30, 25)."""
    voxels = np.full((1, 20, 30, 25), air, np.float32)
    voxels[0, 8:12, 3:9, 2:8] = noise(4, 6, 6)
    return voxels


@pytest.mark.parametrize("air", [0.0, -1.37])
@pytest.mark.parametrize("tiles_per_batch", [1, 3, 1000])
@pytest.mark.parametrize("dims", [2, 3])
def test_windows_of_one_value_are_asked_once_and_nothing_changes(air, tiles_per_batch, dims):
    patch = (1, 6, 5) if dims == 2 else PLAN["patch_size"]
    plan = {**PLAN, "tiles_per_batch": tiles_per_batch, "dims": dims, "patch_size": patch}
    once, every = [], []
    reused = predict_slabs(count_windows(once), body_in_air(air), **plan).whole()
    asked = predict_slabs(count_windows(every), body_in_air(air), **plan, reuse_constant=False).whole()
    np.testing.assert_array_equal(reused, asked)
    np.testing.assert_array_equal(asked, naive_logits(blurred, body_in_air(air), **plan))
    assert sum(once) < 0.2 * sum(every)
    assert max(once) <= tiles_per_batch


def test_air_of_a_real_scan_goes_through_the_network_once_and_no_label_changes(real_data):
    folder = real_data / "Dataset106_BraTS15Sub" / "imagesTr"
    first = sorted(folder.glob("*_0000.nii.gz"))[0]
    voxels = read_image([first, first.with_name(first.name.replace("_0000", "_0001"))]).voxels[:, :70]
    voxels = normalize(voxels, [Normalization("zscore")] * 2)
    plan = {**PLAN, "patch_size": (64, 64, 64), "out_channels": 4}
    once, every = [], []
    torch.manual_seed(1)
    network = torch.nn.Sequential(torch.nn.Conv3d(2, 6, 3, padding=1), torch.nn.InstanceNorm3d(6), torch.nn.ReLU(),
                                  torch.nn.Conv3d(6, 4, 3, padding=1))

    def counted(asked):
        return lambda windows: (asked.append(len(windows)), network(windows))[1]

    reused = predict_slabs(counted(once), voxels, **plan).whole()
    asked = predict_slabs(counted(every), voxels, **plan, reuse_constant=False).whole()
    np.testing.assert_array_equal(reused.argmax(axis=0), asked.argmax(axis=0))
    assert sum(once) < sum(every)


def test_different_constants_are_different_windows():
    voxels = np.zeros((1, 8, 6, 5), np.float32)
    voxels[:, 4:] = 2
    plan = {**PLAN, "tile_step": 1.0, "tiles_per_batch": 1}
    logits = predict_slabs(double_and_negate, voxels, **plan).whole()
    np.testing.assert_array_equal(logits, np.concatenate([2 * voxels, -voxels]))


@pytest.mark.parametrize(("spread", "asked"), [(0.0, 1), (2e-6, 1), (1e-4, 16)])
def test_rounding_of_resampled_air_counts_as_one_value_and_faint_structure_does_not(spread, asked):
    voxels = np.float32(-1.5) * (1 + np.float32(spread) * np.abs(noise(1, 10, 15, 5)) / 5)
    windows = []
    list(predict_slabs(count_windows(windows), voxels, **PLAN).parts)
    assert sum(windows) == asked


def test_values_of_channels_are_compared_each_on_its_own():
    voxels = np.zeros((2, 10, 15, 5), np.float32)
    voxels[1] = noise(1, 10, 15, 5)[0]
    seen = []
    list(predict_slabs(lambda windows: seen.append(len(windows)) or windows, voxels, **PLAN).parts)
    assert sum(seen) == 16


def test_the_network_of_a_paused_stream_does_not_switch_gradients_off_outside():
    parts = predict_slabs(double_and_negate, noise(1, 9, 6, 5), **PLAN).parts
    next(parts)
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()


@pytest.mark.gpu
@pytest.mark.parametrize("voxels_on", ["cpu", "cuda"])
def test_windows_that_run_on_a_gpu_give_the_same(voxels_on):
    voxels = torch.from_numpy(noise(1, 9, 13, 8))
    logits = predict_logits(double_and_negate, voxels.to(voxels_on), device="cuda", **PLAN)
    assert logits.device.type == voxels_on
    torch.testing.assert_close(logits.cpu(), predict_logits(double_and_negate, voxels, **PLAN))


@pytest.mark.parametrize(("size", "patch", "tile_step", "expected"), [
    (64, 64, 0.5, (0,)),
    (110, 64, 0.5, (0, 23, 46)),
    (65, 64, 0.5, (0, 1)),
    (5, 1, 0.5, (0, 1, 2, 3, 4)),
    (20, 8, 1.0, (0, 6, 12)),
])
def test_window_starts_by_hand(size, patch, tile_step, expected):
    assert window_starts(size, patch, tile_step) == expected


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 60), st.integers(0, 200), st.sampled_from([0.25, 0.5, 0.75, 1.0]))
def test_window_starts_cover_every_voxel(patch, extra, tile_step):
    size = patch + extra
    starts = window_starts(size, patch, tile_step)
    covered = np.zeros(size, int)
    for start in starts:
        assert 0 <= start <= size - patch
        covered[start:start + patch] += 1
    assert covered.min() >= 1
    assert len(set(starts)) == len(starts)


@pytest.mark.parametrize("patch", [(4, 6, 5), (40, 56, 41), (2, 3, 1)])
def test_weights_are_a_separable_gaussian_around_the_middle_voxel(patch):
    delta = np.zeros(patch)
    delta[tuple(size // 2 for size in patch)] = 1
    expected = ndimage.gaussian_filter(delta, [size / 8 for size in patch], mode="constant")
    z, y, x = (window_weights(size, 1 / 8) for size in patch)
    np.testing.assert_allclose(z[:, None, None] * y[:, None] * x, expected, rtol=1e-6)


def test_weights_that_are_cut_to_zero_become_the_smallest_other():
    weights = window_weights(40, 0.02)
    assert weights.min() > 0
    assert np.count_nonzero(weights == weights.min()) > 30


def test_a_slab_is_gone_when_the_next_one_is_made(monkeypatch):
    """Two of 128 MiB would lie side by side else."""
    made, held = [], []

    def note(part):
        held.append(sum(one() is not None for one in made))
        made.append(weakref.ref(part))
        return part.numpy()

    monkeypatch.setattr(sliding_window, "_to_numpy", note)
    monkeypatch.setattr(sliding_window, "planes_per_slab", lambda *sizes: 1)
    slabs = predict_slabs(double_and_negate, noise(1, 9, 6, 5), **PLAN)
    labels = list(stream_labels(slabs, axis_operators((9, 6, 5), (9, 6, 5), order=1), first_largest))
    assert (len(labels), len(made), set(held)) == (9, 9, {0})
