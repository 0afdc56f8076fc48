"""The shipped specifications of classification against tiny folders in the official layouts, and against real data."""

from __future__ import annotations

from collections import Counter

import pytest
from official_class_trees import CLASS_TREES, MEDMNIST, ClassTree

from autoseg.io.dataset import check_case, list_inputs, scan, spec_of_folder
from autoseg.io.images import accepted_of, read_image
from autoseg.io.specs import known_specs, load_spec
from autoseg.io.values import from_plain
from autoseg.tasks import known_tasks

SPECS = [name for name in known_specs() if load_spec(name).task == "classification"]
every_tree = pytest.mark.parametrize("tree", [pytest.param(tree, id=f"{tree.spec}-{tree.layout}") for tree in CLASS_TREES])
# Of each archive one size is read to its end; the others differ in the name of the file only.
distinct = pytest.mark.parametrize("tree", [pytest.param(tree, id=f"{tree.spec}-{tree.layout}") for tree in CLASS_TREES
                                            if not tree.layout.startswith(("64", "128", "224"))])


def targets(name):
    return load_spec(name).options["targets"]


@every_tree
def test_official_folder_is_scanned(tree: ClassTree, tmp_path):
    tree.write(tmp_path)
    spec = spec_of_folder(load_spec(tree.spec), tmp_path)
    found = scan(spec, tmp_path)
    assert (found.layout, tuple(problem.code for problem in found.problems)) == (tree.layout, tree.warnings)
    assert [(case.id, case.group) for case in found.cases] == [(case.id, case.group) for case in tree.cases]
    for case, expected in zip(found.cases, tree.cases, strict=True):
        assert {column: case.values[column] for column in expected.cells} == expected.cells
        assert {target["column"] for target in targets(tree.spec)} <= case.values.keys()
    assert sorted(line.split(":")[0] for line in found.ignored) == sorted(tree.left_out)
    assert not any("matches no pattern" in line for line in found.ignored)


@distinct
def test_every_file_is_sound_and_has_the_channels_of_the_specification(tree: ClassTree, tmp_path):
    tree.write(tmp_path)
    spec = load_spec(tree.spec)
    assert tuple(channel.name for channel in spec.inputs[0].channels) == tree.channels
    for case in scan(spec, tmp_path).cases:
        assert [problem for problem in check_case(spec, case) if problem.severity == "error"] == []
        image = read_image(case.inputs["image"], channels=len(tree.channels), accepted=accepted_of(spec.inputs[0]))
        assert len(image.voxels) == len(tree.channels) and (image.geometry.shape[0] == 1) != tree.spec.endswith("3D")


@distinct
def test_every_cell_of_a_target_has_a_class(tree: ClassTree, tmp_path):
    tree.write(tmp_path)
    cases = scan(load_spec(tree.spec), tmp_path).cases
    for target in targets(tree.spec):
        known = {str(cell) for cell in target.get("classes", ())}
        separator = target.get("separator") if target["kind"] == "multilabel" else None
        parts = [part for case in cases for cell in [case.values[target["column"]]]
                 for part in (cell.split(separator) if separator else [cell])]
        unknown = set(parts) - known - set(target.get("missing", ())) - set(target.get("negative", ()))
        assert not known or unknown == set()


@pytest.mark.parametrize("name", MEDMNIST)
def test_archives_list_the_published_number_of_classes(name):
    count, _ = MEDMNIST[name]
    found = targets(name)
    assert (len(found) if name == "ChestMNIST" else len(found[0]["classes"])) == count
    if name != "ChestMNIST":
        assert list(found[0]["classes"]) == [str(number) for number in range(count)]


def test_organs_of_slices_and_volumes_are_numbered_as_published():
    """The volumes count in another order than the slices (medmnist.INFO)."""
    def of(name):
        return [entry.split()[-1] for entry in targets(name)[0]["classes"].values()]

    slices = ["bladder", "femur", "femur", "heart", "kidney", "kidney", "liver", "lung", "lung", "pancreas", "spleen"]
    assert of("OrganAMNIST") == of("OrganCMNIST") == of("OrganSMNIST") == slices
    assert of("OrganMNIST3D") == ["liver", "kidney", "kidney", "femur", "femur", "bladder", "heart", "lung", "lung", "spleen",
                                  "pancreas"]
    assert list(targets("OrganMNIST3D")[0]["classes"].values())[1] == "right kidney"


@pytest.mark.skipif("classification" not in known_tasks(), reason="the task is not part of this installation")
@pytest.mark.parametrize("name", SPECS)
def test_options_are_those_of_the_task(name):
    from autoseg.tasks import load_task

    from_plain(load_spec(name).options, load_task("classification").options, source=name)


@every_tree
def test_an_archive_or_folder_is_understood_when_it_is_to_be_predicted(tree: ClassTree, tmp_path):
    tree.write(tmp_path)
    found = list_inputs(load_spec(tree.spec), tmp_path)
    assert {case.id for case in tree.cases} <= {case.id for case in found.cases}
    assert all(case.targets == {} for case in found.cases)


def test_real_covid_images_and_their_table(real_data):
    found = scan(load_spec("CovidCXR"), real_data / "imgtext_covidcxr")
    assert (found.problems, len(found.cases), len({case.group for case in found.cases})) == ((), 124, 62)
    assert Counter(case.values["finding"] for case in found.cases)["COVID-19, ARDS"] == 9
    assert [line.split()[1].rstrip(":") for line in found.ignored] == ["16745_7_1", "pneumocystis-pneumonia-2-L"]
    assert [problem for case in found.cases[::12] for problem in check_case(load_spec("CovidCXR"), case)
            if problem.severity == "error"] == []


def test_real_sunnybrook_groups_are_in_the_names(real_data):
    folder = real_data / "Dataset202_SunnybrookLV"
    found = scan(spec_of_folder(load_spec("SunnybrookGroups"), folder), folder)
    assert (found.problems, len(found.cases)) == ((), 526)
    patients = {case.group: case.values["diagnosis"] for case in found.cases}
    assert Counter(patients.values()) == {"HF-I": 8, "HF-NI": 8, "HYP": 8, "N": 6}
    assert all(case.stratum == case.values["diagnosis"] for case in found.cases)
