"""Tables of text, as hospitals and publishers write them: comma, semicolon, tab or bar between cells, in any common encoding.

Reference: RFC 4180 for quoting; cells in quotes may hold delimiters and line ends.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from autoseg.core.errors import DatasetError, ReadError, unknown_name
from autoseg.core.text import has_control_characters, printable
from autoseg.io.documents import read_content
from autoseg.io.problems import Problem

# MIMIC-CXR's table of 377,110 images, the largest in common use, has some 250 bytes a row.
MAX_BYTES = 2**27
_DELIMITERS = ",;\t|"
# What a cell may hold beside printable characters: notes of several lines.
_ORDINARY_CONTROL = "\n\r\t"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_ZIP = b"PK\x03\x04"


@dataclass(frozen=True)
class Table:
    """Rows of cells, as written.

    Attributes:
        columns: names in the first row, without those that have none (as of a counter that pandas wrote).
        rows: number in the file, counted from 1 for the first row, and the cells of these columns.
        problems: what is odd about the file.
    """

    path: Path
    columns: tuple[str, ...]
    rows: tuple[tuple[int, tuple[str, ...]], ...]
    problems: tuple[Problem, ...] = ()

    def place(self, column: str) -> int:
        """Place of a column.

        Raises:
            DatasetError: there is none of this name; the nearest is given.
        """
        if column not in self.columns:
            raise DatasetError(f"{self.path}: {unknown_name(column, list(self.columns), 'column')}", code="E_TABLE")
        return self.columns.index(column)


def read_table(path: Path, wanted: Collection[str] = ()) -> Table:
    """A table, its first row the names of the columns.

    The delimiter is the one that divides the first row into the columns that are wanted, else into most.

    Args:
        wanted: columns that should be there; they help to tell the delimiter and are not demanded.
    Raises:
        DatasetError: the file is missing, too large, a workbook, no text, or no table: rows of different lengths, two columns
            of one name, cells with control characters.
    """
    text, problems = read_text(path)
    try:
        delimiter = _delimiter(path, text, wanted)
        lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        header = next(lines, [])
        names = [name.strip() for name in header]
        twice = [name for name, count in Counter(names).items() if name and count > 1]
        if not any(names) or twice:
            raise DatasetError(f"{path}: " + (f"two columns are called {printable(twice[0])}; rename one" if twice else
                               "the first row names no column"), code="E_TABLE")
        kept = [place for place, name in enumerate(names) if name]
        rows = tuple(_rows(path, lines, len(header), kept))
    except csv.Error as error:
        raise DatasetError(f"the table {path} cannot be read: {error}; save it as CSV again", code="E_TABLE") from error
    return Table(path, tuple(names[place] for place in kept), rows, problems)


def read_text(path: Path) -> tuple[str, tuple[Problem, ...]]:
    """The text of a table: UTF-8, UTF-16 that says so, or Windows-1252, which Latin-1 text is a part of.

    Raises:
        DatasetError: no file, no text, or too large.
    """
    try:
        content = read_content(path, MAX_BYTES)
    except ReadError as error:
        raise DatasetError(f"the table {path} cannot be read: {error}", code="E_TABLE") from error
    if content.startswith(_ZIP):
        raise DatasetError(f"the table {path} is a workbook or an archive; save its sheet as CSV", code="E_TABLE")
    try:
        if content.startswith(_UTF16):
            return content.decode("utf-16"), ()
        return content.decode("utf-8-sig"), ()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        try:
            text = "" if content.startswith(_UTF16) else content.decode("cp1252")
        except UnicodeDecodeError:
            text = ""
        if not text:
            raise DatasetError(f"the table {path} is no text that is understood: line {line} holds the byte "
                               f"{content[error.start]:#04x}; save it as UTF-8", code="E_TABLE") from error
        return text, (Problem(path.name, "W_ENCODING", f"{path} is not UTF-8 (line {line} holds the byte "
                              f"{content[error.start]:#04x}) and is read as Windows-1252; save it as UTF-8 if letters with "
                              "accents come out wrong", "warning"),)


def _delimiter(path: Path, text: str, wanted: Collection[str]) -> str:
    order = "\t" + _DELIMITERS.replace("\t", "") if path.suffix.lower() == ".tsv" else _DELIMITERS

    def worth(delimiter: str) -> tuple[int, int, int]:
        try:
            first = next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True), [])
        except csv.Error:
            return -1, 0, 0
        return len(set(wanted) & {name.strip() for name in first}), len(first), -order.index(delimiter)

    return max(order, key=worth)


def _rows(path: Path, lines: Iterator[list[str]], width: int, kept: list[int]) -> Iterator[tuple[int, tuple[str, ...]]]:
    for number, row in enumerate(lines, start=2):
        if not row:
            continue
        if len(row) != width:
            raise DatasetError(f"{path}: row {number} does not have the {width} cells of the first row, it has {len(row)}; "
                               "correct it", code="E_TABLE")
        odd = next((cell for cell in row if has_control_characters(cell, allowed=_ORDINARY_CONTROL)), None)
        if odd is not None:
            raise DatasetError(f"{path}: row {number} holds the cell '{printable(odd[:60])}' with control characters; remove "
                               "them", code="E_TABLE")
        yield number, tuple(row[place] for place in kept)
