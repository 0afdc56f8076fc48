"""The shipped specifications of registration against tiny folders in the official layouts, and against real data."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest
from official_pair_trees import PAIR_TREES, PairTree

from autoseg.core.image import Image
from autoseg.io.dataset import check_case, scan
from autoseg.io.images import read_image
from autoseg.io.landmarks import read_landmarks
from autoseg.io.specs import load_spec
from autoseg.tasks.registration.spec import index_units

every_tree = pytest.mark.parametrize("tree", [pytest.param(tree, id=f"{tree.spec}-{tree.layout}") for tree in PAIR_TREES])


@every_tree
def test_official_folder_is_scanned_and_its_cases_make_pairs(tree: PairTree, tmp_path):
    tree.write(tmp_path)
    spec = load_spec(tree.spec)
    found = scan(spec, tmp_path)
    assert (found.layout, found.problems) == (tree.layout, ())
    assert [(case.id, case.group) for case in found.cases] == [(case.id, case.group) for case in tree.cases]
    for case, expected in zip(found.cases, tree.cases, strict=True):
        assert case.inputs["image"] == (tmp_path / expected.image,)
        assert case.targets == {role: tmp_path / name for role, name in expected.targets.items()}
    assert sorted(line.split(":")[0] for line in found.ignored) == sorted(tree.left_out)
    assert not any("matches no pattern" in line for line in found.ignored)
    units = index_units(spec, found.cases)
    assert len(units) == tree.pairs and tree.pair in [unit.id for unit in units]


def test_breathing_out_is_registered_to_breathing_in(tmp_path):
    tree = next(tree for tree in PAIR_TREES if tree.spec == "DIRLab4DCT")
    tree.write(tmp_path)
    spec = load_spec("DIRLab4DCT")
    units = index_units(spec, scan(spec, tmp_path).cases)
    assert [(unit.cases[0].id, unit.cases[1].id, unit.group) for unit in units] == [
        (f"{folder}_T00", f"{folder}_T50", folder) for folder in ("Case10Pack", "Case1Pack", "Case2Pack", "Case8Deploy")]


def convert_as_documented(dataset: str, folder: Path, monkeypatch) -> None:
    """Runs what docs/registration.md tells users to run in the folder of a download."""
    page = (Path(__file__).parents[1] / "docs" / "registration.md").read_text(encoding="utf-8")
    monkeypatch.chdir(folder)
    exec(page[page.index(f"**`{dataset}`**"):].split("```python\n")[1].split("```")[0], {})


def test_dir_labs_voxels_converted_as_documented_fit_its_landmarks(tmp_path, monkeypatch):
    images, points = tmp_path / "Case1Pack" / "Images", tmp_path / "Case1Pack" / "ExtremePhases"
    images.mkdir(parents=True)
    points.mkdir()
    for phase in ("T00", "T50"):
        raw = np.zeros((94, 256, 256), "<i2")
        raw[10, 50, 100] = 2024
        (images / f"case1_{phase}_s.img").write_bytes(raw.tobytes())
        (points / f"Case1_300_{phase}_xyz.txt").write_text("1\t1\t1\t\n101\t51\t11\t\n")
    convert_as_documented("DIRLab4DCT", tmp_path, monkeypatch)
    spec = load_spec("DIRLab4DCT")
    found = scan(spec, tmp_path)
    assert (found.problems, [case.id for case in found.cases]) == ((), ["Case1Pack_T00", "Case1Pack_T50"])
    assert check_case(spec, found.cases[0]) == ()
    image = read_image(found.cases[0].inputs["image"])
    found_mm = read_landmarks(found.cases[0].targets["landmarks"], image).points_mm
    # Voxels of 0.97, 0.97 and 2.5 mm, counted from the right, anterior, superior one: 10 slices down, 50 rows to the back, 100
    # columns to the left.
    np.testing.assert_allclose(found_mm, [(0, 0, 0), (-25.0, 48.5, 97.0)], atol=1e-4)
    assert (image.voxels.min(), image.voxels.max()) == (-1024, 1000)
    brightest = np.unravel_index(image.voxels[0].argmax(), image.voxels[0].shape)
    np.testing.assert_allclose(image.geometry.position_mm(tuple(map(int, brightest))), found_mm[1], atol=1e-4)


def test_analyze_files_converted_as_documented_keep_their_voxels(tmp_path, monkeypatch):
    folder = tmp_path / "LPBA40" / "delineation_space" / "S01"
    folder.mkdir(parents=True)
    voxels = np.zeros((5, 6, 7, 1), np.int16)  # x, y, z, and a time of one, as LPBA40 has them
    voxels[1, 2, 3] = 182
    for name in ("skullstripped", "structure.label"):
        nibabel.save(nibabel.AnalyzeImage(voxels, np.diag((-0.86, 1.5, 0.9, 1))), folder / f"S01.delineation.{name}.hdr")
        raw = folder / f"S01.delineation.{name}.img"
        raw.with_suffix(".img.gz").write_bytes(gzip.compress(raw.read_bytes()))
        raw.unlink()
    convert_as_documented("LPBA40", tmp_path, monkeypatch)
    spec = load_spec("LPBA40")
    found = scan(spec, tmp_path)
    assert (found.problems, [case.id for case in found.cases]) == ((), ["S01"])
    assert [problem for problem in check_case(spec, found.cases[0]) if problem.severity != "warning"] == []
    read = read_image(found.cases[0].inputs["image"])
    assert read.stored.shape == (7, 6, 5)
    np.testing.assert_allclose(read.stored.spacing_mm, (0.9, 1.5, 0.86), atol=1e-6)
    assert np.argwhere(read.orientation.undo(read.voxels)[0] == 182).tolist() == [[3, 2, 1]]


@pytest.mark.parametrize(("name", "folder", "count"), [("FetalBrainPairs", "Dataset105_FetalBrainSB", 12),
                                                       ("OasisTrt2D", "reg_oasis_trt_2d", 15),
                                                       ("HippocampusPairs", "Dataset004_Hippocampus", 200)])
def test_real_folders_are_sound(real_data, name, folder, count):
    spec = load_spec(name)
    found = scan(spec, real_data / folder)
    assert (found.problems, len(found.cases)) == ((), count)
    assert [problem for case in found.cases[::count // 3] for problem in check_case(spec, case)] == []


def test_real_fetal_brains_have_seven_landmarks_of_the_same_names(real_data):
    cases = scan(load_spec("FetalBrainPairs"), real_data / "Dataset105_FetalBrainSB").cases

    def names(case):
        image: Image = read_image(case.inputs["image"])
        return set(read_landmarks(case.targets["landmarks"], image).names)

    assert len(names(cases[0])) == 7 and names(cases[0]) == names(cases[5])
