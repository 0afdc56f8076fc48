"""The tables of the report: scores beside the baseline, per case and per patient, short enough to be read."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from autoseg.core.report import Estimate, Record
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
    def columns(self) -> list[str]:
        """Names of the scores of a case that are shown, part by part."""
        return shown_names(self.records[0].scores if self.records else (), self.task.case_headline)

    @property
    def of_parts(self) -> list[str]:
        """The case headline's metric of every part (label) that some case has it of."""
        headline = self.task.case_headline
        names = dict.fromkeys(name for record in self.records for name in record.scores)
        return [name for name in names if metric_of(name) == metric_of(headline) and name != headline]

    def headline_of(self, record: Record | None) -> float:
        return score_of(record, self.task.case_headline)


def shown_names(names: Iterable[str], headline: str) -> list[str]:
    """The scores among `names` that are shown, part by part: the headline's part and its measure first.

    Of a part that has leading metrics only these; other parts of the same task may have none (classes beside label maps).
    """
    present = dict.fromkeys(names)
    whole, _, metric = headline.rpartition(".")
    parts = dict.fromkeys([whole, *(name.rpartition(".")[0] for name in present)])
    found = dict.fromkeys([metric, *(metric_of(name) for name in present)])

    def metrics(part: str) -> Iterable[str]:
        leading = [name for name in LEADING_METRICS if f"{part}.{name}" in present]
        return dict.fromkeys([metric, *leading]) if leading else found

    return [f"{part}.{shown}" for part in parts for shown in metrics(part) if f"{part}.{shown}" in present]


def metric_of(name: str) -> str:
    """The measure of a score: `dice` of `mean.dice`."""
    return name.rpartition(".")[2]


def score_of(record: Record | None, name: str) -> float:
    """A score, nan where there is none."""
    return math.nan if record is None else record.scores.get(name, math.nan)


def headline_rows(scored: Scored, rng: np.random.Generator) -> tuple[tuple[HeadlineRow, ...], tuple[HeadlineRow, ...]]:
    """Rows of the table of metrics, and those that are folded away where there are more than `MAIN_ROWS`.

    The headline's metric of every part and all metrics of the headline's part stay. A score that cannot be said of one case
    (an area under a curve) is compared with the baseline's without an interval.
    """
    if not scored.records:
        return (), ()
    model = scored.task.summarise(scored.records, rng)
    cheap = scored.task.summarise(list(scored.baseline.values()), rng) if scored.baseline else {}
    patients = per_patient(scored.task, scored.records, rng)
    whole, _, leading = scored.task.headline.rpartition(".")
    rows = []
    for column in shown_names(model, scored.task.headline):
        part, _, metric = column.rpartition(".")
        rows.append(HeadlineRow(part, metric, model[column], cheap.get(column),
                                _compared(scored, column, model, cheap, rng), patients.get(column)))
    if len(rows) <= MAIN_ROWS:
        return tuple(rows), ()
    main = tuple(row for row in rows if row.metric == leading or row.label == whole)
    return main, tuple(rows)


def _compared(scored: Scored, name: str, model: Mapping[str, Estimate], cheap: Mapping[str, Estimate],
              rng: np.random.Generator) -> Estimate | None:
    """Model minus baseline, paired by case where cases have the score; None where there is no baseline."""
    if name not in cheap:
        return None
    if not any(name in record.scores for record in scored.records):
        difference = model[name].mean - cheap[name].mean
        return Estimate(difference, math.nan, math.nan, math.nan, model[name].count)
    paired = [_difference(record, scored.baseline.get(record.unit), name) for record in scored.records]
    return bootstrap_mean(paired, rng, groups=[record.patient for record in scored.records])


def _difference(record: Record, other: Record | None, name: str) -> float:
    value = score_of(record, name) - score_of(other, name)
    return value if math.isfinite(value) else math.nan


def case_columns(scored: Scored) -> list[str]:
    """Scores beside the headline in the table of cases: all of them, or the headline's metric of every part, or else only
    the headline's part, so that at most `CASE_COLUMNS` stand there."""
    whole, _, metric = scored.task.case_headline.rpartition(".")
    everything = [column for column in scored.columns if column != scored.task.case_headline]
    of_parts = [column for column in everything if metric_of(column) == metric]
    of_whole = [column for column in everything if column.rpartition(".")[0] == whole]
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
    known = [name for name in scored.of_parts if not math.isnan(score_of(record, name))]
    remarks = [remark] if remark else []
    if known and not set(scored.of_parts) <= set(columns):
        worst = min(known, key=lambda name: record.scores[name])
        remarks.append(f"lowest: {worst.rpartition('.')[0]} {score(record.scores[worst])}")
    return CaseRow(record.unit, scored.headline_of(record), tuple(score_of(record, column) for column in columns),
                   ", ".join(remarks))
