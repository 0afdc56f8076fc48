"""Folds of cross-validation: nnU-Net's where every unit is its own patient, else grouped and stratified."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from autoseg.core.case import Unit
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

    Raises:
        DatasetError: fewer than two patients.
    """
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


def _fold(units: Sequence[Unit], validation: NDArray[np.intp]) -> Fold:
    chosen = set(int(place) for place in validation)
    return Fold(tuple(unit.id for place, unit in enumerate(units) if place not in chosen),
                tuple(units[place].id for place in sorted(chosen)))
