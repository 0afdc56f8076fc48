"""The tables of the report: scores beside the baseline, per case and per patient, short enough to be read."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from autoseg.core.report import Record
from autoseg.core.task import Task
from autoseg.metrics.bootstrap import bootstrap_mean
from autoseg.metrics.patients import has_groups, patient_records
from autoseg.reporting.numbers import counted, score
from autoseg.reporting.page import CaseRow, HeadlineRow
from autoseg.stages.summary import per_patient

# Measures that stand in the headline table where a task has them, in this order; volumes are in the table of cases.
LEADING_METRICS = ("dice", "iou", "surface_dice", "hd95_mm", "lesion_dice", "lesion_hd95_mm")
# Rows and columns that a reader can take in at once: about the height of a screen, and the width of the page.
MAIN_ROWS, CASE_COLUMNS = 24, 12


@dataclass(frozen=True)
class Scored:
    """Validation records of the model, and of the baseline on the same cases.

    Attributes:
        records: one per unit.
        baseline: by unit.
    """

    task: Task
    records: tuple[Record, ...]
    baseline: Mapping[str, Record]

    @cached_property
    def parts(self) -> list[str]:
        """What is scored (labels), the headline's part first."""
        names = self.records[0].scores if self.records else {}
        return list(dict.fromkeys([self.task.headline.rpartition(".")[0], *(name.rpartition(".")[0] for name in names)]))

    @cached_property
    def metrics(self) -> list[str]:
        """The measures shown, the headline's first."""
        names = self.records[0].scores if self.records else {}
        found = dict.fromkeys([self.headline_metric, *(name.rpartition(".")[2] for name in names)])
        leading = [metric for metric in LEADING_METRICS if metric in found]
        return list(dict.fromkeys([self.headline_metric, *(leading or found)]))

    @property
    def headline_metric(self) -> str:
        return self.task.headline.rpartition(".")[2]

    @property
    def columns(self) -> list[str]:
        """Names of the scores shown, part by part."""
        present = self.records[0].scores if self.records else {}
        return [f"{part}.{metric}" for part in self.parts for metric in self.metrics if f"{part}.{metric}" in present]

    def headline_of(self, record: Record | None) -> float:
        return score_of(record, self.task.headline)


def score_of(record: Record | None, name: str) -> float:
    """A score, nan where there is none."""
    return math.nan if record is None else record.scores.get(name, math.nan)


def headline_rows(scored: Scored, rng: np.random.Generator) -> tuple[tuple[HeadlineRow, ...], tuple[HeadlineRow, ...]]:
    """Rows of the table of metrics, and those that are folded away where there are more than `MAIN_ROWS`.

    The headline's metric of every part and all metrics of the headline's part stay.
    """
    if not scored.records:
        return (), ()
    model = scored.task.summarise(scored.records, rng)
    cheap = scored.task.summarise(list(scored.baseline.values()), rng) if scored.baseline else {}
    patients = per_patient(scored.task, scored.records, rng)
    groups = [record.patient for record in scored.records]
    rows = []
    for column in scored.columns:
        part, _, metric = column.rpartition(".")
        paired = [_difference(record, scored.baseline.get(record.unit), column) for record in scored.records]
        rows.append(HeadlineRow(part, metric, model[column], cheap.get(column),
                                bootstrap_mean(paired, rng, groups=groups) if cheap else None, patients.get(column)))
    if len(rows) <= MAIN_ROWS:
        return tuple(rows), ()
    main = tuple(row for row in rows if row.metric == scored.headline_metric or row.label == scored.parts[0])
    return main, tuple(rows)


def _difference(record: Record, other: Record | None, name: str) -> float:
    value = score_of(record, name) - score_of(other, name)
    return value if math.isfinite(value) else math.nan


def case_columns(scored: Scored) -> list[str]:
    """Scores beside the headline in the table of cases: all of them, or the headline's metric of every part, or else only
    the headline's part, so that at most `CASE_COLUMNS` stand there."""
    everything = [column for column in scored.columns if column != scored.task.headline]
    of_parts = [column for column in everything if column.rpartition(".")[2] == scored.headline_metric]
    of_whole = [column for column in everything if column.rpartition(".")[0] == scored.parts[0]]
    return next((columns for columns in (everything, of_parts) if len(columns) <= CASE_COLUMNS), of_whole)


def case_rows(scored: Scored) -> tuple[CaseRow, ...]:
    """One row per case, with its patient where some have several, and its worst part where not all have a column."""
    grouped = has_groups(scored.records)
    return tuple(_row(scored, record, f"patient {record.patient}" if grouped else "") for record in scored.records)


def patient_rows(scored: Scored) -> tuple[CaseRow, ...]:
    """One row per patient, the means of its cases; none where no patient has several."""
    if not has_groups(scored.records):
        return ()
    counts = Counter(record.patient for record in scored.records)
    return tuple(_row(scored, record, counted(counts[record.unit], "case")) for record in patient_records(scored.records))


def _row(scored: Scored, record: Record, remark: str) -> CaseRow:
    columns = case_columns(scored)
    of_parts = [f"{part}.{scored.headline_metric}" for part in scored.parts[1:]]
    known = [name for name in of_parts if not math.isnan(score_of(record, name))]
    remarks = [remark] if remark else []
    if known and not set(of_parts) <= set(columns):
        worst = min(known, key=lambda name: record.scores[name])
        remarks.append(f"lowest: {worst.rpartition('.')[0]} {score(record.scores[worst])}")
    return CaseRow(record.unit, scored.headline_of(record), tuple(score_of(record, column) for column in columns),
                   ", ".join(remarks))
