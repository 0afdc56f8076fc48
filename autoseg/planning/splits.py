"""Folds of cross-validation: nnU-Net's where every unit is its own patient, else grouped and stratified.

Units of several patients (pairs of images) follow their cases: folds are made of the patients, and a unit that has patients on
both sides of a fold belongs to neither of them.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from autoseg.core.case import Case, Unit, single_units
from autoseg.core.errors import DatasetError

# nnU-Net 2.8.1, utilities/crossval_split.py.
FOLDS = 5
SEED = 12345


@dataclass(frozen=True)
class Fold:
    """Ids of the units to train on and to validate on, each sorted."""

    train: tuple[str, ...]
    validation: tuple[str, ...]


def make_folds(units: Sequence[Unit], *, count: int = FOLDS, seed: int = SEED) -> tuple[Fold, ...]:
    """`count` folds whose validation parts divide the units; units of one group are never on both sides.

    Without patients and strata: KFold over sorted ids, the very folds of nnU-Net. With patients: whole patients; with
    strata: each stratum spread evenly. Fewer patients than `count`: one patient is left out per fold.

    Where units have several patients, the folds are those of the cases; a unit whose patients are on both sides of one is in
    neither part of it. As many folds, up to `count`, as have units on both sides; none where not even two do.

    Raises:
        DatasetError: fewer than two patients.
    """
    if crosses_patients(units):
        return _folds_across(units, count, seed)
    ordered = sorted(units, key=lambda unit: unit.id)
    groups = [unit.group for unit in ordered]
    distinct = len(set(groups))
    if distinct < 2:
        raise DatasetError(f"cross-validation needs cases of at least two patients, found {len(ordered)} case(s) of {distinct}; "
                           "add cases, or train one model on all with -f all")
    folds = min(count, distinct)
    if any(unit.stratum is not None for unit in ordered):
        parts = _stratified(ordered, groups, folds, seed)
    elif distinct < len(ordered):
        parts = _grouped(groups, folds, seed)
    else:
        parts = _shuffled(len(ordered), folds, seed)
    return tuple(_fold(ordered, part) for part in parts)


def crosses_patients(units: Sequence[Unit]) -> bool:
    """Whether some unit has cases of several patients."""
    return any(len({case.group for case in unit.cases}) > 1 for unit in units)


def patients_of(units: Sequence[Unit]) -> dict[str, frozenset[str]]:
    """The patients that decide on which side of a fold a unit is, by the unit's id.

    A case that every unit holds (an atlas) decides nothing: it is a part of the task, on both sides of every fold.
    """
    if not crosses_patients(units):
        return {unit.id: frozenset([unit.group]) for unit in units}
    every = {case.id for case in shared_cases(units)}
    return {unit.id: frozenset(case.group for case in unit.cases if case.id not in every) for unit in units}


def shared_cases(units: Sequence[Unit]) -> tuple[Case, ...]:
    """The cases that all units hold beside cases of their own; none of a single unit."""
    if len(units) < 2:
        return ()
    shared = set.intersection(*({case.id for case in unit.cases} for unit in units))
    if any(shared >= {case.id for case in unit.cases} for unit in units):
        return ()
    return tuple(case for case in units[0].cases if case.id in shared)


def together(units: Sequence[Unit], sets: Sequence[Sequence[str]]) -> tuple[Unit, ...]:
    """The units with the groups joined of all that stand in one of `sets` (of ids): copies of one image.

    Joined groups take the name of the first of them; units of a group that no set names stay as they are.
    """
    by_id = {unit.id: unit for unit in units}
    joined = {unit.group: unit.group for unit in units}

    def first(group: str) -> str:
        while joined[group] != group:
            group = joined[group]
        return group

    for ids in sets:
        groups = sorted({first(by_id[name].group) for name in ids if name in by_id})
        for group in groups[1:]:
            joined[group] = groups[0]
    return tuple(replace(unit, group=first(unit.group)) for unit in units)


def _shuffled(size: int, count: int, seed: int) -> Iterator[NDArray[np.intp]]:
    """Positions to validate on per fold, as scikit-learn's KFold(count, shuffle=True, random_state=seed) makes them."""
    order = np.arange(size)
    np.random.RandomState(seed).shuffle(order)  # the legacy generator is part of nnU-Net's folds
    yield from np.array_split(order, count)


def _grouped(groups: Sequence[str], count: int, seed: int) -> Iterator[NDArray[np.intp]]:
    from sklearn.model_selection import GroupKFold  # takes a second to import and most datasets do not need it

    splitter = GroupKFold(count, shuffle=True, random_state=seed)
    return (validation for _, validation in splitter.split(np.zeros(len(groups)), groups=groups))


def _stratified(units: Sequence[Unit], groups: Sequence[str], count: int, seed: int) -> Iterator[NDArray[np.intp]]:
    from sklearn.model_selection import StratifiedGroupKFold

    strata = [unit.stratum or "" for unit in units]
    sizes = Counter(strata)
    if max(sizes.values()) < count:  # no stratum can reach every fold
        return _grouped(groups, count, seed)
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a rare stratum that misses some folds is no news to the user
        parts = [validation for _, validation in splitter.split(np.zeros(len(strata)), strata, groups=groups)]
    return iter(parts) if all(len(part) for part in parts) else _grouped(groups, count, seed)


def _folds_across(units: Sequence[Unit], count: int, seed: int) -> tuple[Fold, ...]:
    """Folds of the patients of all cases, and in each of them the units that are on one side."""
    patients = patients_of(units)
    deciding = set().union(*patients.values())
    cases = [unit for unit in single_units(units) if unit.group in deciding]
    for folds in range(min(count, len(deciding)), 1, -1):
        made = []
        for fold in make_folds(cases, count=folds, seed=seed):
            held_out = {unit.group for unit in cases if unit.id in set(fold.validation)}
            made.append(Fold(tuple(sorted(name for name, found in patients.items() if not found & held_out)),
                             tuple(sorted(name for name, found in patients.items() if found <= held_out))))
        if all(fold.train and fold.validation for fold in made):
            return tuple(made)
    return ()


def _fold(units: Sequence[Unit], validation: NDArray[np.intp]) -> Fold:
    chosen = set(int(place) for place in validation)
    return Fold(tuple(unit.id for place, unit in enumerate(units) if place not in chosen),
                tuple(units[place].id for place in sorted(chosen)))
