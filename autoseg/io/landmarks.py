"""Landmarks: named points of an image, from the files in which they are kept.

| file | points |
|---|---|
| `.csv`, `.tsv` | a row each; its columns say in which frame, see `FRAMES`; `name` (or `label`, `id`), else they are numbered |
| `.fcsv` | 3D Slicer, until version 5: the frame stands in its head |
| `.mrk.json` | 3D Slicer: the frame stands beside the points |
| `.txt` | DIR-Lab: three whole numbers a row, voxels of the file from 1 along x, y, z; numbered |
| an image | a voxel, or a few that touch, per value: as the fetal atlas of Fidon et al. 2021 has them; the value is the name |

References: 3D Slicer's developer guide, "Markups"; DIR-Lab, format of coordinates: voxel 1, 1, 1 is the right, anterior, superior
one, which is also the first that is stored.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autoseg.core.errors import DatasetError, ReadError
from autoseg.core.image import Image
from autoseg.core.text import printable
from autoseg.io.documents import read_document
from autoseg.io.images import read_label_map
from autoseg.io.images.endings import image_ending
from autoseg.io.tables import Table, read_table
from autoseg.io.values import read_json

# Columns of a table, by frame: millimetres of the world, or voxels of the file counted from 0. Bare x, y, z are not among them:
# they stand for different things in different programs.
FRAMES = {
    "millimetres to left, posterior, superior (ITK, ANTs, DICOM)": ("l", "p", "s"),
    "millimetres to right, anterior, superior (NIfTI)": ("r", "a", "s"),
    "millimetres to left, posterior, superior under ITK's names": ("x_mm", "y_mm", "z_mm"),
    "voxels of the file along its first, second and third axis, from 0": ("i", "j", "k"),
    "voxels of the file along x, y and z, from 0": ("x_voxel", "y_voxel", "z_voxel"),
}
_LPS, _RAS, _VOXELS = "lps", "ras", "voxels"
_KINDS = dict(zip(FRAMES, (_LPS, _RAS, _LPS, _VOXELS, _VOXELS), strict=True))
_NAMES = ("name", "label", "id")
# ANTs' own tables of points (antsApplyTransformsToPoints): left, posterior, superior in mm, and a time.
_ANTS = {"x", "y", "z", "t"}
# Slicer's frames, as words or (before version 4.11) as numbers.
_SLICER_FRAMES = {"LPS": _LPS, "1": _LPS, "RAS": _RAS, "0": _RAS}
_FCSV_COLUMNS = "id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID"
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
# A list of landmarks has some hundred; Slicer writes 500 bytes for each.
_MOST_BYTES = 2**24
_NAMED = 5


@dataclass(frozen=True)
class Landmarks:
    """Named points of one image.

    Attributes:
        points_mm: (n, 3) in the world (S, P, L).
    """

    names: tuple[str, ...]
    points_mm: NDArray[np.float64]


def read_landmarks(path: Path, image: Image) -> Landmarks:
    """The landmarks in a file, all of them inside the image that they belong to.

    Raises:
        ReadError: missing, damaged, or of a format that is not read.
        DatasetError: no landmark, one without a position or with one that is no finite number, a name twice, or a point outside
            the image.
        GeometryError: landmarks drawn on another grid.
    """
    name = path.name.lower()
    if name.endswith(".mrk.json"):
        names, points, kind = _slicer_markups(path)
    elif name.endswith(".fcsv"):
        names, points, kind = _slicer_fiducials(path)
    elif name.endswith((".csv", ".tsv")):
        names, points, kind = _table(path)
    elif name.endswith(".txt"):
        names, points, kind = _dir_lab(path)
    elif image_ending(path):
        names, points, kind = _drawn(path, image)
    else:
        raise ReadError(f"{path}: landmarks are read from .csv, .tsv, .fcsv, .mrk.json, DIR-Lab's .txt, and images with a voxel "
                        "per landmark; export them as one of these", code="E_FORMAT")
    if not names:
        raise DatasetError(f"{path} holds no landmark; give the file that was meant", code="E_LANDMARK")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DatasetError(f"{path}: {_listed(twice)} stand{'s' if len(twice) == 1 else ''} for several landmarks; give each "
                           "its own name", code="E_LANDMARK")
    _require_numbers(path, names, points)
    world = _world(points, kind, image)
    _require_inside(path, names, world, image)
    return Landmarks(tuple(names), world)


def paired(fixed: Landmarks, moving: Landmarks, source: str) -> tuple[tuple[str, ...], NDArray[np.float64], NDArray[np.float64]]:
    """Names of the landmarks, and their points (n, 3) in the fixed and in the moving image, in the order of the fixed ones.

    Args:
        source: names the pair in the message.
    Raises:
        DatasetError: a landmark is in one image only.
    """
    alone = [f"{_listed(only)} only in the {where} image" for where, only in (
        ("fixed", [name for name in fixed.names if name not in moving.names]),
        ("moving", [name for name in moving.names if name not in fixed.names])) if only]
    if alone:
        raise DatasetError(f"{source}: landmarks differ: {'; '.join(alone)}. Give both images the same ones, under the same "
                           "names", code="E_LANDMARK")
    order = [moving.names.index(name) for name in fixed.names]
    return fixed.names, fixed.points_mm, moving.points_mm[order]


def _table(path: Path) -> tuple[list[str], NDArray[np.float64], str]:
    table = read_table(path, wanted=[*_NAMES, *(column for columns in FRAMES.values() for column in columns)])
    lower = {column.lower(): column for column in table.columns}
    if set(lower) >= _ANTS:
        columns, kind = ("x", "y", "z"), _LPS
    else:
        fitting = [frame for frame, columns in FRAMES.items() if set(columns) <= set(lower)]
        if len(fitting) != 1:
            known = "; ".join(f"{', '.join(columns)}: {frame}" for frame, columns in FRAMES.items())
            found = "several frames" if fitting else "no frame that is known"
            raise DatasetError(f"{path}: its columns {', '.join(table.columns)} say {found}. Call them {known}",
                               code="E_LANDMARK")
        columns, kind = (FRAMES[fitting[0]], _KINDS[fitting[0]])
    named = next((lower[name] for name in _NAMES if name in lower), None)
    names = ([cells[table.place(named)].strip() for _, cells in table.rows] if named
             else [str(number) for number, _ in enumerate(table.rows, start=1)])
    return names, _cells(table, [lower[column] for column in columns]), kind


def _cells(table: Table, columns: Sequence[str]) -> NDArray[np.float64]:
    places = [table.place(column) for column in columns]
    points = [[_number(table.path, row, cells[place]) for place in places] for row, cells in table.rows]
    return np.array(points, np.float64).reshape(-1, 3)


def _number(path: Path, row: int, cell: str) -> float:
    """A number of a row; nan where there is none, which is refused together with the name of its landmark."""
    text = cell.strip()
    if text.lower() in ("", "nan", "na", "inf", "-inf"):
        return float("nan")
    if not _NUMBER.fullmatch(text):
        raise DatasetError(f"{path}: row {row} holds '{printable(text[:40])}' where a coordinate is expected; write it as 12.5",
                           code="E_LANDMARK")
    return float(text)


def _dir_lab(path: Path) -> tuple[list[str], NDArray[np.float64], str]:
    """Voxels counted from 1 along x, y, z (as Matlab does), without names, in the order in which they are stored.

    An image whose array was turned around has other indices than its landmarks; docs/registration.md converts without that.
    """
    rows = [line.split() for line in read_document(path, _MOST_BYTES).splitlines() if line.strip()]
    for number, row in enumerate(rows, start=1):
        if len(row) != 3 or not all(cell.isdecimal() and int(cell) > 0 for cell in row):
            raise DatasetError(f"{path}: row {number} is '{printable(' '.join(row)[:60])}'; a .txt of landmarks holds three "
                               "whole numbers a row (DIR-Lab: voxels along x, y, z, from 1). Give other points as .csv with "
                               "named columns",
                               code="E_LANDMARK")
    points = np.array([[float(cell) for cell in row] for row in rows], np.float64).reshape(-1, 3) - 1
    return [str(number) for number in range(1, len(rows) + 1)], points, _VOXELS


def _slicer_fiducials(path: Path) -> tuple[list[str], NDArray[np.float64], str]:
    """Slicer's older files: a head of comments, then rows that may have more cells than the head names."""
    lines = read_document(path, _MOST_BYTES).splitlines()
    head = {key.strip().lower(): value.strip() for key, sign, value in (line.lstrip("# ").partition("=") for line in lines
                                                                       if line.startswith("#")) if sign}
    kind = _slicer_frame(path, head.get("coordinatesystem"))
    columns = head.get("columns", _FCSV_COLUMNS).split(",")
    wanted = [columns.index(name) for name in ("label", "x", "y", "z") if name in columns]
    names, points = [], []
    for number, line in enumerate(lines, start=1):
        cells = line.split(",")
        if line.startswith("#") or not line.strip():
            continue
        if len(wanted) != 4 or len(cells) <= max(wanted):
            raise DatasetError(f"{path}: row {number} does not have the cells {', '.join(columns)}; save it by 3D Slicer again",
                               code="E_LANDMARK")
        names.append(cells[wanted[0]].strip())
        points.append([_number(path, number, cells[place]) for place in wanted[1:]])
    return names, np.array(points, np.float64).reshape(-1, 3), kind


def _slicer_markups(path: Path) -> tuple[list[str], NDArray[np.float64], str]:
    document = read_json(path, most_bytes=_MOST_BYTES)
    lists = document.get("markups") if isinstance(document, dict) else None
    if not isinstance(lists, list) or len(lists) != 1 or not isinstance(lists[0], dict) or lists[0].get("type") not in (
            "Fiducial", "PointList"):
        raise DatasetError(f"{path} is no list of points of 3D Slicer: one entry of type Fiducial under 'markups' is expected; "
                           "save the points alone", code="E_LANDMARK")
    units = lists[0].get("coordinateUnits", "mm")
    if units not in ("mm", ["mm"] * 3):
        raise DatasetError(f"{path}: coordinates are in {json.dumps(units)[:40]}; mm are expected", code="E_LANDMARK")
    names, points = [], []
    for entry in lists[0].get("controlPoints") or []:
        position = entry.get("position") if isinstance(entry, dict) else None
        is_position = isinstance(position, list) and len(position) == 3 and all(
            isinstance(value, (int, float)) and not isinstance(value, bool) for value in position)
        if not is_position or entry.get("positionStatus", "defined") != "defined":
            label = str(entry.get("label", "")) if isinstance(entry, dict) else ""
            raise DatasetError(f"{path}: the point '{printable(label[:40])}' has no position; place it in 3D Slicer, or remove "
                               "it",
                               code="E_LANDMARK")
        names.append(str(entry.get("label", "")).strip())
        points.append(position)
    return names, np.array(points, np.float64).reshape(-1, 3), _slicer_frame(path, lists[0].get("coordinateSystem", "LPS"))


def _slicer_frame(path: Path, said: object) -> str:
    if str(said).upper() not in _SLICER_FRAMES:
        raise DatasetError(f"{path}: its coordinates are in the frame {printable(str(said)[:40])!r}; LPS or RAS is expected. "
                           "Save it by 3D Slicer again", code="E_LANDMARK")
    return _SLICER_FRAMES[str(said).upper()]


def _drawn(path: Path, image: Image) -> tuple[list[str], NDArray[np.float64], str]:
    """The middle of the voxels of each value of a label map on the grid of the image, as indices of the stored file (x, y, z)."""
    from scipy import ndimage

    label = image.orientation.undo(read_label_map(path, reference=image.geometry).voxels)[0]
    values = [int(value) for value in np.unique(label) if value]
    points = []
    for value in values:
        where = np.argwhere(label == value)
        first, last = where.min(axis=0), where.max(axis=0) + 1
        part = label[tuple(slice(*extent) for extent in zip(first, last, strict=True))] == value
        if ndimage.label(part, np.ones((3, 3, 3)))[1] > 1:
            raise DatasetError(f"{path}: value {value} stands in several places; a landmark is one voxel, or a few that touch. "
                               "Is it a label map?", code="E_LANDMARK")
        points.append(where.mean(axis=0)[::-1])
    return [str(value) for value in values], np.array(points, np.float64).reshape(-1, 3), _VOXELS


def _world(points: NDArray[np.float64], kind: str, image: Image) -> NDArray[np.float64]:
    """Points (n, 3) in x, y, z of a frame as (S, P, L)."""
    if kind == _VOXELS:
        lattice = image.stored.matrix()
        return points[:, ::-1] @ lattice[:, :3].T + lattice[:, 3]
    return points[:, ::-1] * ((1.0, -1.0, -1.0) if kind == _RAS else (1.0, 1.0, 1.0))


def _require_numbers(path: Path, names: Sequence[str], points: NDArray[np.float64]) -> None:
    wrong = [name for name, point in zip(names, points, strict=True) if not np.isfinite(point).all()]
    if wrong:
        raise DatasetError(f"{path}: {_listed(wrong)} {'has' if len(wrong) == 1 else 'have'} a coordinate that is no finite "
                           "number; correct it, or remove the landmark from both images", code="E_LANDMARK")


def _require_inside(path: Path, names: Sequence[str], world: NDArray[np.float64], image: Image) -> None:
    lattice = image.geometry.matrix()
    index = (world - lattice[:, 3]) @ np.linalg.inv(lattice[:, :3]).T
    outside: NDArray[np.bool_] = np.any((index < -0.5) | (index > np.array(image.geometry.shape) - 0.5), axis=1)
    if outside.any():
        first = int(np.flatnonzero(outside)[0])
        place, voxel = ([round(float(value), 1) for value in values] for values in (world[first], index[first]))
        raise DatasetError(f"{path}: {_listed([name for name, out in zip(names, outside, strict=True) if out])} of {len(names)} "
                           f"landmarks outside the image; {names[first]} at {place} mm (superior, posterior, left) would be "
                           f"voxel {voxel} of {image.geometry.shape} (z, y, x). Are axes, signs and unit those that the file "
                           "says?",
                           code="E_LANDMARK_OUTSIDE")


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(printable(name[:40]) for name in names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
