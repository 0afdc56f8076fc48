"""What a target is, from the cells of its column: classes, grades, a value, or several labels at once."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING

from autoseg.core.case import Unit
from autoseg.core.errors import DatasetError

if TYPE_CHECKING:
    from autoseg.tasks.classification.spec import TargetOptions

# A column with more distinct cells than max(20, sqrt(cases)) holds values, not classes (docs/classification.md).
MOST_CLASSES = 20
# Scales whose classes have an order, by their names in the field: tumour grade and stage, BI-RADS, Kellgren-Lawrence, Gleason's
# ISUP, PI-RADS, TI-RADS, LI-RADS, Lung-RADS; severity and scores.
ORDINAL = re.compile(r"(^|[^a-z])(grade|stage|severity|score|kl|birads|bi-rads|pirads|pi-rads|tirads|ti-rads|lirads|li-rads|"
                     r"lung-?rads|isup|gleason)([^a-z]|$)")
# The units of a dataset carry what the cells of all of them mean under this name beside their own cells.
MEANING = "(understood)"


class Kind(StrEnum):
    """Kinds of targets."""

    BINARY = "binary"
    MULTICLASS = "multiclass"
    ORDINAL = "ordinal"
    CONTINUOUS = "continuous"
    MULTILABEL = "multilabel"


@dataclass(frozen=True)
class Meaning:
    """How a column is understood.

    Attributes:
        classes: names, in order; of two classes the second is the positive one; none of a continuous target.
        mean, std: of the values of a continuous target, in its own unit; 0 and 1 elsewhere.
        because: the rule that gave the kind, in words with numbers.
    """

    name: str
    kind: Kind
    classes: tuple[str, ...]
    mean: float = 0.0
    std: float = 1.0
    because: str = ""


def cells_of(target: TargetOptions, units: Sequence[Unit]) -> Counter[str]:
    """How many units have each cell, as it stands in the table (spaces around it removed)."""
    return Counter(unit.cases[0].values.get(target.column, "").strip() for unit in units)


def understand(target: TargetOptions, cells: Mapping[str, int]) -> Meaning:
    """What a target is, from the cells of its column with their counts.

    Raises:
        DatasetError: the cells are texts of too many kinds to be classes.
    """
    present = {cell: count for cell, count in cells.items() if not is_missing(cell, target)}
    kind, because = _kind(target, present)
    if kind == Kind.CONTINUOUS:
        return _continuous(target, present, because)
    if kind == Kind.MULTILABEL:
        return Meaning(target.label, kind, _labels(target, present), because=because)
    names = _class_names(target, present)
    if kind == Kind.ORDINAL and target.order:
        names = [_name(name) for name in target.order]
    if kind == Kind.BINARY and len(names) > 2:
        raise DatasetError(f"target {target.label!r} is to be binary, and column {target.column!r} has the classes "
                           f"{', '.join(names)}; correct its kind, or give cells of one class the same name under 'classes'",
                           code="E_TARGET_KIND")
    return Meaning(target.label, kind, tuple(names), because=because)


def is_missing(cell: str, target: TargetOptions) -> bool:
    """Whether a cell says nothing; -1 beside 0 and 1 is judged in `read_cell`, which knows the classes."""
    return cell.strip().casefold() in {entry.strip().casefold() for entry in target.missing}


def read_cell(cell: str | None, target: TargetOptions, meaning: Meaning) -> tuple[float, ...] | None:
    """What a cell says: 0 or 1 per class (several labels: several 1), or the value; None where it is missing.

    Raises:
        DatasetError: the cell is none of the classes, or no number.
    """
    if cell is None or is_missing(cell, target):
        return None
    cell = cell.strip()
    if meaning.kind == Kind.CONTINUOUS:
        return (_number(cell, target),)
    if meaning.kind == Kind.MULTILABEL:
        parts = _parts(cell, target)
        _require_known(parts, target, meaning)
        names = {_class_of(part, target) for part in parts}
        return tuple(float(name in names) for name in meaning.classes)
    name = _class_of(cell, target)
    if name not in meaning.classes:
        if _plain(cell) == "-1" and not target.classes:
            return None
        raise _unknown(cell, target, meaning)
    return tuple(float(name == one) for one in meaning.classes)


def with_meanings(values: Mapping[str, str], meanings: Sequence[Meaning]) -> dict[str, str]:
    """The cells of a case with what the columns mean beside them, but not why: counts in it change with every other case."""
    return {**values, MEANING: _written(tuple(meanings))}


@lru_cache(maxsize=8)
def _written(meanings: tuple[Meaning, ...]) -> str:
    return json.dumps([{name: value for name, value in asdict(meaning).items() if name != "because"} for meaning in meanings],
                      sort_keys=True)


def meanings_in(values: Mapping[str, str]) -> tuple[Meaning, ...]:
    """What `with_meanings` wrote; nothing for cases that have no values."""
    return _read(values.get(MEANING, "[]"))


@lru_cache(maxsize=8)
def _read(text: str) -> tuple[Meaning, ...]:
    return tuple(Meaning(entry["name"], Kind(entry["kind"]), tuple(entry["classes"]), entry["mean"], entry["std"])
                 for entry in json.loads(text))


def _kind(target: TargetOptions, present: Mapping[str, int]) -> tuple[Kind, str]:
    count = sum(present.values())
    distinct = sorted({_class_of(cell, target) for cell in present})
    if target.kind != "auto":
        return Kind(target.kind), f"the specification says that {target.column!r} is {target.kind}"
    if target.separator and any(target.separator in cell for cell in present):
        return Kind.MULTILABEL, f"cells of {target.column!r} hold several labels with {target.separator!r} between them"
    listed = len(set(target.classes.values()))
    numbers = [_plain(cell) for cell in present]
    if not listed and set(numbers) <= {"0", "1", "-1"} and {"0", "1"} & set(numbers):
        return Kind.BINARY, f"cells of {target.column!r} are 0 and 1 in {count} cases" + (
            "; -1 says nothing" if "-1" in numbers else "")
    most = max(MOST_CLASSES, math.isqrt(count))
    whole = all(re.fullmatch(r"-?\d+", cell) for cell in numbers)
    if not listed and not whole and all(_is_number(cell) for cell in numbers) or (whole and not listed and len(distinct) > most):
        return Kind.CONTINUOUS, (f"{len(distinct)} distinct numbers in {count} cases, fractions or more than {most} "
                                 "(max(20, square root of the cases))")
    if not listed and len(distinct) > most:
        raise DatasetError(f"column {target.column!r} holds {len(distinct)} different texts in {count} cases (such as "
                           f"{', '.join(map(repr, distinct[:3]))}), too many to be classes (at most {most}); name another "
                           "column, "
                           "list its classes, or say the separator of several labels", code="E_TARGET_TEXT")
    found = listed or len(distinct)
    if target.order or (found > 2 and ORDINAL.search(f"{target.column} {target.name}".casefold().replace("_", " "))):
        return Kind.ORDINAL, f"{found} classes in {count} cases with an order, by the name {target.column!r}"
    if found <= 2:
        return Kind.BINARY, f"two classes in {count} cases"
    return Kind.MULTICLASS, f"{found} classes in {count} cases, at most {most} (max(20, square root of the cases))"


def _class_names(target: TargetOptions, present: Mapping[str, int]) -> list[str]:
    """Names of the classes in order: as listed, else negative ones first, then by number, else by letter."""
    if target.classes:
        return list(dict.fromkeys(_name(name) for name in target.classes.values()))
    negative = {_plain(cell) for cell in target.negative}
    cells = {_plain(cell) for cell in present}
    if target.kind in ("auto", "binary") and cells <= {"0", "1", "-1"}:
        cells -= {"-1"}
        cells |= {"0", "1"} if cells else set()

    def place(cell: str) -> tuple[bool, bool, float, str]:
        return cell not in negative, not _is_number(cell), float(cell) if _is_number(cell) else 0.0, cell

    ordered = sorted(cells, key=place)
    return list(dict.fromkeys(_name(cell) for cell in ordered))


def _labels(target: TargetOptions, present: Mapping[str, int]) -> tuple[str, ...]:
    """Names of the labels that cells may hold together: as listed, else by letter, those that enough cases have."""
    if target.classes:
        return tuple(dict.fromkeys(_name(name) for cell, name in target.classes.items() if cell not in target.negative))
    return tuple(sorted(name for name, count in label_counts(target, present).items() if count >= target.fewest))


def label_counts(target: TargetOptions, cells: Mapping[str, int]) -> Counter[str]:
    """Cases per label of a target with several labels in a cell, rare ones too."""
    counts: Counter[str] = Counter()
    for cell, count in cells.items():
        if not is_missing(cell, target):
            counts.update(dict.fromkeys({_class_of(part, target) for part in _parts(cell, target)}, count))
    return counts


def _continuous(target: TargetOptions, present: Mapping[str, int], because: str) -> Meaning:
    values = [(_number(cell, target), count) for cell, count in sorted(present.items())]
    total = sum(count for _, count in values)
    mean = math.fsum(value * count for value, count in values) / total if total else 0.0
    variance = math.fsum((value - mean) ** 2 * count for value, count in values) / total if total else 1.0
    return Meaning(target.label, Kind.CONTINUOUS, (), mean, math.sqrt(variance) or 1.0, because)


def _parts(cell: str, target: TargetOptions) -> list[str]:
    parts = [part.strip() for part in (cell.split(target.separator) if target.separator else [cell])]
    negative = {_plain(entry) for entry in target.negative}
    return [part for part in parts if part and _plain(part) not in negative]


def _require_known(parts: Sequence[str], target: TargetOptions, meaning: Meaning) -> None:
    """Labels that are listed must be known; without a list, unknown ones are those that too few cases had."""
    for part in parts:
        if target.classes and _class_of(part, target) not in meaning.classes:
            raise _unknown(part, target, meaning)


def _unknown(cell: str, target: TargetOptions, meaning: Meaning) -> DatasetError:
    return DatasetError(f"{cell!r} in column {target.column!r} is no class of {meaning.name!r}, which knows "
                        f"{', '.join(meaning.classes)}; correct the cell, or add it to the target's classes",
                        code="E_CLASS_UNKNOWN")


def _class_of(cell: str, target: TargetOptions) -> str:
    """Name of the class that a cell stands for."""
    plain = {_plain(written): name for written, name in target.classes.items()}
    return _name(plain.get(_plain(cell), _plain(cell)))


def _name(text: str) -> str:
    """A name in scores, whose parts are separated by dots."""
    return text.strip().replace(".", "_")


def _plain(cell: str) -> str:
    """A cell without spaces around it; whole numbers without a fraction (1.0 is 1)."""
    cell = cell.strip()
    if _is_number(cell) and float(cell).is_integer():
        return str(int(float(cell)))
    return cell


def _is_number(cell: str) -> bool:
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False


def _number(cell: str, target: TargetOptions) -> float:
    if not _is_number(cell):
        raise DatasetError(f"{cell!r} in column {target.column!r} is no number, and the target is continuous; correct the cell, "
                           "or list it as missing", code="E_CLASS_UNKNOWN")
    return float(cell)
