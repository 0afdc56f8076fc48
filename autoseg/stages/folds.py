"""`splits.json`: the folds of a dataset, made once and obeyed where somebody edited them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from autoseg.core.case import Unit, single_units
from autoseg.core.errors import DatasetError
from autoseg.io.atomic import hash_values
from autoseg.io.values import read_value, write_value
from autoseg.planning.splits import Fold, crosses_patients, make_folds, patients_of, together


@dataclass(frozen=True)
class Splits:
    """`splits.json`: unit ids of every fold, and the digest of the folds as they were made."""

    folds: tuple[Fold, ...]
    generated: str = ""

    @property
    def is_generated(self) -> bool:
        """Nobody edited the folds."""
        return hash_values(self.folds) == self.generated

    def divides(self, units: Sequence[Unit]) -> bool:
        """Some fold trains on a patient whom it validates, too."""
        patients = patients_of(units)
        sides = [[{patient for name in part for patient in patients[name]} for part in (fold.train, fold.validation)]
                 for fold in self.folds]
        return any(trained & validated for trained, validated in sides)

    def covers(self, units: Sequence[Unit]) -> bool:
        """Every fold holds each unit once, or not at all where the unit has patients on both sides of it."""
        patients = patients_of(units)
        return bool(self.folds) and all(_is_covered(fold, patients) for fold in self.folds)


def _is_covered(fold: Fold, patients: Mapping[str, frozenset[str]]) -> bool:
    held = (*fold.train, *fold.validation)
    if len(set(held)) < len(held) or not set(held) <= set(patients):
        return False
    sides = [{patient for name in part for patient in patients[name]} for part in (fold.train, fold.validation)]
    return all(len(patients[name]) > 1 and not any(patients[name] <= side for side in sides)
               for name in set(patients) - set(held))


def copied_units(units: Sequence[Unit], copies: Sequence[Sequence[str]]) -> tuple[tuple[str, ...], ...]:
    """Sets of units that hold copies of one image; `copies` are sets of cases."""
    holders: dict[str, list[str]] = {}
    for unit in units:
        for case in unit.cases:
            holders.setdefault(case.id, []).append(unit.id)
    sets = (tuple(dict.fromkeys(holder for name in names for holder in holders.get(name, ()))) for names in copies)
    return tuple(found for found in sets if len(found) > 1)


def joined_by_copies(units: Sequence[Unit], copies: Sequence[Sequence[str]]) -> tuple[Unit, ...]:
    """The units with those patients as one of whom there are copies of one image; `copies` are sets of cases."""
    if not crosses_patients(units):
        return together(units, copied_units(units, copies))
    groups = {unit.id: unit.group for unit in together(single_units(units), copies)}
    return tuple(replace(unit, group=groups[unit.cases[0].id],
                         cases=tuple(replace(case, group=groups[case.id]) for case in unit.cases)) for unit in units)


def dataset_folds(path: Path, units: Sequence[Unit], copies: Sequence[Sequence[str]]) -> tuple[Fold, ...]:
    """The folds in `path`, which may be edited.

    A file that nobody edited is made anew when cases came or went, or when it divides a patient (the grouping was changed
    since) or copies of one image; none where all cases are of one patient, or where no unit would be left to train on or to
    validate.

    Args:
        copies: sets of cases with the same image.
    Raises:
        DatasetError: an edited file and the cases do not fit each other.
    """
    joined = joined_by_copies(units, copies)
    stored = read_value(path, Splits) if path.exists() else None
    covers = stored is not None and stored.covers(units)
    if stored is not None and covers and not (stored.is_generated and stored.divides(joined)):
        return stored.folds
    if stored is not None and not stored.is_generated:
        raise DatasetError(f"{path} was edited and does not fit the {len(units)} cases: every fold must hold each case once, in "
                           "train or in validation" + (", or neither where its patients are on both sides"
                                                       if crosses_patients(units) else ""), code="E_FOLDS",
                           hint="correct the file, or delete it to have it made anew")
    several = crosses_patients(joined) or len({unit.group for unit in joined}) > 1
    folds = make_folds(joined) if several else ()
    write_value(path, Splits(folds, hash_values(folds)))
    return folds


def _patients(units: Sequence[Unit]) -> list[list[str]]:
    """Ids of the units of each patient that has several."""
    found: dict[str, list[str]] = {}
    for unit in units:
        found.setdefault(unit.group, []).append(unit.id)
    return [names for names in found.values() if len(names) > 1]
