"""Scores what a task compares: predictions in a folder against references."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from autoseg.core.errors import AutosegError
from autoseg.core.progress import Progress
from autoseg.core.report import Failure, Record, Report
from autoseg.core.spec import DatasetSpec
from autoseg.core.task import Task
from autoseg.stages.summary import make_report

# Resampling of the bootstrap only; a fixed stream makes the same folders give the same interval.
EVALUATION_SEED = 0


def run_evaluate(task: Task, spec: DatasetSpec, predictions: Path, references: Path, *, progress: Progress) -> Report:
    """Scores of every reference; a prediction that is missing, unreadable or does not fit is listed as a failure.

    Raises:
        DatasetError: there is no reference at all, or no prediction for any of them.
    """
    compared = task.compare(predictions, references, spec)
    records, failures = [], []
    for place, pair in enumerate(compared):
        try:
            records.append(Record(pair.unit, pair.score(), pair.group))
        except AutosegError as error:
            failures.append(Failure(pair.unit, error.code, str(error)))
        progress("evaluate", place + 1, len(compared), pair.unit)
    return make_report(task, records, np.random.default_rng(EVALUATION_SEED), failures)
