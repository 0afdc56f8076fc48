"""`splits.json`: the folds of a dataset, made once and obeyed where somebody edited them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autoseg.core.case import Unit
from autoseg.core.errors import DatasetError
from autoseg.io.atomic import hash_values
from autoseg.io.values import read_value, write_value
from autoseg.planning.splits import Fold, make_folds, together


@dataclass(frozen=True)
class Splits:
    """`splits.json`: unit ids of every fold, and the digest of the folds as they were made."""

    folds: tuple[Fold, ...]
    generated: str = ""

    @property
    def is_generated(self) -> bool:
        """Nobody edited the folds."""
        return hash_values(self.folds) == self.generated

    def divides(self, sets: Sequence[Sequence[str]]) -> bool:
        """Some units of a set are trained on while others of it are validated."""
        parts = [(set(fold.train), set(fold.validation)) for fold in self.folds]
        return any(not train.isdisjoint(names) and not validation.isdisjoint(names)
                   for train, validation in parts for names in sets)

    def covers(self, ids: set[str]) -> bool:
        """Every fold holds each of the ids once."""
        return bool(self.folds) and all(
            sorted((*fold.train, *fold.validation)) == sorted(ids) for fold in self.folds)


def copied_units(units: Sequence[Unit], copies: Sequence[Sequence[str]]) -> tuple[tuple[str, ...], ...]:
    """Sets of units that hold copies of one image; `copies` are sets of cases."""
    holders: dict[str, list[str]] = {}
    for unit in units:
        for case in unit.cases:
            holders.setdefault(case.id, []).append(unit.id)
    sets = (tuple(dict.fromkeys(holder for name in names for holder in holders.get(name, ()))) for names in copies)
    return tuple(found for found in sets if len(found) > 1)


def dataset_folds(path: Path, units: Sequence[Unit], copies: Sequence[Sequence[str]]) -> tuple[Fold, ...]:
    """The folds in `path`, which may be edited.

    A file that nobody edited is made anew when cases came or went, or when it divides a patient (the grouping was changed
    since) or copies of one image; none where all cases are of one patient.

    Raises:
        DatasetError: an edited file and the cases do not fit each other.
    """
    stored = read_value(path, Splits) if path.exists() else None
    covers = stored is not None and stored.covers({unit.id for unit in units})
    if stored is not None and covers and not (stored.is_generated and stored.divides([*copies, *_patients(units)])):
        return stored.folds
    if stored is not None and not stored.is_generated:
        raise DatasetError(f"{path} was edited and does not fit the {len(units)} cases: every fold must hold each case once, in "
                           "train or in validation", code="E_FOLDS",
                           hint="correct the file, or delete it to have it made anew")
    joined = together(units, copies)
    folds = make_folds(joined) if len({unit.group for unit in joined}) > 1 else ()
    write_value(path, Splits(folds, hash_values(folds)))
    return folds


def _patients(units: Sequence[Unit]) -> list[list[str]]:
    """Ids of the units of each patient that has several."""
    found: dict[str, list[str]] = {}
    for unit in units:
        found.setdefault(unit.group, []).append(unit.id)
    return [names for names in found.values() if len(names) > 1]
