from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from fields import image_on, stored_grid

from autoseg.io.images import write_label_map, write_volume
from benchmarks import classical_registration


def test_every_case_is_fixed_once_and_moving_once_in_an_order_that_stays():
    pairs = classical_registration.in_a_ring([f"case_{number}" for number in range(7)])
    fixed, moving = zip(*pairs, strict=True)
    assert sorted(fixed) == sorted(moving) == [f"case_{number}" for number in range(7)]
    assert all(one != other for one, other in pairs)
    assert pairs == classical_registration.in_a_ring([f"case_{number}" for number in reversed(range(7))])


def test_weeks_two_apart_are_pairs(tmp_path):
    (tmp_path / "labelsTr").mkdir()
    for week in (21, 22, 24, 26, 27):
        (tmp_path / "labelsTr" / f"fetalSB_GA{week}_operated.nii.gz").touch()
    assert classical_registration.pairs_of("fetal", tmp_path) == [
        ("fetalSB_GA22_operated", "fetalSB_GA24_operated"), ("fetalSB_GA24_operated", "fetalSB_GA26_operated")]


@pytest.fixture
def slices(tmp_path):
    """Two slices in the layout of OASIS-TRT; the second is the first, moved by a voxel along x."""
    image = image_on(stored_grid(shape=(1, 40, 36), spacing_mm=(1.0, 1.0, 1.0)))
    labels = (image.voxels[0] * 4.99).astype(np.uint8)
    for name, shift in (("a", 0), ("b", 1)):
        write_volume(tmp_path / "images" / f"{name}.nii.gz", np.roll(image.voxels, shift, axis=-1), image)
        write_label_map(tmp_path / "labels" / f"{name}.nii.gz", np.roll(labels, shift, axis=-1), image)
    return tmp_path


def test_pairs_are_measured_once_and_shown_in_a_table(slices, monkeypatch, capsys):
    command = ["x", "--data", str(slices), "--set", "oasis", "--work", str(slices / "work"), "--methods", "centred", "affine"]
    monkeypatch.setattr(sys, "argv", command)
    classical_registration.main()
    table = capsys.readouterr().out
    entries = json.loads((slices / "work" / "classical_registration.json").read_text())
    assert len(entries) == 4
    before, after = (entries[f"oasis/{method}/a/b"]["result"] for method in ("centred", "affine"))
    assert before["dice"] < after["dice"] and after["dice"] > 0.9 and before["folded_percent"] == after["folded_percent"] == 0
    assert "| affine | 2 |" in table and "demons" not in table
    monkeypatch.setattr(classical_registration, "registered", None)  # nothing is left to be measured
    classical_registration.main()
    assert capsys.readouterr().out.splitlines()[1:] == table.splitlines()[1:]
