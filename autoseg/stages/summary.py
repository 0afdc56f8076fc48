"""A report from records: the task's summary over units, and over patients where some have several units."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoseg.core.report import Estimate, Failure, Record, Report
from autoseg.core.task import Task
from autoseg.metrics.patients import has_groups, patient_records


def make_report(task: Task, records: Sequence[Record], rng: np.random.Generator,
                failures: Sequence[Failure] = ()) -> Report:
    """The report of these records; both summaries are empty where there is no record."""
    summary = task.summarise(records, rng) if records else {}
    return Report(tuple(records), summary, tuple(failures), per_patient=per_patient(task, records, rng))


def per_patient(task: Task, records: Sequence[Record], rng: np.random.Generator) -> dict[str, Estimate]:
    """The task's summary of patients, each the mean of its units; empty where no patient has several."""
    return task.summarise(patient_records(records), rng) if has_groups(records) else {}
