from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from autoseg.core.budget import Budget
from autoseg.core.errors import IncompatibleError
from autoseg.core.geometry import Geometry
from autoseg.core.image import Image
from autoseg.core.plan import InputPlan, Normalization, Plan
from autoseg.ops.crop import bounding_box, content_mask, crop
from autoseg.ops.normalize import normalize
from autoseg.ops.resample import resample, separate_axis
from autoseg.stages.prepare import prepare_inputs

GEOMETRY = Geometry((30, 26, 22), (1.2, 0.9, 1.0))
CT = Normalization("ct", False, 30.0, 40.0, -50.0, 90.0)
MASKED = Normalization("zscore", use_mask=True)


def scan(channels, dtype=np.int16):
    """An object in a zero frame, with a hole."""
    voxels = np.zeros((channels, *GEOMETRY.shape), dtype)
    voxels[:, 3:-4, 2:-1, 5:-2] = np.random.default_rng(0).integers(-200, 300, (channels, 23, 23, 15))
    voxels[:, 10:12, 9:12, 9:12] = 0
    return Image.canonical(voxels, GEOMETRY)


def planned(configuration, schemes, transpose, spacing, air="zero"):
    changed = replace(configuration, spacing_mm=spacing)
    inputs = (InputPlan("image", tuple(schemes), air),)
    return Plan("p", "Toy", "segmentation", transpose, inputs, {"c": changed}, Budget("cpu", 10**9), {}), changed


def naive_arrays(image, schemes, record, rules):
    """Crop, normalise and resample the whole image at once, in float32."""
    mask = content_mask(image.voxels, [0] * len(image.voxels))
    box = bounding_box(mask)
    turn = (0, *(1 + axis for axis in record.transpose))
    voxels = crop(image.voxels.astype(np.float32), box).transpose(turn)
    apart = separate_axis(record.turned_spacing_mm, record.model_spacing_mm, rules.separate_z_ratio)
    return resample(normalize(voxels, schemes, crop(mask, box).transpose(record.transpose)), record.model_shape,
                    order=rules.image_order, order_z=rules.image_order_z, separate_axis=apart)


@pytest.mark.parametrize("schemes", [[CT], [MASKED], [Normalization("zscore"), MASKED], [CT, Normalization("none")]])
@pytest.mark.parametrize(("transpose", "spacing"), [
    ((0, 1, 2), (1.2, 0.9, 1.0)), ((1, 2, 0), (1.4, 0.7, 1.6)), ((0, 1, 2), (6.0, 1.1, 0.8)), ((2, 0, 1), (1.0, 4.4, 0.9))])
def test_inputs_prepared_part_by_part_are_those_prepared_at_once(toy, monkeypatch, schemes, transpose, spacing):
    monkeypatch.setattr("autoseg.ops.resample.PART_BYTES", 10_000)
    plan, changed = planned(toy.configuration, schemes, transpose, spacing)
    image = scan(len(schemes))
    arrays, record = prepare_inputs({"image": image}, plan, changed)
    expected = naive_arrays(image, schemes, record, changed.resampling)
    np.testing.assert_allclose(arrays["image"], expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
    assert arrays["image"].flags.c_contiguous
    assert arrays["image"].dtype == np.float32


@pytest.mark.parametrize("schemes", [[MASKED], [MASKED, Normalization("zscore")]])
def test_air_of_any_value_is_cropped_like_zeros(toy, schemes):
    """Standardised images, whose zeros became -3.6, are prepared as before that; only holes differ."""
    plan, changed = planned(toy.configuration, schemes, (0, 1, 2), (1.2, 0.9, 1.0), air="corners")
    image = scan(len(schemes), np.float32)
    image.voxels[:, 10:12, 9:12, 9:12] = 5
    shifted = Image.canonical(image.voxels * np.float32(0.5) - np.float32(3.625), GEOMETRY)  # exact in binary
    arrays, record = prepare_inputs({"image": image}, plan, changed)
    moved, same = prepare_inputs({"image": shifted}, plan, changed)
    assert record == same and record.crop_box == ((3, 26), (2, 25), (5, 20))
    np.testing.assert_allclose(moved["image"], arrays["image"], rtol=1e-4, atol=1e-5)
    _, whole = prepare_inputs({"image": shifted}, *planned(toy.configuration, schemes, (0, 1, 2), (1.2, 0.9, 1.0)))
    assert whole.crop_box == tuple((0, size) for size in GEOMETRY.shape)


def test_integers_give_to_the_bit_what_their_floats_give(toy):
    plan, changed = planned(toy.configuration, [CT, MASKED], (1, 2, 0), (1.4, 0.7, 1.6))
    one, two = (prepare_inputs({"image": scan(2, dtype)}, plan, changed)[0]["image"] for dtype in (np.int16, np.float32))
    np.testing.assert_array_equal(one, two)


def test_a_wrong_number_of_channels_is_refused(toy):
    plan, changed = planned(toy.configuration, [CT, CT], (0, 1, 2), (1.0, 1.0, 1.0))
    with pytest.raises(IncompatibleError, match="1 channels and the plan normalises 2"):
        prepare_inputs({"image": scan(1)}, plan, changed)


def test_preparing_a_large_ct_needs_a_fraction_of_its_float32_copy(toy, monkeypatch):
    monkeypatch.setattr("autoseg.ops.resample.PART_BYTES", 2**18)
    geometry = Geometry((160, 128, 128), (1.0, 0.8, 0.8))
    image = Image.canonical(np.random.default_rng(0).integers(-1000, 1000, (1, *geometry.shape)).astype(np.int16), geometry)
    plan, changed = planned(toy.configuration, [CT], (0, 1, 2), (1.5, 1.5, 1.5))
    tracemalloc.start()
    prepare_inputs({"image": image}, plan, changed)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * image.voxels.size  # bytes; a float32 copy alone has 4 per voxel
