"""Cases that are entries of arrays in a `.npz` file: `pneumoniamnist.npz/{split}_images/{index}`, as MedMNIST has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autoseg.core.errors import ReadError
from autoseg.core.spec import LayoutSpec
from autoseg.core.text import has_control_characters
from autoseg.io.npz import ARCHIVE_ENDING, arrays_text, entry_names, read_headers, read_values, require_array
from autoseg.io.patterns import filled, match_whole, pattern_regex


@dataclass(frozen=True)
class Entries:
    """What a layout finds in the archives of a folder.

    Attributes:
        values: name of an entry -> its rows in other arrays, by value and as text; names in the order of the arrays.
        archives: names of the archives, whose entries take their place.
        unused: arrays that are neither images nor values.
    """

    values: dict[str, Mapping[str, str]] = field(default_factory=dict)
    archives: frozenset[str] = frozenset()
    unused: tuple[str, ...] = ()


def list_entries(layout: LayoutSpec, folder: Path, names: Sequence[str]) -> Entries:
    """Entries of the archives among `names` that a layout speaks of; other archives are not opened.

    Raises:
        ReadError: an archive cannot be read, or an array of values is missing or has another length than its images.
    """
    patterns = [pattern for pattern in layout.patterns if f"{ARCHIVE_ENDING}/" in pattern]
    values: dict[str, Mapping[str, str]] = {}
    archives, unused = [], []
    for name in names if patterns else ():
        fitting = [pattern for pattern in patterns if match_whole(pattern_regex(_archive_part(pattern)), name)]
        if not fitting:
            continue
        found, used = _entries_of(folder / name, name, fitting, layout.arrays)
        values |= found
        archives.append(name)
        unused += [f"{name}/{array}" for array in read_headers(folder / name) if array not in used]
    return Entries(values, frozenset(archives), tuple(unused))


def _archive_part(pattern: str) -> str:
    return pattern[:pattern.index(f"{ARCHIVE_ENDING}/") + len(ARCHIVE_ENDING)]


def _entries_of(archive: Path, name: str, patterns: Sequence[str],
                wanted: Mapping[str, str]) -> tuple[dict[str, Mapping[str, str]], set[str]]:
    """Values by name of every entry that a pattern matches, and the arrays that were used."""
    found: dict[str, Mapping[str, str]] = {}
    used = set()
    for array in read_headers(archive):
        match = next((match for pattern in patterns if (match := match_whole(pattern_regex(pattern), f"{name}/{array}/000000"))),
                     None)
        if match is None:
            continue
        header = require_array(archive, array)
        beside = {value: filled(template, match) for value, template in wanted.items()}
        rows = _rows(archive, array, header.shape[0], beside)
        used |= {array, *beside.values()}
        found |= {f"{name}/{entry}": row for entry, row in zip(entry_names(array, header), rows, strict=True)}
    if not found:
        raise ReadError(f"{archive} has no array that fits {', '.join(patterns)}; it has {arrays_text(archive)}", code="E_ARRAY")
    return found, used


def _rows(archive: Path, array: str, count: int, beside: Mapping[str, str]) -> list[Mapping[str, str]]:
    """The rows of other arrays that belong to each of `count` entries; equal ones are one object."""
    columns: dict[str, list[str]] = {}
    for value, other in beside.items():
        numbers = read_values(archive, other)
        if len(numbers) != count:
            raise ReadError(f"{archive}: array {array} has {count} entries and {other} has {len(numbers)} rows; one row for each "
                            "entry is expected. Download the file again, or correct `arrays` in the specification",
                            code="E_ARRAY")
        if numbers.ndim > 2:
            raise ReadError(f"{archive}: array {other} has shape {numbers.shape}; a number or a row of numbers per entry is "
                            "expected", code="E_ARRAY")
        columns |= _columns(archive, value, other, numbers.reshape(count, -1))
    shared: dict[tuple[str, ...], Mapping[str, str]] = {}
    cells = zip(*columns.values(), strict=True) if columns else iter([()] * count)
    return [shared.setdefault(row, dict(zip(columns, row, strict=True))) for row in cells]


def _columns(archive: Path, value: str, other: str, numbers: NDArray) -> dict[str, list[str]]:
    """Columns of texts: `label` of one number per entry, `label.0`, `label.1` of several."""
    if numbers.dtype.kind == "b":
        numbers = numbers.astype(np.uint8)
    if numbers.dtype.kind == "S":
        numbers = np.char.decode(numbers, "latin-1")
    names = [value] if numbers.shape[1] == 1 else [f"{value}.{place}" for place in range(numbers.shape[1])]
    columns = {name: [str(cell) for cell in column.tolist()] for name, column in zip(names, numbers.T, strict=True)}
    if numbers.dtype.kind in "US" and any(has_control_characters(cell) for column in columns.values() for cell in set(column)):
        raise ReadError(f"{archive}: array {other} holds texts with control characters; remove them", code="E_ARRAY")
    return columns
