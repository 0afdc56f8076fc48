"""The cheap model on the same folds; the report shows it beside the network, always."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from autoseg.core.case import Unit
from autoseg.core.progress import Progress
from autoseg.core.report import Record, Report
from autoseg.core.spec import DatasetSpec
from autoseg.core.task import Inputs, Task
from autoseg.io.atomic import hash_values
from autoseg.io.done import is_done, mark_done
from autoseg.io.values import read_value, write_value
from autoseg.planning.splits import Fold
from autoseg.stages.prepare import read_inputs
from autoseg.stages.summary import make_report
from autoseg.training.loop import Interrupted

# Raised whenever a task's baseline would score differently on the same data.
BASELINE_RULES = 1


def run_baseline(task: Task, spec: DatasetSpec, units: Mapping[str, Unit], fold: Fold, fingerprint_hash: str,
                 folder: Path, *, seed: int, progress: Progress, should_stop: Callable[[], bool]) -> Report:
    """Scores of the task's baseline, fitted on the fold's training units, on its validation units.

    Raises:
        Interrupted: `should_stop` said so between two cases; the baseline takes seconds and begins anew.
    """
    inputs = hash_values(BASELINE_RULES, spec, fold, fingerprint_hash, seed)
    if is_done(folder, inputs):
        return read_value(folder / "summary.json", Report)
    rng = np.random.default_rng([seed, len(fold.train)])
    total = len(fold.train) + len(fold.validation)

    def samples() -> Iterator[tuple[Unit, Inputs, object]]:
        for place, name in enumerate(fold.train):
            _stop_if_asked(should_stop)
            progress("baseline", place + 1, total, name)
            yield units[name], read_inputs(units[name], spec), task.read_target(units[name], spec)

    predict = task.baseline(samples(), spec, rng)
    records = []
    for place, name in enumerate(fold.validation):
        _stop_if_asked(should_stop)
        images = read_inputs(units[name], spec)
        target = task.read_target(units[name], spec)
        scores = task.score(predict(images), target, spec, next(iter(images.values())))
        records.append(Record(name, scores, units[name].group))
        progress("baseline", len(fold.train) + place + 1, total, name)
    report = make_report(task, records, rng)
    write_value(folder / "summary.json", report)
    mark_done(folder, inputs, [folder / "summary.json"])
    return report


def _stop_if_asked(should_stop: Callable[[], bool]) -> None:
    if should_stop():
        raise Interrupted("stopped while the baseline was fitted", hint="the same command goes on from there")
