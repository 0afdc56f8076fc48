"""Scores of units, their summary with intervals, and what failed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

# Scores by name, `<label>.<metric>` (`Anterior.dice`); nan: not defined for this unit.
Scores: TypeAlias = dict[str, float]


@dataclass(frozen=True)
class Record:
    """Scores of one unit.

    Attributes:
        group: the patient; empty: not known, the unit counts as its own.
    """

    unit: str
    scores: Scores
    group: str = ""

    @property
    def patient(self) -> str:
        return self.group or self.unit


@dataclass(frozen=True)
class Estimate:
    """A mean over units, or another score of all of them, with its 95 % interval.

    Attributes:
        count: units for which the score is defined.
        undefined: units for which it is not (both masks empty, for example).
        groups: patients that these units come from, where some have several; the interval is then over patients. 0: every
            unit is a patient of its own.
    """

    mean: float
    median: float
    lower: float
    upper: float
    count: int
    undefined: int = 0
    groups: int = 0


@dataclass(frozen=True)
class Failure:
    """A unit that was refused or failed, with the stable code of the reason."""

    unit: str
    code: str
    message: str


@dataclass(frozen=True)
class Report:
    """Per-unit records, summary with intervals, failures and refusals.

    Attributes:
        per_patient: the summary where each patient counts once, with the mean of its units; empty where no patient has
            several.
    """

    records: tuple[Record, ...]
    summary: dict[str, Estimate]
    failures: tuple[Failure, ...] = ()
    notes: dict[str, str] = field(default_factory=dict)
    per_patient: dict[str, Estimate] = field(default_factory=dict)
