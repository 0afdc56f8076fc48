from __future__ import annotations

import pytest

from autoseg.core.errors import DatasetError
from autoseg.io.boxes import BoxColumns, find_above, read_boxes

COLUMNS = BoxColumns("Image Index", "Finding Label", "w", "h]")
HEADER = "Image Index,Finding Label,Bbox [x,y,w,h],,,\n"


def test_boxes_by_case_of_the_table_of_chestxray14(tmp_path):
    (tmp_path / "boxes.csv").write_text(HEADER + "a_1.png,Mass,1,2,30.5,40\nb.png,Nodule,1,2,5,6,,,\na_1.png,Mass,0,0,1,2\n")
    assert read_boxes(tmp_path / "boxes.csv", COLUMNS) == {
        "a_1": (("Mass", 30.5, 40.0), ("Mass", 1.0, 2.0)), "b": (("Nodule", 5.0, 6.0),)}


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
