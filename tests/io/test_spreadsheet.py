from __future__ import annotations

import csv

import pytest

from autoseg.io.spreadsheet import cell, write_table


@pytest.mark.parametrize(("text", "written"), [
    ("=HYPERLINK(1)", "'=HYPERLINK(1)"), ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"), ("-2+3", "'-2+3"),
    ("@SUM(A1)", "'@SUM(A1)"), ("\t=1", "'\t=1"), ("-0.25", "-0.25"), ("+1e-05", "+1e-05"), ("-1_0", "'-1_0"), ("a=b", "a=b"),
    ("", ""), ("one, two\n\"three\"",) * 2])
def test_cells_that_a_spreadsheet_would_run_are_text_and_numbers_stay_numbers(tmp_path, text, written):
    write_table(tmp_path / "t.csv", ["case", text or "x"], [{"case": "c", text or "x": text}])
    with (tmp_path / "t.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [["case", written or "x"], ["c", written]]


def test_rows_may_lack_cells_and_lines_end_as_on_every_system(tmp_path):
    write_table(tmp_path / "t.csv", ["case", "a", "b"], [{"case": "1", "b": "x"}, {"case": "2", "a": "y"}])
    assert (tmp_path / "t.csv").read_bytes() == b"case,a,b\n1,,x\n2,y,\n"


def test_values_as_cells():
    assert [cell(value) for value in (0.1234567, 1e-9, 12345678.0, float("nan"), float("inf"), "word")] == [
        "0.123457", "1e-09", "1.23457e+07", "", "", "word"]
