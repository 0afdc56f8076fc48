from __future__ import annotations

import pytest

from autoseg.core.errors import DatasetError
from autoseg.io.tables import read_table


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


def cells(table):
    return [row for _, row in table.rows]


@pytest.mark.parametrize(("name", "delimiter"), [("t.csv", ","), ("t.csv", ";"), ("t.csv", "\t"), ("t.csv", "|"), ("t.tsv", "\t"),
                                                 ("t.tsv", ","), ("metadata", ";")])
def test_the_delimiter_is_told_from_the_first_row(tmp_path, name, delimiter):
    path = write(tmp_path / name, delimiter.join(["case", "finding", "age"]) + "\n" + delimiter.join(["a", "x y", "3"]) + "\n")
    table = read_table(path)
    assert table.columns == ("case", "finding", "age") and table.rows == ((2, ("a", "x y", "3")),)


def test_wanted_columns_decide_where_another_delimiter_gives_more_cells(tmp_path):
    path = write(tmp_path / "t.csv", "case;size (x, y, z, t)\na;1, 2, 3, 4\n")
    assert read_table(path, ["case"]).columns == ("case", "size (x, y, z, t)")


@pytest.mark.parametrize(("encoding", "codes"), [("utf-8", []), ("utf-8-sig", []), ("utf-16", []), ("latin-1", ["W_ENCODING"]),
                                                 ("cp1252", ["W_ENCODING"])])
def test_encodings(tmp_path, encoding, codes):
    table = read_table(write(tmp_path / "t.csv", "case,arzt\na,M\xfcller\nb,Peña\n", encoding))
    assert table.columns == ("case", "arzt") and cells(table) == [("a", "M\xfcller"), ("b", "Peña")]
    assert [problem.code for problem in table.problems] == codes
    assert all("line 2 holds the byte 0xfc" in problem.message for problem in table.problems)


def test_cells_in_quotes_hold_delimiters_quotes_and_line_ends(tmp_path):
    path = write(tmp_path / "t.csv", 'case,notes\r\na,"fever, ""high""\r\nno cough"\r\n\r\nb,\r\n')
    assert cells(read_table(path)) == [("a", 'fever, "high"\r\nno cough'), ("b", "")]


def test_columns_without_a_name_are_left_out(tmp_path):
    """ChestX-ray14's table of 2017 ends in a comma, pandas writes a counter without a name."""
    table = read_table(write(tmp_path / "t.csv", ",Image Index, Finding Labels,y],\n0,a.png,Mass,0.1,\n1,b.png,,0.2,\n"))
    assert table.columns == ("Image Index", "Finding Labels", "y]")
    assert cells(table) == [("a.png", "Mass", "0.1"), ("b.png", "", "0.2")]


@pytest.mark.parametrize(("content", "words"), [
    (b"PK\x03\x04 a workbook", "workbook"), (b"", "names no column"), (b",,\na,b,c\n", "names no column"),
    (b"case,age,case\na,1,2\n", "two columns are called case"), (b"case,age\na,1\nb\n", "row 3 does not have the 2 cells.*has 1"),
    (b"case,age\na,1,2\n", "row 2 does not have the 2 cells.*has 3"), (b'case,age\na,"1\n', "cannot be read"),
    (b"case,age\na,\x1b[2J\n", "control characters"), (b"case,age\na,\x81\n", "line 2 holds the byte 0x81"),
    (b"\xff\xfec", "line 1 holds the byte"), (None, "does not exist"),
])
def test_what_is_no_table_is_refused(tmp_path, content, words):
    if content is not None:
        (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(DatasetError, match=words) as caught:
        read_table(tmp_path / "t.csv")
    assert caught.value.code == "E_TABLE" and "t.csv" in str(caught.value)
