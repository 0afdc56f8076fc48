from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest

from autoseg.core.errors import DatasetError
from autoseg.core.progress import silent
from autoseg.io.dataset import scan
from autoseg.io.images import read_image, read_label_map, write_volume
from autoseg.stages.fingerprint import measure_unit, run_fingerprint


@pytest.fixture
def copied(toy, tmp_path):
    """The toy dataset's files and units in a folder that a test may change."""
    for name in ("images", "labels"):
        shutil.copytree(toy.folder / name, tmp_path / name)
    units = toy.task.index(toy.workspace.spec, scan(toy.workspace.spec, tmp_path).cases)
    return tmp_path, units


def run(toy, units, folder):
    return run_fingerprint(toy.task, toy.workspace.spec, units, folder, executor=None, progress=silent)


def test_moments_are_those_of_the_labelled_voxels(toy):
    unit = toy.workspace.units[0]
    measured = measure_unit(toy.task, toy.workspace.spec, unit)
    voxels = read_image(unit.cases[0].inputs["image"]).voxels[0]
    label = read_label_map(unit.cases[0].targets["label"]).voxels[0]
    foreground = voxels[label > 0].astype(np.float64)
    moments = measured.foreground[0]
    assert (moments.count, moments.minimum, moments.maximum) == (foreground.size, foreground.min(), foreground.max())
    assert moments.mean == pytest.approx(foreground.mean()) and moments.mean_square == pytest.approx((foreground**2).mean())
    assert measured.properties == {"voxels.label_0": int((label == 0).sum()), "voxels.label_1": int((label == 7).sum()),
                                   "voxels.label_2": int((label == 3).sum()), "cases.label_0": 1, "cases.label_1": 1,
                                   "cases.label_2": 1}


def test_a_changed_case_is_measured_again_and_the_others_are_taken_from_the_cache(toy, copied, tmp_path):
    folder, units = copied
    first = run(toy, units, tmp_path / "fingerprint")
    cached = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "fingerprint" / "cases").iterdir()}
    image = read_image(units[2].cases[0].inputs["image"])
    write_volume(units[2].cases[0].inputs["image"][0], image.voxels + 100, image)
    second = run(toy, units, tmp_path / "fingerprint")
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "fingerprint" / "cases").iterdir()}
    assert second.intensity(0).maximum > first.intensity(0).maximum + 90
    assert {name for name in after if name not in cached} == {name for name in after if name.startswith(f"{units[2].id}.")} - set(
        cached)
    assert all(after[name] == time for name, time in cached.items())


def test_parts_of_a_dataset_add_up_to_the_whole(toy, copied, tmp_path):
    """Parts that share no patient, as two sites' do."""
    _, units = copied
    parts = [run(toy, part, tmp_path / str(number)) for number, part in enumerate((units[:2], units[2:]))]
    whole = run(toy, units, tmp_path / "whole")
    assert parts[0] + parts[1] == whole
    assert (parts[0].patients, parts[1].patients, whole.patients) == (1, 3, 4)


def test_patients_are_counted_anew_where_only_the_grouping_changed(toy, copied, tmp_path):
    _, units = copied
    assert run(toy, units, tmp_path / "fingerprint").patients == 4
    alone = [replace(unit, cases=(replace(unit.cases[0], group=unit.id),), group=unit.id) for unit in units]
    assert run(toy, alone, tmp_path / "fingerprint").patients == 8


def test_all_unreadable_cases_are_named_in_one_error(toy, copied, tmp_path):
    _, units = copied
    for unit in units[:2]:
        path = unit.cases[0].inputs["image"][0]
        path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(DatasetError) as error:
        run(toy, units, tmp_path / "fingerprint")
    assert all(unit.id in str(error.value) for unit in units[:2])
    assert not (tmp_path / "fingerprint" / "fingerprint.json").exists()
