"""The cheap model on the same folds; the report shows it beside the network, always."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoseg.core.case import Unit
from autoseg.core.progress import Progress
from autoseg.core.report import Record, Report
from autoseg.core.spec import DatasetSpec
from autoseg.core.task import Arrays, Inputs, Task
from autoseg.io.arrays import read_arrays, write_arrays
from autoseg.io.atomic import hash_values
from autoseg.io.bundles import BASELINE
from autoseg.io.done import is_done, mark_done
from autoseg.io.values import read_value, write_value
from autoseg.planning.splits import Fold
from autoseg.stages.prepare import read_inputs
from autoseg.stages.summary import make_report
from autoseg.training.loop import Interrupted

# Raised whenever a task's baseline would score differently on the same data, or other files are kept of it.
BASELINE_RULES = 2


@dataclass(frozen=True)
class BaselineRun:
    """The cheap model of one fold.

    Attributes:
        units: all units by id.
        measured: digest of the fingerprint.
        folder: receives `baseline.safetensors`, `summary.json` and `done.json`.
    """

    task: Task
    spec: DatasetSpec
    units: Mapping[str, Unit]
    fold: Fold
    measured: str
    folder: Path
    seed: int

    def inputs_hash(self) -> str:
        """Digest of all that decides the model and its scores."""
        return hash_values(BASELINE_RULES, self.spec, self.fold, self.measured, self.seed)

    @property
    def is_finished(self) -> bool:
        return is_done(self.folder, self.inputs_hash())

    def arrays(self) -> Arrays:
        """The finished model."""
        return read_arrays(self.folder / BASELINE)


def run_baseline(run: BaselineRun, *, progress: Progress, should_stop: Callable[[], bool]) -> Report:
    """Scores of the task's baseline, fitted on the fold's training units, on its validation units.

    Raises:
        Interrupted: `should_stop` said so between two cases; the baseline takes seconds and begins anew.
    """
    if run.is_finished:
        return read_value(run.folder / "summary.json", Report)
    rng = generator(run.seed, run.fold.train)
    total = len(run.fold.train) + len(run.fold.validation)
    arrays = fit(run, run.fold.train, rng, lambda done, name: progress("baseline", done, total, name), should_stop)
    records = []
    for place, name in enumerate(run.fold.validation):
        _stop_if_asked(should_stop)
        images = read_inputs(run.units[name], run.spec)
        target = run.task.read_target(run.units[name], run.spec)
        prediction = run.task.apply_baseline(arrays, images, run.spec)
        records.append(Record(name, run.task.score(prediction, target, run.spec, next(iter(images.values()))),
                              run.units[name].group))
        progress("baseline", len(run.fold.train) + place + 1, total, name)
    report = make_report(run.task, records, rng)
    write_arrays(run.folder / BASELINE, arrays)
    write_value(run.folder / "summary.json", report)
    mark_done(run.folder, run.inputs_hash(), [run.folder / BASELINE, run.folder / "summary.json"])
    return report


def fit(run: BaselineRun, names: Sequence[str], rng: np.random.Generator, tell: Callable[[int, str], None],
        should_stop: Callable[[], bool] = lambda: False) -> Arrays:
    """The task's baseline fitted on the units called `names`; `tell` hears how many of them were read."""
    return run.task.fit_baseline(Samples(run, names, tell, should_stop), run.spec, rng)


@dataclass(frozen=True)
class Samples:
    """Units with their images and targets, read one after the other, as often as they are gone through."""

    run: BaselineRun
    names: Sequence[str]
    tell: Callable[[int, str], None]
    should_stop: Callable[[], bool]

    def __iter__(self) -> Iterator[tuple[Unit, Inputs, object]]:
        run = self.run
        for place, name in enumerate(self.names):
            _stop_if_asked(self.should_stop)
            self.tell(place + 1, name)
            yield run.units[name], read_inputs(run.units[name], run.spec), run.task.read_target(run.units[name], run.spec)


def generator(seed: int, names: Sequence[str]) -> np.random.Generator:
    """The random numbers that a baseline is fitted with on these units."""
    return np.random.default_rng([seed, len(names)])


def _stop_if_asked(should_stop: Callable[[], bool]) -> None:
    if should_stop():
        raise Interrupted("stopped while the baseline was fitted", hint="the same command goes on from there")
