"""Trains one fold and validates it on whole cases; resumes after any interruption."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from autoseg.core.case import Unit
from autoseg.core.errors import IncompatibleError
from autoseg.core.plan import Configuration, Plan
from autoseg.core.progress import Progress
from autoseg.core.report import Record, Report
from autoseg.core.spec import DatasetSpec
from autoseg.core.task import CaseStore, Context, Task
from autoseg.inference.engine import in_use
from autoseg.io.atomic import hash_values, sha256_file
from autoseg.io.done import is_done, mark_done
from autoseg.io.images import written_ending
from autoseg.io.values import read_value, write_value
from autoseg.nn.weights import load_start, load_weights, save_weights
from autoseg.planning.splits import Fold
from autoseg.stages.limits import require_space, training_bytes
from autoseg.stages.prepare import read_inputs, stored_inputs, stored_record
from autoseg.stages.summary import make_report
from autoseg.training.device import Stopwatch
from autoseg.training.loader import BatchLoader
from autoseg.training.log import MetricsLog, read_metrics
from autoseg.training.loop import Interrupted, train

log = logging.getLogger(__name__)

# Raised whenever the same plan and data would give other weights.
TRAIN_RULES = 1
# nnU-Net's fold without validation; an index above its five folds keeps the random streams apart.
ALL_FOLD_NUMBER = 5


@dataclass(frozen=True)
class Run:
    """One training run: what to train on which fold, and where it is written.

    Attributes:
        fold_name: `0` to `4`, or `all`.
        units: all units by id.
        sources: digest of the files of each unit, by id: other data make another run.
        plan_folder: where the plan lies, and weights that it starts from.
        folder: receives `checkpoint/`, `metrics.jsonl`, `training/model.safetensors`, `validation/`, `summary.json`, `done.json`.
    """

    task: Task
    spec: DatasetSpec
    plan: Plan
    configuration: Configuration
    fold: Fold
    fold_name: str
    units: Mapping[str, Unit]
    sources: Mapping[str, str]
    store: CaseStore
    folder: Path
    plan_folder: Path = Path()

    @property
    def stream(self) -> tuple[int, int]:
        """Seeds of this run's random numbers: the plan's seed and the fold."""
        return self.plan.seed, ALL_FOLD_NUMBER if self.fold_name == "all" else int(self.fold_name)

    def inputs_hash(self) -> str:
        """Digest of all that decides the weights and the validation scores.

        Predicted seconds decide nothing in a plan without a time budget; in one with, measuring anew gives another length.
        """
        data = [self.sources[name] for name in (*self.fold.train, *self.fold.validation)]
        planned = self.configuration
        if self.plan.budget.minutes is None:
            planned = replace(planned, predicted_seconds=None)
        return hash_values(TRAIN_RULES, self.spec, planned, self.plan.inputs, self.plan.transpose,
                           self.stream, self.fold, data)

    @property
    def checkpoints(self) -> Path:
        """Folder of this run's checkpoints; those of another plan, fold or state of the data lie in another one."""
        return self.folder / "checkpoint" / self.inputs_hash()[:16]


@dataclass(frozen=True)
class DrawBatch:
    """Draws a batch of a run from a seeded generator; can be sent to a worker process."""

    task: Task
    units: tuple[Unit, ...]
    store: CaseStore
    configuration: Configuration

    def __call__(self, rng: np.random.Generator) -> dict:
        return self.task.draw_batch(self.units, self.store, self.configuration, rng)


def run_train(run: Run, *, device: str, workers: int, progress: Progress,
              should_stop: Callable[[], bool]) -> Report:
    """The validation report of a run; trains first what is not trained yet, skips what is done."""
    inputs = run.inputs_hash()
    if is_done(run.folder, inputs):
        return read_value(run.folder / "summary.json", Report)
    weights = run.folder / "training" / "model.safetensors"
    if is_done(run.folder / "training", inputs):
        network = seeded_network(run)
        load_weights(weights, network)
    else:
        network = fresh_network(run)
        needed, largest = training_bytes(run.configuration)
        require_space(run.folder, needed, "the checkpoints of this run", largest_bytes=largest)
        _train_network(run, network, device=device, workers=workers, progress=progress, should_stop=should_stop)
        save_weights(weights, network)
        mark_done(run.folder / "training", inputs, [weights])
    watch = Stopwatch()
    report = validate(run, network, device=device, progress=progress, should_stop=should_stop)
    report = replace(report, notes=_skipped_steps(run.folder / "metrics.jsonl"))
    write_value(run.folder / "summary.json", report)
    write_value(run.folder / "seconds.json", {"validation": round(watch.seconds(), 3)})  # to compare with the plan's
    mark_done(run.folder, inputs, [weights, run.folder / "summary.json"])
    return report


def _skipped_steps(metrics: Path) -> dict[str, str]:
    """A note where steps of training were skipped because a loss or gradient was not finite."""
    last = next(reversed(read_metrics(metrics)), {})
    if not last.get("skipped"):
        return {}
    return {"skipped": f"{last['skipped']} of {last['iteration']} training steps were skipped because a loss or gradient was not "
            "a finite number"}


def fresh_network(run: Run) -> nn.Module:
    """The run's network as its training begins: seeded, then with the weights that the plan starts from, if any.

    Raises:
        IncompatibleError: their file beside the plan is missing or another one, or holds no such weights.
    """
    network, start = seeded_network(run), run.configuration.start
    if start is not None:
        path = run.plan_folder / start.weights
        if not path.is_file() or sha256_file(path) != start.sha256:
            raise IncompatibleError(f"{path}, the weights that the plan {run.plan.name!r} starts from, is missing or another "
                                    "file than was planned with", code="E_START",
                                    hint="put the file back, or plan again with the bundle that it came from")
        taken = load_start(path, network, start)
        log.info("%d tensors start from %s", len(taken), path)
    return network


def seeded_network(run: Run) -> nn.Module:
    """The run's network with weights that depend on its seed and fold only."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(np.random.default_rng([*run.stream, 0]).integers(2**62)))
        return run.task.build_network(run.configuration)


def _train_network(run: Run, network: nn.Module, *, device: str, workers: int, progress: Progress,
                   should_stop: Callable[[], bool]) -> None:
    for other in run.checkpoints.parent.glob("*"):
        if other != run.checkpoints:
            log.warning("%s was trained with another plan, fold or data; training anew", run.folder)
            shutil.rmtree(other)
    draw = DrawBatch(run.task, tuple(run.units[name] for name in run.fold.train), run.store, run.configuration)
    stage = f"train {run.configuration.name} fold {run.fold_name}"

    def tell(done: int, total: int, losses: dict[str, float]) -> None:
        progress(stage, done, total, f"loss {losses['total']:.4f}" if losses else "")

    seed, fold = run.stream
    optimization = run.configuration.optimization
    with BatchLoader(draw, seed=seed, fold=fold, count=optimization.iterations, workers=workers) as loader:
        train(network, run.task.phases(run.configuration), loader, optimization, device=device,
              checkpoint=run.checkpoints, run=run.inputs_hash(), log=MetricsLog(run.folder / "metrics.jsonl"), progress=tell,
              should_stop=should_stop)


def validate(run: Run, network: nn.Module, *, device: str, progress: Progress,
             should_stop: Callable[[], bool]) -> Report:
    """Predicts every validation case of the fold whole and scores it; finished cases are not predicted again.

    Raises:
        Interrupted: `should_stop` said so between two cases.
    """
    context = Context(device=device)
    network = in_use(network, run.configuration.inference, device, context.engine)
    records: list[Record] = []
    for place, name in enumerate(run.fold.validation):
        if should_stop():
            raise Interrupted(f"stopped after {place} of {len(run.fold.validation)} validation cases",
                              hint="the same command goes on from there")
        records.append(validate_unit(run, network, run.units[name], context))
        progress(f"validate {run.configuration.name} fold {run.fold_name}", place + 1, len(run.fold.validation), name)
    rng = np.random.default_rng(run.stream)
    return make_report(run.task, records, rng)


def validate_unit(run: Run, network: nn.Module, unit: Unit, context: Context) -> Record:
    """The scores of one unit, predicted whole and written beside them; those that are there already are read."""
    folder, key = run.folder / "validation", hash_values(run.inputs_hash(), unit.id)
    scored = folder / unit.id
    if is_done(scored, key):
        return read_value(scored / "scores.json", Record)
    prediction = predict_unit(run, network, unit, run.configuration, context)
    inputs = read_inputs(unit, run.spec)
    image = next(iter(inputs.values()))
    path = scored / f"{unit.id}{written_ending(next(iter(unit.cases[0].inputs.values()))[0])}"
    outputs = run.task.write(prediction, run.spec, image, path)
    scores = run.task.score(prediction, run.task.read_target(unit, run.spec), run.spec, image)
    record = Record(unit.id, scores, unit.group)
    write_value(scored / "scores.json", record)
    mark_done(scored, key, [*outputs, scored / "scores.json"])
    return record


def predict_unit(run: Run, network: nn.Module, unit: Unit, configuration: Configuration, context: Context) -> Any:
    """The task's prediction for a unit of preprocessed cases by one network.

    Args:
        configuration: the run's own, or one that differs from it in the rules of inference.
    """
    raw = run.task.infer([network], stored_inputs(run.store, unit, run.plan), configuration, context)
    return run.task.restore(raw, stored_record(run.store, unit), configuration, context)
