"""Boxes of a weakly supervised localisation, by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from tasks.classification.configurations import make_configuration
from tasks.classification.sets import binary, make_spec, make_units
from torch import nn

from autoseg.core.errors import ReadError
from autoseg.core.geometry import Geometry, GridRecord, Orientation
from autoseg.core.image import Image
from autoseg.core.networks import Classifier
from autoseg.core.report import Record
from autoseg.core.task import Context
from autoseg.inference.engine import in_use
from autoseg.io.boxes import DrawnBox
from autoseg.metrics.boxes import localisation
from autoseg.nn.classifier import ImageClassifier
from autoseg.tasks.classification.boxes import FoundBox, Seen, find_boxes, finding_outputs, localises, score_boxes
from autoseg.tasks.classification.files import compare
from autoseg.tasks.classification.heads import heads_of
from autoseg.tasks.classification.kinds import Kind
from autoseg.tasks.classification.output import infer, read_prediction, restore, write_prediction
from autoseg.tasks.classification.score import score
from autoseg.tasks.classification.summary import located, summarise
from autoseg.tasks.classification.target import read_target

SPEC = make_spec("ill")
SIGNS = ("signs", Kind.MULTILABEL, ("mass", "nodule"))


def localising(*targets, size=(1, 8, 8), **changes):
    configuration = make_configuration(*targets, size=size, **changes)
    return replace(configuration, task_values=configuration.task_values | {"localise": True})


def record_of(stored=(1, 16, 24), model=(1, 8, 8)):
    return GridRecord(Geometry(stored, (1.0, 0.5, 0.25)), Orientation((0, 1, 2), (False, False, True)),
                      tuple((0, size) for size in stored), (0, 1, 2), model, (1.0, 1.0, 1.0))


def maps_of(*spots, count=2, shape=(8, 8)):
    """Maps of 0 with a value in a rectangle of one output: (output, rows, columns, value)."""
    maps = np.zeros((count, *shape), np.float32)
    for output, rows, columns, value in spots:
        maps[output, slice(*rows), slice(*columns)] = value
    return maps


def test_findings_are_what_can_be_there():
    heads = heads_of(make_configuration(("ill", Kind.BINARY, ("no", "yes")), SIGNS, ("type", Kind.MULTICLASS, ("a", "b")),
                                        ("grade", Kind.ORDINAL, ("1", "2", "3")), ("size", Kind.CONTINUOUS, ())))
    assert [finding_outputs(head) for head in heads] == [{"yes": 0}, {"mass": 1, "nodule": 2}, {"a": 3, "b": 4}, {}, {}]


def test_boxes_at_both_thresholds_in_voxels_of_the_stored_image():
    configuration = localising(SIGNS)
    # 255 in one cell, 100 of 255 around it: the lower threshold sees three by three cells, the upper one only the cell
    maps = maps_of((0, (1, 4), (2, 5), 100 / 255), (0, (2, 3), (3, 4), 1.0))
    found = find_boxes(maps, record_of(), configuration)
    # rows are twice as fine in the image, columns three times, and the image is stored with its columns the other way
    assert found == (FoundBox("signs", "mass", 60, ((0, 1), (2, 8), (24 - 15, 24 - 6))),
                     FoundBox("signs", "mass", 180, ((0, 1), (4, 6), (24 - 12, 24 - 9))))


def test_a_box_of_both_thresholds_stands_once_and_a_map_of_one_value_points_nowhere():
    found = find_boxes(maps_of((1, (0, 2), (0, 3), 5.0)), record_of(), localising(SIGNS))
    assert [(box.finding, box.threshold) for box in found] == [("nodule", 60)]


def test_coarse_maps_are_interpolated_to_the_model_grid():
    maps = np.zeros((1, 2, 2, 2), np.float32)  # cells of four voxels along every axis
    maps[0, 0, 1, 1] = 1.0
    record = GridRecord(Geometry((8, 8, 8), (1.0,) * 3), Orientation(), ((0, 8),) * 3, (0, 1, 2), (8, 8, 8), (1.0,) * 3)
    low, high = find_boxes(maps, record, localising(("ill", Kind.BINARY, ("no", "yes")), size=(8, 8, 8)))
    # between centres at 1.5 and 5.5 the value falls by an eighth for half a voxel: along an axis through the peak 0.625 of it
    # is left at voxel 3 and 0.375 at voxel 4; a corner has the product of three, so that 60 / 255 reaches voxel 4 along an axis
    assert low.box == ((0, 5), (3, 8), (3, 8)) and high.box == ((0, 3), (5, 8), (5, 8))


def test_networks_answer_with_logits_and_maps_averaged_over_members_and_flips():
    configuration = localising(SIGNS)
    torch.manual_seed(0)
    networks = [ImageClassifier(configuration.network).eval() for _ in range(2)]
    voxels = np.random.default_rng(0).normal(size=(1, 1, 8, 8)).astype(np.float32)
    image = torch.from_numpy(voxels[None, :, 0])
    with torch.no_grad():
        plain = [(network(image), network.maps(image)) for network in networks]
        turned = [(network(image.flip(3)), network.maps(image.flip(3)).flip(3)) for network in networks]
    once = infer(networks, {"image": voxels}, configuration, Context())
    assert isinstance(once, Seen) and localises(configuration) and once.maps.shape == (2, 4, 4)
    np.testing.assert_allclose(once.logits, torch.cat([logits for logits, _ in plain]).mean(0), rtol=1e-5)
    np.testing.assert_allclose(once.maps, torch.cat([maps for _, maps in plain]).mean(0), rtol=1e-5, atol=1e-6)
    left_right = replace(configuration, inference=replace(configuration.inference, mirror_axes=(2,)))
    both = infer(networks, {"image": voxels}, left_right, Context(mirror=True))
    np.testing.assert_allclose(both.maps, torch.cat([maps for _, maps in plain + turned]).mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(both.logits, torch.cat([logits for logits, _ in plain + turned]).mean(0), rtol=1e-5, atol=1e-6)


def test_the_other_images_of_an_exam_add_to_the_logits_only():
    configuration = localising(SIGNS)
    network = ImageClassifier(configuration.network).eval()
    rng = np.random.default_rng(0)
    first, second = (rng.normal(size=(1, 1, 8, 8)).astype(np.float32) for _ in range(2))
    both = infer([network], {"image": first, "image@1": second}, configuration, Context())
    alone, other = (infer([network], {"image": voxels}, configuration, Context()) for voxels in (first, second))
    np.testing.assert_array_equal(both.maps, alone.maps)
    np.testing.assert_allclose(both.logits, (alone.logits + other.logits) / 2, rtol=1e-5)


def test_a_network_that_another_engine_runs_answers_with_maps_too():
    configuration = localising(SIGNS)
    network = ImageClassifier(configuration.network)
    used = in_use(network, configuration.inference, "cpu")
    voxels = np.random.default_rng(0).normal(size=(1, 1, 8, 8)).astype(np.float32)
    found, expected = (infer([one], {"image": voxels}, configuration, Context()) for one in (used, network.eval()))
    np.testing.assert_allclose(found.maps, expected.maps, rtol=1e-4, atol=1e-5)


def test_logits_of_log_sum_exp_and_maps_come_from_the_same_features():
    network = Classifier("resnet", 2, 1, 2, (4, 4, 8), ((1, 1), (1, 1), (2, 2)), ((3, 3),) * 3, (1, 1, 1), norm="group",
                         pooling="log_sum_exp")
    classifier = ImageClassifier(network).eval()
    image = torch.randn(3, 1, 8, 8)
    logits, maps = classifier.answer_with_maps(image)
    assert torch.equal(logits, classifier(image)) and torch.equal(maps, classifier.maps(image)) and classifier.has_maps


PREDICTION = replace(binary(0.9), found=(FoundBox("ill", "yes", 60, ((0, 1), (2, 8), (9, 18))),
                                         FoundBox("ill", "yes", 180, ((0, 1), (4, 6), (12, 15)))))


def test_boxes_come_back_from_their_file_with_millimetres_beside(tmp_path):
    image = Image(np.zeros((1, 1, 16, 24), np.float32), Geometry((1, 16, 24), (1.0, 0.5, 0.25)), Orientation(),
                  Geometry((1, 16, 24), (1.0, 0.5, 0.25)))
    path, = write_prediction(PREDICTION, SPEC, image, tmp_path / "a")
    assert read_prediction(path, SPEC) == PREDICTION
    written = json.loads(path.read_text())["localisation"]["ill"]["yes"]
    assert written["decided"] is True and written["boxes"][0] == {
        "threshold": 60, "start": [0, 2, 9], "stop": [1, 8, 18], "start_mm": [0.0, 1.0, 2.25], "stop_mm": [1.0, 4.0, 4.5]}
    less = write_prediction(replace(PREDICTION, readings=binary(0.2).readings), SPEC, image, tmp_path / "b")
    assert json.loads(less[0].read_text())["localisation"]["ill"]["yes"]["decided"] is False


def test_a_box_without_voxels_is_no_prediction(tmp_path):
    image = Image.canonical(np.zeros((1, 1, 4, 4), np.float32), Geometry((1, 4, 4), (1.0,) * 3))
    path, = write_prediction(PREDICTION, SPEC, image, tmp_path / "a")
    path.write_text(path.read_text().replace("18", "9"))
    with pytest.raises(ReadError, match="must have voxels"):
        read_prediction(path, SPEC)


def test_no_boxes_were_sought_and_none_were_found_differ(tmp_path):
    image = Image.canonical(np.zeros((1, 1, 4, 4), np.float32), Geometry((1, 4, 4), (1.0,) * 3))
    for name, found in (("none", ()), ("never", None)):
        path, = write_prediction(replace(binary(0.9), found=found), SPEC, image, tmp_path / name)
        assert read_prediction(path, SPEC).found == found


DRAWN = DrawnBox("yes", 6, 4, corner=(0.0, 2.0, 10.0))  # rows 2 to 6, columns 10 to 16


def test_overlaps_by_hand():
    found = score_boxes(PREDICTION.found, (DRAWN,), {"ill": ("no", "yes")})
    # 6 x 9 around 4 x 6: 24 of 54 pixels inside, union 54; 2 x 3 within
    assert found["ill.yes.iobb"] == 1.0 and found["ill.yes.box_iou"] == pytest.approx(24 / 54)
    assert {name: value for name, value in found.items() if "false" in name} == {
        "ill.yes.false_boxes_10": 0, "ill.yes.false_boxes_25": 0, "ill.yes.false_boxes_50": 1, "ill.yes.false_boxes_75": 1,
        "ill.yes.false_boxes_90": 1}


def test_a_drawn_box_that_nothing_finds_is_missed_and_other_findings_say_nothing():
    missed = score_boxes((), (DRAWN, replace(DRAWN, label="other")), {"ill": ("no", "yes")})
    assert missed["ill.yes.iobb"] == missed["ill.yes.box_iou"] == missed["ill.yes.false_boxes_10"] == 0.0
    assert score_boxes(PREDICTION.found, (replace(DRAWN, corner=None),), {"ill": ("no", "yes")}) == {}
    true = replace(binary(1.0), boxes=(DRAWN,))
    assert "ill.yes.iobb" not in score(binary(0.9), true, SPEC) and score(PREDICTION, true, SPEC)["ill.yes.iobb"] == 1.0


def random_boxes(rng, count):
    return [((0, 1), *(tuple(sorted(map(int, rng.choice(20, 2, replace=False)))) for _ in range(2))) for _ in range(count)]


def test_shares_and_counts_are_those_of_the_localisation_of_all_cases():
    rng = np.random.default_rng(3)
    records, found, drawn = [], [], []
    for place in range(30):
        boxes, truths = random_boxes(rng, int(rng.integers(0, 4))), random_boxes(rng, int(rng.integers(0, 3)))
        listed = tuple(FoundBox("ill", "yes", 60, box) for box in boxes)
        boxes_drawn = tuple(DrawnBox("yes", x[1] - x[0], y[1] - y[0], corner=(0, y[0], x[0])) for _, y, x in truths)
        scores = score(replace(binary(0.5), found=listed), replace(binary(1.0), boxes=boxes_drawn), SPEC)
        records.append(Record(f"c{place}", scores))
        found.append(boxes)
        drawn.append(truths)
    summary = located(records, None, 0)
    for percent in (10, 25, 50, 75, 90):
        expected = localisation(found, drawn, threshold=percent / 100)
        assert summary[f"ill.yes.located_{percent}"].mean == pytest.approx(expected.accuracy)
        assert summary[f"ill.yes.false_boxes_{percent}"].mean == pytest.approx(expected.false_positives)
        assert summary[f"ill.yes.located_{percent}"].count == expected.cases
        assert summary[f"mean.located_{percent}"] == summary[f"ill.yes.located_{percent}"]
    assert summary["ill.yes.located_10"].lower < summary["ill.yes.located_10"].mean < summary["ill.yes.located_10"].upper
    assert set(summary) <= set(summarise(records, np.random.default_rng(0)))


def test_means_are_over_findings():
    records = [Record("a", {"s.x.iobb": 1.0, "s.x.box_iou": 0.5} | {f"s.x.false_boxes_{t}": 2.0 for t in (10, 25, 50, 75, 90)}),
               Record("b", {"s.y.iobb": 0.3, "s.y.box_iou": 0.1} | {f"s.y.false_boxes_{t}": 0.0 for t in (10, 25, 50, 75, 90)})]
    found = located(records, None, 0)
    assert (found["mean.located_25"].mean, found["mean.located_50"].mean, found["mean.false_boxes_10"].mean) == (1.0, 0.5, 1.0)
    assert found["s.x.located_50"].count == 1 and found["s.x.located_50"].undefined == 1


BOXES = {"table": "boxes.csv", "x_column": "x", "y_column": "y", "names": {"Yes!": "yes"}}


def box_table(folder):
    (folder / "boxes.csv").write_text("case,label,x,y,width,height\na,Yes!,10,2,6,4\na,Odd,0,0,1,1\n")


def test_boxes_get_the_names_of_the_targets(tmp_path):
    box_table(tmp_path)
    spec = make_spec("ill", boxes=BOXES)
    unit = make_units(spec, ill=[1, 0])[0]
    case = replace(unit.cases[0], id="a", inputs={"image": (tmp_path / "a.png",)})
    target = read_target(replace(unit, cases=(case,)), spec)
    assert target.boxes == (DRAWN, DrawnBox("Odd", 1, 1, corner=(0, 0, 0)))


def test_a_folder_of_predictions_is_compared_with_the_boxes_beside_the_table(tmp_path):
    spec = make_spec({"column": "ill", "classes": {"0": "no", "1": "yes"}}, boxes=BOXES)
    image = Image.canonical(np.zeros((1, 1, 16, 24), np.float32), Geometry((1, 16, 24), (1.0,) * 3))
    for name in ("a", "b"):
        write_prediction(PREDICTION, spec, image, tmp_path / "out" / name)
    (tmp_path / "truth.csv").write_text("case,ill\na,1\nb,0\n")
    first, second = compare(tmp_path / "out", tmp_path / "truth.csv", spec)
    assert "ill.yes.iobb" not in first.score()  # nobody gave boxes
    box_table(tmp_path)
    assert first.score()["ill.yes.iobb"] == 1.0 and "ill.yes.iobb" not in second.score()


def test_a_network_without_places_has_no_maps():
    network = Classifier("resnet", 2, 1, 2, (4, 4, 8), ((1, 1), (1, 1), (2, 2)), ((3, 3),) * 3, (1, 1, 1), slices=True,
                         norm="group", pooling="recurrent")
    classifier = ImageClassifier(network).eval()
    assert not classifier.has_maps and isinstance(classifier, nn.Module)


def test_restoring_keeps_the_logits(tmp_path):
    configuration = localising(SIGNS)
    seen = Seen(np.array([0.0, 3.0], np.float32), maps_of((0, (1, 4), (2, 5), 1.0)))
    answer = restore(seen, record_of(), configuration, Context())
    assert answer.readings == restore(seen.logits, record_of(), configuration, Context()).readings
    assert [box.finding for box in answer.found] == ["mass"]
    assert restore(seen.logits, record_of(), configuration, Context()).found is None
