"""Tables of boxes around findings, one row per box, as they are published beside images."""

from __future__ import annotations

import csv
import io
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePath

from autoseg.core.errors import DatasetError, ReadError, unknown_name
from autoseg.io.documents import read_document

# A row per box of some 100 bytes: room for 600,000.
_MAX_TABLE_BYTES = 2**26


@dataclass(frozen=True)
class BoxColumns:
    """Names of the columns of a table of boxes; all numbers are in pixels of the image as stored.

    Attributes:
        x, y, z: of the first corner; None: the table does not say where boxes are.
        depth: along z; None: images of one slice.
    """

    case: str
    label: str
    width: str
    height: str
    x: str | None = None
    y: str | None = None
    z: str | None = None
    depth: str | None = None

    @property
    def sizes(self) -> tuple[str, ...]:
        return (self.width, self.height, *([self.depth] if self.depth else []))

    @property
    def corners(self) -> tuple[str, ...]:
        return tuple(name for name in (self.x, self.y, self.z) if name)


@dataclass(frozen=True)
class DrawnBox:
    """A box that somebody drew around a finding, in pixels of the image as stored.

    Attributes:
        corner: (z, y, x) of its first corner, 0 at the outer corner of the first pixel; None: not known.
    """

    label: str
    width: float
    height: float
    depth: float = 1.0
    corner: tuple[float, float, float] | None = None

    @property
    def sides(self) -> tuple[tuple[float, float], ...]:
        """Ranges along z, y and x; none where it is not known where the box is."""
        if self.corner is None:
            return ()
        sizes = (self.depth, self.height, self.width)
        return tuple((start, start + size) for start, size in zip(self.corner, sizes, strict=True))


@lru_cache(maxsize=8)
def read_boxes(path: Path, columns: BoxColumns) -> dict[str, tuple[DrawnBox, ...]]:
    """The boxes of every case, by case id; a file name counts as the id without its ending.

    Rows may be shorter than the first one, as in ChestX-ray14's own table, which ends in empty columns.

    Raises:
        DatasetError: the table cannot be read, lacks a column, or holds a size that is no positive number or a corner that is
            none.
    """
    try:
        reader = csv.DictReader(io.StringIO(read_document(path, _MAX_TABLE_BYTES), newline=""), strict=True)
        found = list(reader)
    except (ReadError, csv.Error) as error:
        raise DatasetError(f"the table of boxes {path} cannot be read: {error}", code="E_TABLE") from error
    known = [name for name in reader.fieldnames or () if name]
    for column in (columns.case, columns.label, *columns.sizes, *columns.corners):
        if column not in known:
            raise DatasetError(f"{path}: {unknown_name(column, known, 'column')}", code="E_TABLE")
    boxes: dict[str, list[DrawnBox]] = defaultdict(list)
    for number, row in enumerate(found, start=2):
        sizes, corner = _numbers(row, columns.sizes), _numbers(row, columns.corners)
        if not all(size > 0 for size in sizes):
            written = " x ".join(repr(row[name]) for name in columns.sizes)
            raise DatasetError(f"{path}: row {number} holds a box of {written} pixels; "
                               f"{'both' if len(sizes) == 2 else 'all'} must be positive numbers", code="E_TABLE")
        if any(math.isnan(place) for place in corner):
            written = ", ".join(repr(row[name]) for name in columns.corners)
            raise DatasetError(f"{path}: row {number} holds a box at {written}; these must be numbers of pixels", code="E_TABLE")
        place = (corner[2] if len(corner) > 2 else 0.0, corner[1], corner[0]) if len(corner) > 1 else None
        depth = sizes[2] if len(sizes) > 2 else 1.0
        boxes[_case_id(row[columns.case] or "")].append(DrawnBox(row[columns.label] or "", sizes[0], sizes[1], depth, place))
    return {case: tuple(entries) for case, entries in boxes.items()}


def _numbers(row: Mapping[str, str | None], columns: Sequence[str]) -> list[float]:
    """Numbers of a row; nan where a cell is none, or is not finite."""
    found = []
    for column in columns:
        try:
            number = float(row[column] or "")
        except ValueError:
            number = math.nan
        found.append(number if math.isfinite(number) else math.nan)
    return found


def find_above(name: str, file: Path) -> Path | None:
    """The file called `name` beside `file` or in a folder above it: a table of the dataset that `file` belongs to."""
    return next((folder / name for folder in file.parents if (folder / name).is_file()), None)


def _case_id(written: str) -> str:
    path = PurePath(written.strip())
    return path.name[:-len(path.suffix)] if path.suffix else path.name
