"""The shipped specifications of registration against tiny folders in the official layouts, and against real data."""

from __future__ import annotations

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
