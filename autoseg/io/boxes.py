"""Tables of boxes around findings, one row per box, as they are published beside images."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePath

from autoseg.core.errors import DatasetError, ReadError, unknown_name
from autoseg.io.documents import read_document

# A row per box of some 100 bytes: room for 600,000.
_MAX_TABLE_BYTES = 2**26


@dataclass(frozen=True)
class BoxColumns:
    """Names of the columns of a table of boxes; width and height are in pixels of the image."""

    case: str
    label: str
    width: str
    height: str


@lru_cache(maxsize=8)
def read_boxes(path: Path, columns: BoxColumns) -> dict[str, tuple[tuple[str, float, float], ...]]:
    """(label, width, height) of the boxes of every case, by case id; a file name counts as the id without its ending.

    Rows may be shorter than the first one, as in ChestX-ray14's own table, which ends in empty columns.

    Raises:
        DatasetError: the table cannot be read, lacks a column, or holds a size that is no positive number.
    """
    try:
        reader = csv.DictReader(io.StringIO(read_document(path, _MAX_TABLE_BYTES), newline=""), strict=True)
        found = list(reader)
    except (ReadError, csv.Error) as error:
        raise DatasetError(f"the table of boxes {path} cannot be read: {error}", code="E_TABLE") from error
    known = [name for name in reader.fieldnames or () if name]
    for column in (columns.case, columns.label, columns.width, columns.height):
        if column not in known:
            raise DatasetError(f"{path}: {unknown_name(column, known, 'column')}", code="E_TABLE")
    boxes: dict[str, list[tuple[str, float, float]]] = defaultdict(list)
    for number, row in enumerate(found, start=2):
        try:
            width, height = float(row[columns.width]), float(row[columns.height])
        except (TypeError, ValueError):
            width = height = 0.0
        if not (width > 0 and height > 0):
            raise DatasetError(f"{path}: row {number} holds a box of {row[columns.width]!r} x {row[columns.height]!r} pixels; "
                               "both must be positive numbers", code="E_TABLE")
        boxes[_case_id(row[columns.case] or "")].append((row[columns.label] or "", width, height))
    return {case: tuple(entries) for case, entries in boxes.items()}


def find_above(name: str, file: Path) -> Path | None:
    """The file called `name` beside `file` or in a folder above it: a table of the dataset that `file` belongs to."""
    return next((folder / name for folder in file.parents if (folder / name).is_file()), None)


def _case_id(written: str) -> str:
    path = PurePath(written.strip())
    return path.name[:-len(path.suffix)] if path.suffix else path.name
