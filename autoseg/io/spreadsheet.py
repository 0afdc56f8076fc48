"""Tables for spreadsheets: CSV whose cells are never taken for formulas."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from autoseg.io.atomic import write_text

# What a spreadsheet may run or take apart at the beginning of a cell (OWASP, "CSV Injection").
_FORMULA_BEGINNINGS = ("=", "+", "-", "@", "\t", "\r", "\n")
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?")


def write_table(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, str]]) -> None:
    """Replaces `path` by these rows under their columns, atomically; cells that a row lacks are empty.

    Cells that hold a number stay as they are; of others, those that a spreadsheet could run begin with an apostrophe.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([_harmless(column) for column in columns])
    writer.writerows([[_harmless(row.get(column, "")) for column in columns] for row in rows])
    write_text(path, text.getvalue())


def cell(value: float | str) -> str:
    """A value as the text of a cell: numbers with six significant digits, nothing for what is not finite."""
    if isinstance(value, str):
        return value
    return f"{value:.6g}" if math.isfinite(value) else ""


def _harmless(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA_BEGINNINGS) and not _NUMBER.fullmatch(text) else text
