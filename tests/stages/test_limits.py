from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from autoseg.core.case import Case, Unit
from autoseg.core.errors import ResourceError
from autoseg.core.fingerprint import Fingerprint
from autoseg.core.geometry import Geometry
from autoseg.core.image import Image
from autoseg.io.images import write_label_map, write_volume
from autoseg.stages.fingerprint import measure_unit
from autoseg.stages.limits import (
    SPARE_BYTES,
    WORKER_BYTES,
    case_bytes,
    count_workers,
    largest_case_bytes,
    prediction_bytes,
    require_space,
    store_bytes,
)
from autoseg.stages.preprocess import PrepareUnit

GB = 10**9


def test_workers_are_bounded_by_cores_and_by_memory():
    case = GB - WORKER_BYTES
    assert count_workers(8, 3 * GB, case) == 3
    assert count_workers(2, 30 * GB, case) == 2
    assert count_workers(8, GB // 2, case) == 1


@pytest.fixture(scope="module")
def unit(tmp_path_factory):
    """A case of 60 x 80 x 70 voxels with two labels, named as the toy of segmentation names its files."""
    folder = tmp_path_factory.mktemp("limits")
    geometry, rng = Geometry((60, 80, 70), (1.0, 1.0, 1.0)), np.random.default_rng(0)
    image = Image.canonical(rng.normal(100, 10, (1, *geometry.shape)).astype(np.float32), geometry)
    write_volume(folder / "image.nii.gz", image.voxels, image)
    label = np.where(rng.random(geometry.shape) < 0.1, 7, 0)
    label[:20] = 3
    write_label_map(folder / "label.nii.gz", label, image)
    case = Case(id="c", group="c", inputs={"image": (folder / "image.nii.gz",)}, targets={"label": folder / "label.nii.gz"})
    return Unit("c", (case,), "c")


def peak_of(action) -> int:
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("spacing_mm", [2.0, 1.0, 0.6])
def test_the_memory_of_a_case_is_what_preparing_it_takes(toy, unit, spacing_mm, tmp_path):
    configuration = replace(toy.configuration, spacing_mm=(spacing_mm,) * 3)
    prepare = PrepareUnit(toy.task, toy.workspace.spec, toy.plan, configuration, tmp_path)
    predicted = largest_case_bytes([unit], toy.workspace.spec, [configuration])
    assert predicted == case_bytes(60 * 80 * 70 * max(1.0, spacing_mm**-3), 1)
    # an upper bound for every grid: a fine model grid needs the least per voxel
    assert 0.6 * predicted < peak_of(lambda: prepare(unit)) < 1.05 * predicted


def test_the_memory_of_a_case_is_what_measuring_it_takes(toy, unit):
    predicted = largest_case_bytes([unit], toy.workspace.spec)
    assert 0.8 * predicted < peak_of(lambda: measure_unit(toy.task, toy.workspace.spec, unit)) < 1.05 * predicted


def test_the_store_has_every_channel_in_four_bytes_and_a_target_in_one(toy):
    fingerprint = Fingerprint(((10, 20, 30), (5, 6, 8)), ((2.0, 1.0, 1.0), (1.0, 1.0, 2.0)), (1.0, 1.0), ((), ()), ({}, {}), {})
    isotropic = replace(toy.configuration, spacing_mm=(1.0, 1.0, 1.0))
    assert store_bytes(fingerprint, replace(toy.plan, transpose=(0, 1, 2)), isotropic) == (20 * 20 * 30 + 5 * 6 * 16) * 9
    own_slices = replace(toy.configuration, spacing_mm=(None, 1.0, 0.5))
    assert store_bytes(fingerprint, replace(toy.plan, transpose=(0, 1, 2)), own_slices) == (10 * 20 * 60 + 5 * 6 * 32) * 9


def test_predictions_take_a_byte_per_voxel_and_probabilities_four_per_output(unit):
    voxels = 60 * 80 * 70
    assert prediction_bytes(unit.cases, 3, probabilities=False) == voxels
    assert prediction_bytes(unit.cases, 3, probabilities=True) == voxels * 13


def test_a_disk_that_is_too_small_is_refused_before_the_start(tmp_path):
    with pytest.raises(ResourceError, match=r"store of '2d' may need 3\.20 GB in .*deep, and 1\.00 GB are free") as raised:
        require_space(tmp_path / "very" / "deep", 3 * GB, "the store of '2d'", free_bytes=GB)
    assert raised.value.exit_code == 6
    require_space(tmp_path / "very" / "deep", 3 * GB, "the store", free_bytes=3 * GB + SPARE_BYTES)


def test_what_is_written_already_needs_no_more_room(tmp_path):
    (tmp_path / "case.b2nd").write_bytes(bytes(3000))
    require_space(tmp_path, 3000, "the store", free_bytes=0)
    with pytest.raises(ResourceError):
        require_space(tmp_path, 3001, "the store", free_bytes=0)
