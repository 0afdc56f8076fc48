from __future__ import annotations

from dataclasses import replace

import pytest

from autoseg.core.errors import DatasetError
from autoseg.io.boxes import BoxColumns, DrawnBox, find_above, read_boxes

COLUMNS = BoxColumns("Image Index", "Finding Label", "w", "h]")
HEADER = "Image Index,Finding Label,Bbox [x,y,w,h],,,\n"


def test_boxes_by_case_of_the_table_of_chestxray14(tmp_path):
    (tmp_path / "boxes.csv").write_text(HEADER + "a_1.png,Mass,1,2,30.5,40\nb.png,Nodule,1,2,5,6,,,\na_1.png,Mass,0,0,1,2\n")
    assert read_boxes(tmp_path / "boxes.csv", COLUMNS) == {
        "a_1": (DrawnBox("Mass", 30.5, 40.0), DrawnBox("Mass", 1.0, 2.0)), "b": (DrawnBox("Nodule", 5.0, 6.0),)}


def test_boxes_lie_at_their_corner(tmp_path):
    (tmp_path / "boxes.csv").write_text(HEADER + "a.png,Mass,10.5,20,30,40\n")
    (box,), = read_boxes(tmp_path / "boxes.csv", replace(COLUMNS, x="Bbox [x", y="y")).values()
    assert box.sides == ((0, 1), (20, 60), (10.5, 40.5))
    assert DrawnBox("Mass", 30, 40).sides == ()


def test_boxes_of_volumes_have_slices(tmp_path):
    (tmp_path / "boxes.csv").write_text("case,label,x,y,z,width,height,depth\na,Mass,1,2,3,10,20,30\n")
    columns = BoxColumns("case", "label", "width", "height", "x", "y", "z", "depth")
    (box,), = read_boxes(tmp_path / "boxes.csv", columns).values()
    assert box.sides == ((3, 33), (2, 22), (1, 11))


@pytest.mark.parametrize(("cells", "message"), [
    ("left,2,3,10,20,30", "row 2 holds a box at 'left', '2', '3'"), ("1,2,inf,10,20,30", "row 2 holds a box at '1', '2', 'inf'"),
    ("1,2,3,10,20,0", "row 2 holds a box of '10' x '20' x '0' pixels; all must be positive numbers")])
def test_places_and_sizes_that_are_none_are_an_error(tmp_path, cells, message):
    (tmp_path / "boxes.csv").write_text(f"case,label,x,y,z,width,height,depth\na,Mass,{cells}\n")
    with pytest.raises(DatasetError, match=message):
        read_boxes(tmp_path / "boxes.csv", BoxColumns("case", "label", "width", "height", "x", "y", "z", "depth"))


@pytest.mark.parametrize(("text", "message"), [
    (HEADER + "a.png,Mass,1,2,zero,4\n", "row 2 holds a box of 'zero' x '4' pixels"),
    (HEADER + "a.png,Mass,1,2,-3,4\n", "row 2 holds a box of '-3' x '4' pixels"),
    (HEADER + "a.png,Mass\n", "row 2 holds a box of None x None pixels"),
    ("Image Index,Finding Label,x,y,w,hh\n", "column 'h]' is not known"), ("", "column 'Image Index' is not known")])
def test_a_table_that_is_none_is_an_error(tmp_path, text, message):
    (tmp_path / "boxes.csv").write_text(text)
    with pytest.raises(DatasetError, match=message.replace("[", r"\[").replace("]", r"\]")) as error:
        read_boxes(tmp_path / "boxes.csv", COLUMNS)
    assert error.value.code == "E_TABLE"


def test_a_table_that_is_missing_is_an_error(tmp_path):
    with pytest.raises(DatasetError, match="cannot be read"):
        read_boxes(tmp_path / "absent.csv", COLUMNS)


def test_a_table_is_found_beside_the_images_or_above(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "boxes.csv").touch()
    assert find_above("boxes.csv", tmp_path / "a" / "b" / "x.png") == tmp_path / "boxes.csv"
    assert find_above("other.csv", tmp_path / "a" / "b" / "x.png") is None
