"""The training loop: it knows phases, batches and a count of iterations, and nothing of tasks."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from autoseg.core.errors import AutosegError, IncompatibleError, ResourceError
from autoseg.core.plan import Optimization
from autoseg.core.task import Phase
from autoseg.training.checkpoint import Checkpoint, read_newest_checkpoint, write_checkpoint
from autoseg.training.device import Stopwatch
from autoseg.training.log import MetricsLog
from autoseg.training.schedule import learning_rate
from autoseg.training.setbacks import MOST_RESTORES, batch_number, given_up, is_stuck, too_many
from autoseg.training.step import Batch, DivergedError, Stepper

_LOG = logging.getLogger(__name__)

# 2: counts of skipped steps; checkpoints of format 1 have none and are read as they are.
CHECKPOINT_FORMAT = 2


class Interrupted(AutosegError):
    """Training was asked to stop and did, after writing a checkpoint; the same command goes on from there."""

    exit_code = 130
    default_code = "E_INTERRUPTED"


@dataclass(frozen=True)
class TrainingResult:
    """What training did; the network itself was changed in place and holds the final (averaged) weights.

    Attributes:
        iterations: optimisation steps done, over all resumed parts.
        losses: means over the last epoch, by name.
        seconds: drawing batches and optimisation steps, over all parts.
        other_seconds: checkpoints, log and `on_epoch`, over all parts.
        resumed_at: iteration at which this call took up the run; 0 for a fresh start.
        skipped: steps whose loss or gradient was not finite, over all parts.
    """

    iterations: int
    losses: dict[str, float]
    seconds: float
    other_seconds: float
    resumed_at: int
    skipped: int = 0


@dataclass
class _Tally:
    """What the loop counts; saved with every checkpoint.

    Attributes:
        skipped, in_a_row: steps that moved nothing, in all and since the last that did.
        restores: how often the run went back to a checkpoint.
        blamed: skipped batches by the cases that they held.
        cause: of the last skipped step, in words.
    """

    iteration: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    count: int = 0
    last: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    other_seconds: float = 0.0
    skipped: int = 0
    in_a_row: int = 0
    restores: int = 0
    blamed: dict[str, int] = field(default_factory=dict)
    cause: str = ""

    def add(self, losses: dict[str, float], seconds: float) -> None:
        self.iteration += 1
        self.count += 1
        self.in_a_row = 0
        self.seconds += seconds
        self.sums = {name: self.sums.get(name, 0.0) + value for name, value in losses.items()}

    def skip(self, error: DivergedError, seconds: float) -> None:
        """Count a step that moved nothing, with a warning that names its cases."""
        _LOG.warning("%s; the step is skipped (%d so far)", error, self.skipped + 1)
        self.iteration += 1
        self.skipped += 1
        self.in_a_row += 1
        self.seconds += seconds
        self.cause = str(error)
        for name in dict.fromkeys(error.cases):
            self.blamed[name] = self.blamed.get(name, 0) + 1

    def close_epoch(self) -> dict[str, float]:
        self.last = {name: total / self.count for name, total in self.sums.items()}
        self.sums, self.count = {}, 0
        return self.last


def train(
        network: nn.Module, phases: Sequence[Phase], draw: Callable[[int], Batch], optimization: Optimization, *,
        device: str = "cpu", checkpoint: Path | None = None, run: str = "", log: MetricsLog | None = None,
        on_epoch: Callable[[int, nn.Module], dict[str, float] | None] | None = None,
        progress: Callable[[int, int, dict[str, float]], None] | None = None,
        should_stop: Callable[[], bool] = lambda: False,
) -> TrainingResult:
    """Train `network` in place for `optimization.iterations` steps; it ends on `device` with the final weights.

    The run goes on from the newest whole checkpoint, and on the CPU ends with the weights, to the bit, that it would
    have had undisturbed, as long as `draw` depends on the iteration only and the number of threads is the same.

    Args:
        draw: iteration -> batch; entries that are tensors go to the device, `cases` (names) is for error messages.
        device: `cpu` or `cuda[:n]`.
        checkpoint: folder; written at the end of every epoch and when stopped.
        run: digest of all that decides the result; checkpoints of another one are not taken.
        log: receives one record per epoch.
        on_epoch: (epochs done, network with the final kind of weights) -> scores for the log.
        progress: (iterations done, iterations, losses) after every step.
        should_stop: asked before every step.
    Raises:
        DivergedError: a loss or gradient was not finite too often; single such steps are skipped, counted and logged, and
            after many in a row training goes back to the newest checkpoint once. Its cases are named, and weights that are
            not finite are never written.
        Interrupted: `should_stop` said so; a checkpoint was written.
        IncompatibleError: the checkpoint belongs to another plan.
    """
    stepper = Stepper(network, phases, optimization, device=device)
    save = partial(_save, stepper, folder=checkpoint, run=run)
    tally = _resume(stepper, checkpoint, run)
    resumed_at = tally.iteration
    if log is not None:
        log.truncate(tally.iteration)
    stepper.train()
    while tally.iteration < optimization.iterations:
        watch = Stopwatch()
        batch = None if should_stop() else _draw(draw, tally, optimization, should_stop)
        if batch is None:
            save(tally)
            raise Interrupted(f"stopped after {tally.iteration} of {optimization.iterations} iterations",
                              hint="the same command goes on from there")
        losses = _step(stepper, tally, batch, watch)
        if progress is not None:
            progress(tally.iteration, optimization.iterations, losses)
        ends = tally.iteration % optimization.iterations_per_epoch == 0 or tally.iteration == optimization.iterations
        if _is_lost(stepper, tally, ends):
            tally = _go_back(stepper, tally, partial(_resume, stepper, checkpoint, run))
            if log is not None:
                log.truncate(tally.iteration)
        elif ends:
            _end_epoch(stepper, tally, save, log, on_epoch)
    if stepper.average is not None:
        stepper.average.swap()
    return TrainingResult(tally.iteration, tally.last, tally.seconds, tally.other_seconds, resumed_at, tally.skipped)


def _step(stepper: Stepper, tally: _Tally, batch: Batch, watch: Stopwatch) -> dict[str, float]:
    """Losses of the next step; none where it was skipped because they, or a gradient, are not finite."""
    try:
        losses = stepper.step(tally.iteration, batch)
    except DivergedError as error:
        tally.skip(error, watch.seconds())
        return {}
    tally.add(losses, watch.seconds())
    return losses


def _is_lost(stepper: Stepper, tally: _Tally, ends: bool) -> bool:
    """Whether training cannot go on from these weights; before a checkpoint they are looked at themselves."""
    if ends and not stepper.is_finite():
        tally.cause = f"after iteration {tally.iteration} a weight is not a finite number"
        return True
    return bool(tally.in_a_row) and (is_stuck(tally.in_a_row, stepper.optimization) or
                                     too_many(tally.skipped, stepper.optimization))


def _go_back(stepper: Stepper, tally: _Tally, resume: Callable[[], _Tally]) -> _Tally:
    """The tally of the newest checkpoint, which counts on what was skipped since.

    Args:
        resume: gives the stepper the state of that checkpoint.
    Raises:
        DivergedError: this was tried before, too much was skipped in all, or there is no checkpoint.
    """
    hopeless = given_up(tally.cause, iteration=tally.iteration, skipped=tally.skipped, restores=tally.restores,
                        blamed=tally.blamed)
    if tally.restores >= MOST_RESTORES or too_many(tally.skipped, stepper.optimization):
        raise hopeless
    earlier = resume()
    if not earlier.iteration:
        raise hopeless
    _LOG.warning("%s. Training goes back to iteration %d and on with other batches", tally.cause, earlier.iteration)
    return replace(earlier, skipped=tally.skipped, in_a_row=0, restores=tally.restores + 1, blamed=tally.blamed,
                   cause=tally.cause)


def _draw(draw: Callable[[int], Batch], tally: _Tally, optimization: Optimization,
          should_stop: Callable[[], bool]) -> Batch | None:
    """The next batch; None where a stop was asked for meanwhile and the processes that draw have ended.

    A scheduler sends its signal to all processes of a job, so those that draw may be gone before the checkpoint is written.
    """
    try:
        return draw(batch_number(tally.iteration, tally.restores, optimization))
    except ResourceError:
        if should_stop():
            return None
        raise


def _end_epoch(
        stepper: Stepper, tally: _Tally, save: Callable[[_Tally], None], log: MetricsLog | None,
        on_epoch: Callable[[int, nn.Module], dict[str, float] | None] | None) -> None:
    """Scores, log record, checkpoint, in this order: a record without its checkpoint is dropped on resume."""
    watch = Stopwatch()
    epoch = -(-tally.iteration // stepper.optimization.iterations_per_epoch)
    losses = tally.close_epoch()
    scores: dict[str, float] = {}
    if on_epoch is not None:
        with stepper.average.applied() if stepper.average is not None else nullcontext():
            scores = on_epoch(epoch, stepper.network) or {}
        stepper.train()
    if log is not None:
        log.append({"epoch": epoch, "iteration": tally.iteration, "seconds": round(tally.seconds, 3),
                    "learning_rate": learning_rate(tally.iteration - 1, stepper.optimization), **losses, **scores,
                    **({"skipped": tally.skipped} if tally.skipped else {})})
    before = tally.other_seconds
    tally.other_seconds = before + watch.seconds()
    save(tally)
    tally.other_seconds = before + watch.seconds()


def _save(stepper: Stepper, tally: _Tally, *, folder: Path | None, run: str) -> None:
    if folder is not None and not tally.in_a_row:  # while steps are skipped, the checkpoint before them is the one to go back to
        state = {"format": CHECKPOINT_FORMAT, "optimization": asdict(stepper.optimization), "tally": asdict(tally),
                 "scaler": stepper.scaler.state_dict()}
        write_checkpoint(folder, Checkpoint(tally.iteration, stepper.tensors(), state, run))


def _resume(stepper: Stepper, folder: Path | None, run: str) -> _Tally:
    found = None if folder is None else read_newest_checkpoint(folder, run)
    if found is None:
        return _Tally()
    if found.state.get("format", 1) > CHECKPOINT_FORMAT:
        raise IncompatibleError(f"the checkpoint in {folder} has format {found.state['format']}, and this autoseg understands "
                                f"{CHECKPOINT_FORMAT} and older: a newer autoseg wrote it", code="E_NEWER_FORMAT",
                                hint="update autoseg, or move the run's folder away to start anew")
    if found.state["optimization"] != _as_json(asdict(stepper.optimization)):
        raise IncompatibleError(f"the checkpoint in {folder} was trained with other values than the plan's: "
                                f"{_first_difference(found.state['optimization'], asdict(stepper.optimization))}",
                                hint="move the run's folder away to start anew")
    stepper.load(found.tensors, found.state["scaler"])
    _LOG.info("going on after iteration %d of %d", found.iteration, stepper.optimization.iterations)
    return _Tally(**found.state["tally"])


def _first_difference(old: dict[str, Any], new: dict[str, Any]) -> str:
    plain = _as_json(new)
    key = next(key for key in {**plain, **old} if old.get(key) != plain.get(key))
    return f"{key} was {old.get(key)} and is {plain.get(key)}"


def _as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))
