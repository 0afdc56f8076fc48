"""From labels of whole images to boxes: trained, validated, reported, predicted, evaluated and explained."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image as PillowImage
from tasks.classification.blobs import SIDE, SPEC, write_blobs

from autoseg import pipeline
from autoseg.cli.app import run as command
from autoseg.core.budget import Budget
from autoseg.core.errors import IncompatibleError
from autoseg.core.progress import silent
from autoseg.core.task import PlanRequest
from autoseg.io.boxes import BoxColumns, read_boxes
from autoseg.io.images import read_image
from autoseg.metrics.boxes import best_overlap, points_into
from autoseg.planning.classifier_plan import lasting
from autoseg.stages.train import run_train
from autoseg.tasks.classification.output import read_prediction
from autoseg.workspace import open_workspace

STEPS = 50
COLUMNS = BoxColumns("case", "label", "width", "height", "x", "y")


@pytest.fixture(scope="module")
def blobs(tmp_path_factory):
    """The dataset, its root after one fold was trained and selected, and new pictures that were predicted."""
    folder = tmp_path_factory.mktemp("blobs")
    write_blobs(folder, 100, seed=0)
    (folder / "spec.yaml").write_text(SPEC)
    write_blobs(folder / "new", 24, seed=1)
    workspace = open_workspace(folder / "home", str(folder / "spec.yaml"), folder, silent)
    request = PlanRequest("default", "default", ("resnet_small",))
    plan = pipeline.plan(workspace, Budget("cpu", 4 * 2**30, threads=1, device="test"), request, executor=None)
    planned = plan.configuration("resnet_small")
    short = replace(plan, configurations={"resnet_small": replace(planned, optimization=lasting(planned.optimization, STEPS))})
    pipeline.preprocess(workspace, short, (), executor=None)
    run = pipeline.make_run(workspace, short, "resnet_small", "0")
    report = run_train(run, device="cpu", workers=0, progress=silent, should_stop=lambda: False)
    pipeline.select(workspace, short)
    page = pipeline.report(workspace, short, {})
    bundle = workspace.layout.bundle("default")
    assert command(["predict", "-b", str(bundle), "-i", str(folder / "new" / "images"), "-o", str(folder / "out"),
                    "--root", str(folder / "home")]) == 0
    return folder, workspace, planned, report, bundle, page


def arguments(blobs, out, *more, images=None):
    folder, *_, bundle, _ = blobs
    return ["task", "classification", "explain", "-b", str(bundle), "-i", str(images or folder / "new" / "images"), "-o",
            str(out), "--root", str(folder / "home"), *more]


def few(blobs, folder, *names):
    """A folder with some of the new pictures."""
    folder.mkdir()
    for name in names:
        shutil.copy(blobs[0] / "new" / "images" / f"{name}.png", folder)
    return folder


def test_a_large_map_pooled_by_log_sum_exp_is_planned(blobs):
    network = blobs[2].network
    cells = [SIDE // np.prod(steps) for steps in zip(*network.strides, strict=True)]
    assert network.pooling == "log_sum_exp" and min(cells) >= 14 and blobs[2].task_values["localise"] is True


def test_boxes_of_a_fold_find_what_was_never_shown(blobs):
    summary = blobs[3].summary
    assert summary["mean.auc"].mean > 0.9
    assert summary["ill.bright.located_25"].mean >= 0.8 and summary["ill.bright.located_25"].count == 10
    assert summary["mean.located_25"].lower > 0.5


def found_and_drawn(blobs):
    folder, workspace, *_ = blobs
    drawn = read_boxes(folder / "new" / "boxes.csv", COLUMNS)
    names = sorted(drawn)
    found = [[entry.box for entry in read_prediction(folder / "out" / name, workspace.spec).found if entry.finding == "bright"]
             for name in names]
    return found, [[box.sides for box in drawn[name]] for name in names]


def share(found, drawn, least):
    return np.mean([any(best_overlap(box, truths) > least for box in boxes)
                    for boxes, truths in zip(found, drawn, strict=True)])


def test_boxes_of_new_pictures_hit_far_more_often_than_by_chance(blobs):
    found, drawn = found_and_drawn(blobs)
    # chance: the boxes of one picture beside the finding of another
    by_chance = np.mean([share(found[turn:] + found[:turn], drawn, 0.5) for turn in range(1, len(found))])
    assert len(found) == 12 and share(found, drawn, 0.5) >= 0.8 and by_chance <= 0.4


def test_predictions_say_boxes_and_whether_their_finding_was_decided(blobs):
    folder = blobs[0]
    for number in range(24):
        document = json.loads((folder / "out" / f"c{number}.json").read_text())
        listed = document["localisation"]["ill"]["bright"]
        assert listed["decided"] is (document["targets"]["ill"]["decided"] == "bright")
        assert {box["threshold"] for box in listed["boxes"]} <= {60, 180}


def test_a_folder_of_predictions_is_evaluated_with_its_boxes(blobs, capsys):
    folder, *_ = blobs
    assert command(["evaluate", "-d", "Blobs", "-p", str(folder / "out"), "-l", str(folder / "new" / "labels.csv"), "--root",
                    str(folder / "home"), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)["summary"]
    found, drawn = found_and_drawn(blobs)
    assert summary["ill.bright.located_50"]["mean"] == pytest.approx(share(found, drawn, 0.5))


def test_the_report_shows_heat_maps_with_both_boxes(blobs):
    text = blobs[-1].read_text()
    assert "explain, fold 0" in text and "found box" in text and "reference box (dashed)" in text
    assert "class activation map" in text and "located_25</td>" in text


def test_explanations_point_at_the_finding_and_are_faithful(blobs, tmp_path, capsys):
    assert command(arguments(blobs, tmp_path, "--class", "bright")) == 0
    said = capsys.readouterr().out
    with (tmp_path / "explain.csv").open() as file:
        rows = {row["case"]: row for row in csv.DictReader(file)}
    drawn = read_boxes(blobs[0] / "new" / "boxes.csv", COLUMNS)
    hits = []
    for name, (box,) in drawn.items():
        heat = read_image([tmp_path / name / rows[name]["file"]]).voxels[0]
        region = np.zeros(heat.shape, bool)
        region[tuple(slice(int(start), int(stop)) for start, stop in box.sides)] = True
        hits.append(points_into(heat, region))
    assert len(rows) == 24 and np.mean(hits) >= 0.9  # a finding covers 6 % of a picture
    verdicts = [rows[name]["verdict"] for name in drawn]
    assert verdicts.count("faithful") >= 10 and f"{len(rows)} heat map(s) by activation_map" in said
    assert all(float(rows[name]["deletion"]) < float(rows[name]["insertion"]) for name in drawn)
    assert said.count("NOT FAITHFUL") == [row["verdict"] for row in rows.values()].count("not faithful")
    picture = PillowImage.open(tmp_path / "c1" / rows["c1"]["file"].replace(".nii.gz", ".png"))
    assert picture.size[0] >= 340


def test_finished_units_are_skipped_and_other_options_begin_anew(blobs, tmp_path, capsys):
    images, out, quick = few(blobs, tmp_path / "in", "c1", "c2"), tmp_path / "out", ("--no-faithfulness", "--json")
    assert command(arguments(blobs, out, *quick, images=images)) == 0
    first = {path: path.stat().st_mtime_ns for path in out.rglob("*.nii.gz")}
    assert command(arguments(blobs, out, *quick, images=images)) == 0
    assert first == {path: path.stat().st_mtime_ns for path in out.rglob("*.nii.gz")} and len(first) == 2
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["stage"] == "explain" and len(manifest["outputs"]) == 2 * 3 + 1
    capsys.readouterr()
    assert command(arguments(blobs, out, "--method", "grad_cam", *quick, images=images)) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert {row["method"] for row in rows} == {"grad_cam"} and {row["verdict"] for row in rows} == {"not checked"}


@pytest.mark.parametrize(("more", "code", "message"), [
    (("--class", "brigth"), 2, "class 'brigth' is not known; known are bright, plain. Did you mean 'bright'?"),
    (("--target", "age"), 2, "target 'age' is not known"), (("--method", "lime"), 2, "method 'lime' is not known")])
def test_what_does_not_exist_is_an_error_and_leaves_no_table(blobs, tmp_path, capsys, more, code, message):
    assert command(arguments(blobs, tmp_path / "out", *more)) == code
    assert message in capsys.readouterr().err and not (tmp_path / "out" / "explain.csv").exists()


def test_a_folder_without_images_is_an_error(blobs, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert command(arguments(blobs, tmp_path / "out", images=tmp_path / "empty")) == 3 and "empty" in capsys.readouterr().err


def test_an_image_that_cannot_be_read_does_not_stop_the_others(blobs, tmp_path, capsys):
    images = few(blobs, tmp_path / "in", "c1", "c2")
    (images / "c2.png").write_bytes((images / "c2.png").read_bytes()[:300])
    assert command(arguments(blobs, tmp_path / "out", "--no-faithfulness", images=images)) == 4
    shown = capsys.readouterr().out
    assert "1 case(s)" in shown and "c2" in shown and not (tmp_path / "out" / "c2").exists()


def test_a_bundle_of_another_task_is_refused(blobs):
    with pytest.raises(IncompatibleError, match="is of the task 'classification', and one of 'segmentation' is expected"):
        pipeline.load_predictor(blobs[4], of_task="segmentation")


def test_help_lists_the_options_of_the_command(capsys):
    assert command(["task", "classification", "explain", "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(option in shown for option in ("--method", "--target", "--class", "--no-faithful", "--bundle", "--input"))
