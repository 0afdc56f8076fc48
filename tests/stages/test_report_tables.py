"""Tables of the report: what stands in them for few and many labels, cases and patients."""

from __future__ import annotations

import math

import nibabel
import numpy as np
import pytest
import tifffile

from autoseg.core.case import Case, Unit
from autoseg.core.report import Record
from autoseg.io.specs import load_spec
from autoseg.stages.report import report_notes, shown_places, size_notes
from autoseg.stages.report_tables import Scored, case_columns, case_rows, headline_rows, patient_rows, shown_names
from autoseg.stages.summary import make_report
from autoseg.tasks import load_task

TASK = load_task("segmentation")
METRICS = ("dice", "iou", "surface_dice", "hd95_mm", "volume_ml")


def record(unit: str, group: str, dice: dict[str, float]) -> Record:
    scores = {f"{label}.{metric}": value for label, value in dice.items() for metric in METRICS}
    mean = math.fsum(dice.values()) / len(dice)
    return Record(unit, scores | {f"mean.{metric}": mean for metric in METRICS[:4]}, group)


def scored(labels: int, records: int = 2) -> Scored:
    found = tuple(record(f"case{k}", f"patient{k // 2}", {f"l{i}": (i + k) / 100 for i in range(1, labels + 1)})
                  for k in range(records))
    return Scored(TASK, found, {entry.unit: entry for entry in found})


def rows_of(found: Scored):
    return headline_rows(found, np.random.default_rng(0))


def test_few_labels_stand_in_one_table_with_all_measures_but_volumes():
    main, further = rows_of(scored(labels=2))
    assert [(row.label, row.metric) for row in main[:5]] == [
        ("mean", "dice"), ("mean", "iou"), ("mean", "surface_dice"), ("mean", "hd95_mm"), ("l1", "dice")]
    assert len(main) == 12 and further == ()


@pytest.mark.parametrize("records", [1, 4])
def test_the_note_about_intervals_leaves_room_for_those_that_a_task_names(records):
    """The interval of an AUC is no bootstrap, which only its task knows."""
    (note,) = [note for note in report_notes(scored(2, records), "x", []) if "interval" in note]
    assert "no other source is named" in note and ("patients are drawn" in note) == (records == 4)


@pytest.mark.parametrize(("cheap", "expected"), [
    ((0.4, 0.3), "mean.dice 0.350 and 0.200 on 2 cases."),  # 0.3 and 0.1
    ((0.25, 0.14), ""),
    ((0.9,), "mean.dice 0.900 and 0.300 on 1 case."),       # of what both were scored on
    ((), ""),
])
def test_a_network_behind_the_baseline_is_called_so_first(cheap, expected):
    model = tuple(record(f"case{k}", "a", {"l": value}) for k, value in enumerate((0.3, 0.1)))
    baseline = {f"case{k}": record(f"case{k}", "a", {"l": value}) for k, value in enumerate(cheap)}
    first = report_notes(Scored(TASK, model, baseline), "x", [])[0]
    said = f"The baseline, a cheap model, scores higher than the network: {expected}"
    assert first == said if expected else "baseline" not in first


def test_a_network_that_finds_as_little_as_the_baseline_is_called_so():
    model, cheap = ((record("case0", "a", {"l": 0.0}), record("case1", "a", {"l": 0.0})) for _ in range(2))
    first = report_notes(Scored(TASK, model, {entry.unit: entry for entry in cheap}), "x", [])[0]
    assert first == "The network scores no higher than the baseline, a cheap model: mean.dice 0.000 and 0.000 on 2 cases."


def test_cases_of_unknown_pixel_size_are_counted_where_a_score_has_a_length(tmp_path):
    """A volume says its spacing, also one of 1 mm; a PNG never does, also one that has gone meanwhile."""
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.diag([-1.0, -1, 1, 1])), tmp_path / "volume.nii.gz")
    for name in ("bare.tif", "said.tif"):
        tifffile.imwrite(tmp_path / name, np.zeros((4, 4), np.uint8))
    (tmp_path / "said.json").write_text('{"spacing": [1, 1, 1]}')
    names = ("gone.png", "volume.nii.gz", "bare.tif", "said.tif", "gone.tif")
    units = {f"case{k}": Unit(f"case{k}", (Case(name, name, {"image": (tmp_path / name,)}),), name)
             for k, name in enumerate(names)}
    spec = load_spec("Hippocampus")
    (note,) = size_notes(scored(1, 5), units, spec)
    assert "not known in 2 of 5 cases" in note and "take a pixel as 1 mm" in note
    known = tuple(record(name, name, {"l": 1.0}) for name in ("case1", "case3"))
    assert size_notes(Scored(TASK, known, {}), units, spec) == ()
    assert size_notes(Scored(TASK, (Record("case0", {"mean.auc": 1.0}, "a"),), {}), units, spec) == ()


def test_parts_without_leading_measures_show_all_of_theirs_beside_parts_that_have_some():
    names = ["mean.dice", "lung.dice", "lung.volume_ml", "ill.auc", "ill.ece", "mean.iou"]
    assert shown_names(names, "mean.dice") == ["mean.dice", "mean.iou", "lung.dice", "ill.auc", "ill.ece"]
    assert shown_names(["ill.auc", "mean.auc", "ill.ece"], "mean.auc") == ["mean.auc", "ill.auc", "ill.ece"]


def test_many_labels_have_one_row_each_and_the_rest_is_folded():
    main, further = rows_of(scored(labels=60))
    assert len(main) == 64 and {row.metric for row in main if row.label != "mean"} == {"dice"}
    assert len(further) == 61 * 4


@pytest.mark.parametrize(("labels", "columns"), [(2, 11), (8, 8), (60, 3)])
def test_the_table_of_cases_is_never_wider_than_the_page(labels, columns):
    assert len(case_columns(scored(labels))) == columns


def test_a_case_whose_labels_have_no_columns_names_its_lowest_one():
    rows = case_rows(scored(labels=60))
    assert rows[1].remark == "patient patient0, lowest: l1 0.020"
    assert case_rows(scored(labels=2))[1].remark == "patient patient0"


def test_the_summary_per_patient_by_hand():
    records = [record("a1", "a", {"lv": 0.9}), record("a2", "a", {"lv": 0.7}), record("b1", "b", {"lv": 0.2})]
    report = make_report(TASK, records, np.random.default_rng(0))
    per_case, per_patient = report.summary["mean.dice"], report.per_patient["mean.dice"]
    assert (per_case.mean, per_case.count, per_case.groups) == (pytest.approx(0.6), 3, 2)
    assert (per_patient.mean, per_patient.count, per_patient.groups) == (pytest.approx(0.5), 2, 0)
    assert (per_patient.lower, per_patient.upper) == (pytest.approx(0.2), pytest.approx(0.8))
    found = Scored(TASK, tuple(records), {})
    assert [(row.unit, row.headline, row.remark) for row in patient_rows(found)] == [
        ("a", pytest.approx(0.8), "2 cases"), ("b", 0.2, "1 case")]
    assert rows_of(found)[0][0].per_patient == per_patient


def test_without_repeated_patients_there_is_no_second_summary():
    records = [record("a", "a", {"lv": 0.9}), record("b", "b", {"lv": 0.7})]
    assert make_report(TASK, records, np.random.default_rng(0)).per_patient == {}
    assert patient_rows(Scored(TASK, tuple(records), {})) == ()
    assert make_report(TASK, [], np.random.default_rng(0)).summary == {}


def test_model_and_baseline_are_compared_on_the_same_cases():
    records = (record("a", "a", {"lv": 0.9}), record("b", "b", {"lv": 0.7}))
    baseline = {"b": record("b", "b", {"lv": 0.6})}
    row = rows_of(Scored(TASK, records, baseline))[0][0]
    assert row.difference.mean == pytest.approx(0.1) and row.difference.count == 1


@pytest.mark.parametrize(("count", "worst", "places"), [
    (1, 4, [0]), (2, 4, [0, 1]), (5, 4, [0, 1, 2, 3, 4]), (100, 4, [0, 1, 2, 3, 50, 99]), (0, 4, [])])
def test_pictured_cases_are_the_worst_the_median_and_the_best(count, worst, places):
    assert shown_places(count, worst) == places
