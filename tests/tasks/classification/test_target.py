from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from tasks.classification.configurations import make_configuration
from tasks.classification.sets import binary, make_cases, make_spec, make_units

from autoseg.core.case import Unit
from autoseg.core.errors import DatasetError
from autoseg.core.geometry import Geometry
from autoseg.core.image import Image
from autoseg.io.boxes import DrawnBox
from autoseg.tasks.classification.kinds import Kind
from autoseg.tasks.classification.target import Answer, Reading, aligned, describe, prepare_target, read_target


def image(shape=(1, 8, 6)):
    voxels = np.zeros(shape, np.float32)
    voxels[:, 2:6, 1:4] = 5
    return Image.canonical(voxels[None], Geometry(shape, (1.0, 1.0, 1.0)))


def test_the_truth_is_certain():
    spec = make_spec("ill", "size")
    units = make_units(spec, ill=[0, 1, ""], size=[1.5, 2.5, ""])
    answers = [read_target(unit, spec) for unit in units]
    assert [answer.reading("ill").probabilities for answer in answers[:2]] == [(1.0, 0.0), (0.0, 1.0)]
    assert [answer.reading("size").value for answer in answers[:2]] == [1.5, 2.5]
    assert not answers[2].reading("ill").is_known and not answers[2].reading("size").is_known


def test_units_to_predict_have_no_truth():
    spec = make_spec("ill")
    unit, = make_units(spec, other=["x"])
    assert read_target(unit, spec) is None


def test_images_of_an_exam_must_agree():
    spec = make_spec("ill", exam={"pattern": "^(c)"})
    unit, = make_units(spec, ill=[0, 1])
    with pytest.raises(DatasetError, match="the images of exam c say different things in column 'ill': '0', '1'") as error:
        read_target(unit, spec)
    assert error.value.code == "E_EXAM_DIFFERS"
    agreeing, = make_units(spec, ill=[1, ""])
    with pytest.raises(DatasetError):
        read_target(Unit("c", (replace(unit.cases[0], values={**unit.cases[0].values, "ill": "2"}),), "c"), spec)
    assert agreeing.cases[1].values["ill"] == ""


def test_what_is_counted_of_a_unit():
    spec = make_spec("ill", "size")
    unit = make_units(spec, ill=[1, 0], size=["", 2.5])[0]
    found = describe(unit, {"image": image()}, read_target(unit, spec))
    assert found.properties == {"sides.1x8x6": 1, "target.ill=1": 1, "target.size=": 1}
    assert found.foreground.sum() == 4 * 3  # what differs from the corners
    assert found.marks == ("known.ill", "class.ill=1")


def test_a_constant_image_is_foreground_everywhere():
    plain = Image.canonical(np.full((1, 1, 4, 4), 7.0, np.float32), Geometry((1, 4, 4), (1.0, 1.0, 1.0)))
    unit, *_ = make_units(make_spec("ill"), ill=[0, 1])
    assert describe(unit, {"image": plain}, None).foreground.all()


def test_boxes_are_counted_by_their_shorter_side(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "boxes.csv").write_text("Image Index,Finding Label,Bbox "
                                        "[x,y,w,h],,,\nc0.png,Nodule,1,1,2,4\nc0.png,Mass,0,0,3,3\n"
                                        "c1.png,Mass,0,0,6,6\n")
    spec = make_spec("ill", boxes={"table": "boxes.csv", "case_column": "Image Index", "label_column": "Finding Label",
                                   "width_column": "w", "height_column": "h]"})
    unit = make_units(spec, ill=[1, 0])[0]
    case = replace(unit.cases[0], inputs={"image": (tmp_path / "images" / "c0.png",)})
    target = read_target(replace(unit, cases=(case,)), spec)
    assert target.boxes == (DrawnBox("Nodule", 2.0, 4.0), DrawnBox("Mass", 3.0, 3.0))
    counted = describe(unit, {"image": image()}, target).properties
    assert {name: count for name, count in counted.items() if name.startswith("lesion")} == {"lesion.333": 1, "lesion.500": 1}
    with pytest.raises(DatasetError, match="neither beside"):
        read_target(replace(unit, cases=(case,)), replace(spec, options={**spec.options, "boxes": {"table": "absent.csv"}}))


def test_truths_are_stored_in_the_order_of_the_heads():
    configuration = make_configuration(
        ("ill", Kind.BINARY, ("no", "yes")), ("type", Kind.MULTICLASS, ("a", "b", "c")),
        ("signs", Kind.MULTILABEL, ("x", "y")), ("grade", Kind.ORDINAL, ("1", "2", "3")), ("size", Kind.CONTINUOUS, ()),
        mean=10.0, std=2.0)
    answer = Answer((
        *binary(1.0).readings, Reading("type", Kind.MULTICLASS, ("b", "c", "a"), (1.0, 0.0, 0.0)),
        Reading("signs", Kind.MULTILABEL, ("x", "y"), (0.0, 1.0)),
        Reading("grade", Kind.ORDINAL, ("1", "2", "3"), (math.nan,) * 3),
        Reading("size", Kind.CONTINUOUS, value=13.0)))
    truths = prepare_target(answer, None, configuration)["truths"]
    assert truths.dtype == np.float32
    np.testing.assert_array_equal(truths, [1, 1, 0, 1, -1, 1.5])  # (13 - 10) / 2


def test_classes_are_put_in_another_order_and_unknown_ones_refused():
    reading = Reading("t", Kind.MULTICLASS, ("a", "b"), (0.75, 0.25))
    assert aligned(reading, ("b", "c", "a")).probabilities == (0.25, 0.0, 0.75)
    with pytest.raises(DatasetError, match="the class 'a' of target 't' does not occur in what was learned") as error:
        aligned(reading, ("b", "c"))
    assert error.value.code == "E_CLASS_UNKNOWN"
    assert all(map(math.isnan, aligned(replace(reading, probabilities=(math.nan, math.nan)), ("b", "a")).probabilities))


@pytest.mark.parametrize(("reading", "decided"), [
    (binary(0.5).readings[0], (1,)), (binary(0.49).readings[0], (0,)), (binary(0.3, thresholds=(0.2,)).readings[0], (1,)),
    (Reading("t", Kind.MULTICLASS, ("a", "b", "c"), (0.2, 0.5, 0.3)), (1,)),
    (Reading("t", Kind.MULTILABEL, ("a", "b", "c"), (0.9, 0.1, 0.6)), (0, 2)),
    (Reading("t", Kind.MULTILABEL, ("a", "b"), (0.4, 0.4), thresholds=(0.3, 0.5)), (0,)),
    (Reading("t", Kind.MULTICLASS, ("a", "b"), (math.nan, math.nan)), ()), (Reading("t", Kind.CONTINUOUS, value=2.0), ())])
def test_what_is_decided(reading, decided):
    assert reading.decided == decided


def test_cases_keep_their_cells():
    assert make_cases(ill=[1])[0].values == {"ill": "1"}
