"""What is missing in a dataset of both tasks: told before anything is planned, or known as missing."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
from toy_tasks.datasets import open_toy

from autoseg import pipeline
from autoseg.core.budget import Budget
from autoseg.core.case import Case, Unit
from autoseg.core.errors import AutosegError
from autoseg.core.report import Record
from autoseg.core.spec import DatasetSpec, LabelSpec, LayoutSpec
from autoseg.core.task import PlanRequest
from autoseg.stages.prepare import read_inputs
from autoseg.tasks import load_task

JOINT = load_task("joint")


@pytest.fixture
def copy(toy, tmp_path):
    """The toy's files in a folder of their own."""
    for name in ("images", "labels"):
        shutil.copytree(toy.folder / name, tmp_path / name)
    for name in ("labels.csv", "spec.yaml"):
        shutil.copy(toy.folder / name, tmp_path / name)
    return tmp_path


def change(path, *pairs):
    text = path.read_text()
    for before, after in pairs:
        assert before in text
        text = text.replace(before, after)
    path.write_text(text)


def problems(folder):
    found = pipeline.check(open_toy("joint", folder, folder / "home"), executor=None)
    return [(problem.unit, problem.code) for problem in found.problems], [problem.code for problem in found.warnings]


def plan(folder):
    workspace = open_toy("joint", folder, folder / "home")
    return workspace, pipeline.plan(workspace, Budget("cpu", 4 * 2**30), PlanRequest("toy"), executor=None)


def test_a_case_without_a_diagnosis_is_planned_and_scored_for_the_rest(copy):
    change(copy / "labels.csv", ("p0_scan0,0,", "p0_scan0,,"))
    assert problems(copy) == ([], ["W_CLASS_FEW"])  # nine healthy ones are left
    workspace, made = plan(copy)
    assert "missing in 1" in JOINT.facts(workspace.spec, workspace.units)["target ill"]
    assert "missing in 1" in made.reasons["configurations.3d_fullres.task_values.classification.ill.kind"].inputs
    unit = workspace.units_by_id["p0_scan0"]
    target = JOINT.read_target(unit, workspace.spec)
    other = JOINT.read_target(workspace.units_by_id["p0_scan1"], workspace.spec)
    image = read_inputs(unit, workspace.spec)["image"]
    known, missing = (JOINT.score(other, truth, workspace.spec, image) for truth in (other, replace(target, dense=other.dense)))
    assert known["classification.ill.truth"] == 1 and np.isnan(missing["classification.ill.truth"])
    assert known["segmentation.mean.dice"] == missing["segmentation.mean.dice"] == 1
    summary = JOINT.summarise([Record("a", known), Record("b", missing)], np.random.default_rng(0))
    assert summary["segmentation.mean.dice"].count == 2 and summary["classification.mean.log_score"].count == 1


def test_a_dataset_without_any_label_map_is_refused_and_nothing_is_written(copy):
    change(copy / "spec.yaml", (', targets: {label: "labels/{case}.nii.gz"}', ""))
    found, _ = problems(copy)
    assert found == [("20 cases", "E_NO_LABEL")]
    with pytest.raises(AutosegError, match="target of segmentation.*'task: classification'") as caught:
        plan(copy)
    assert caught.value.code == "E_NO_LABEL" and not list((copy / "home").rglob("plan.json"))


def test_a_case_without_its_label_map_is_refused_by_name(copy):
    (copy / "labels" / "p3_scan7.nii.gz").unlink()
    with pytest.raises(AutosegError, match="p3_scan7") as caught:
        plan(copy)
    assert caught.value.code == "E_NO_LABEL"


def test_a_class_of_one_patient_is_a_warning(copy):
    rows = [f"p{number // 2}_scan{number},{'rare' if number < 2 else 'ab'[number % 2]},none,1" for number in range(20)]
    (copy / "labels.csv").write_text("\n".join(["case,ill,signs,age", *rows]) + "\n")
    found, warnings = problems(copy)
    assert found == [] and "W_CLASS_ONCE" in warnings
    _, made = plan(copy)
    assert made.configurations["3d_fullres"].task_values["image_head.out_channels"] == 3


def test_a_column_that_no_table_has_is_refused(copy):
    change(copy / "spec.yaml", ("{column: ill}", "{column: illness}"))
    found, _ = problems(copy)
    assert found == [("target illness", "E_TARGET_COLUMN")]


@pytest.mark.parametrize(("written", "words"), [("surface_tolerence_mm: 2", ["surface_tolerence_mm", "surface_tolerance_mm"]),
                                                ("utilty: f1", ["utilty", "utility"])])
def test_a_misspelt_option_of_either_task_is_named(copy, written, words):
    change(copy / "spec.yaml", ("surface_tolerance_mm: 2.0", written))
    with pytest.raises(AutosegError) as caught:
        plan(copy)
    assert all(word in str(caught.value) for word in words)


def test_boxes_that_a_joint_network_cannot_answer_with_are_refused(copy):
    change(copy / "spec.yaml", ("surface_tolerance_mm: 2.0", "localise: true"))
    with pytest.raises(AutosegError, match="'localise: true'.*joint.*"):
        plan(copy)
    assert not list((copy / "home").rglob("plan.json"))


def test_units_without_anything_to_learn_from_are_told_by_both_tasks():
    spec = DatasetSpec("Toy", "joint", (LayoutSpec("toy", {"image": ("{case}.png",)}),), labels=(LabelSpec("lung", 1),),
                       options={"targets": [{"column": "ill"}]})
    units = [Unit(name, (Case(name, name, {"image": ()}),), name) for name in ("a", "b")]
    assert [failure.code for failure in JOINT.examine(units, spec)] == ["E_TARGET_COLUMN", "E_NO_LABEL"]
