"""From scores per unit to scores per patient."""

from __future__ import annotations

import math
from collections.abc import Sequence

from autoseg.core.report import Record


def has_groups(records: Sequence[Record]) -> bool:
    """Whether some patient has several records."""
    return len({record.patient for record in records}) < len(records)


def patient_records(records: Sequence[Record]) -> tuple[Record, ...]:
    """One record per patient: the mean of its units, score by score, over the units for which the score is finite.

    A patient for whom a score is finite in no unit has nan there. Patients come in the order of their first unit.
    """
    found: dict[str, list[Record]] = {}
    for record in records:
        found.setdefault(record.patient, []).append(record)
    names = dict.fromkeys(name for record in records for name in record.scores)
    return tuple(Record(patient, {name: _mean([record.scores.get(name, math.nan) for record in own]) for name in names}, patient)
                 for patient, own in found.items())


def _mean(values: Sequence[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return math.fsum(finite) / len(finite) if finite else math.nan
