"""Cases (files of one examination) and units (what one sample is)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Case:
    """Files of one examination.

    Attributes:
        id: unique in the dataset, safe as a file name.
        group: the patient (or animal, phantom); folds never divide a group.
        inputs: role -> one path per channel, in the order of the specification.
        targets: role -> path; empty for cases without a reference.
        site, date: where and when, if the specification says how to know.
        stratum: folds receive cases of one stratum evenly; None: the dataset has no such column.
        values: what the table and the named parts of the paths say of the case, as written, by column or part.
    """

    id: str
    group: str
    inputs: dict[str, tuple[Path, ...]]
    targets: dict[str, Path] = field(default_factory=dict)
    site: str | None = None
    date: str | None = None
    stratum: str | None = None
    values: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Unit:
    """What one sample is: a case, a pair of cases, an image with its text.

    Attributes:
        id: unique among the units of a dataset.
        cases: what it is made of.
        group: the patient; units of one group always share a fold.
        stratum: units of one stratum are spread evenly over the folds; None: not stratified.
        labelled: something is known of its truth; None: its cases' target files tell.
    """

    id: str
    cases: tuple[Case, ...]
    group: str
    stratum: str | None = None
    labelled: bool | None = None

    @property
    def has_reference(self) -> bool:
        """Its truth is known, at least in part; nothing is read."""
        return any(case.targets for case in self.cases) if self.labelled is None else self.labelled


def single_units(units: Iterable[Unit]) -> tuple[Unit, ...]:
    """Every case of the units as a unit of its own, once, in the order in which they come."""
    cases = {case.id: case for unit in units for case in unit.cases}
    return tuple(Unit(case.id, (case,), case.group, case.stratum) for case in cases.values())
