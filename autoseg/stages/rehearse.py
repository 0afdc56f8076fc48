"""Times pilot cases before anything is trained: preparing them, and predicting and validating one as later stages will.

There is no time to run the network on all windows of a case: it runs on the first few of each shape, its last answer is
given again for the others, and what they would have taken is added up (`training.timing.RememberedNetwork`).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from autoseg.core.budget import CaseTime
from autoseg.core.bundle import Bundle, Decisions, Member
from autoseg.core.case import Unit, single_units
from autoseg.core.fingerprint import sum_fingerprints
from autoseg.core.plan import Configuration, Plan
from autoseg.core.spec import DatasetSpec
from autoseg.core.task import Context, Task
from autoseg.inference.engine import in_use
from autoseg.io.store import Store
from autoseg.planning.splits import Fold
from autoseg.stages.predict import Predictor, predict_into
from autoseg.stages.preprocess import PrepareUnit
from autoseg.stages.train import Run, validate_unit
from autoseg.training.device import Stopwatch
from autoseg.training.timing import RememberedNetwork, seconds_of

# Small cases are done again, at most so often: the first time imports, and milliseconds are noisy.
MOST_TIMES = 6


@dataclass(frozen=True)
class Pilots:
    """Units that were prepared for measurements.

    Attributes:
        timed: units, also others of the dataset, with the seconds that preparing them took; the first only where it is alone.
    """

    units: tuple[Unit, ...]
    store: Store
    timed: tuple[tuple[Unit, float], ...]

    def voxels(self, unit: Unit) -> int:
        """Of a unit's first case on the model grid."""
        return math.prod(self.store.record(unit.cases[0].id).model_shape)

    @property
    def middle(self) -> Unit:
        """The unit with the median number of voxels."""
        return sorted(self.units, key=self.voxels)[len(self.units) // 2]


def prepare_pilots(task: Task, spec: DatasetSpec, plan: Plan, configuration: Configuration, units: Sequence[Unit],
                   folder: Path, *, enough_seconds: float, others: Sequence[Unit] = (), least_seconds: float = 0.0) -> Pilots:
    """Prepares units in turn, all cases of each, at least one; after `enough_seconds` no further one begins.

    Args:
        others: are prepared, too, until `least_seconds` have gone by: small cases take 6 or 14 ms, by the second, as the disk
            and other programs let them.
    """
    prepare = PrepareUnit(task, spec, plan, configuration, folder)

    def prepare_all(unit: Unit) -> None:
        for single in single_units([unit]):
            prepare(single)

    seconds = seconds_of([partial(prepare_all, unit) for unit in units], "cpu", enough_seconds=enough_seconds)
    further = least_seconds - math.fsum(seconds)
    if further > 0 and len(seconds) == len(units):
        seconds += seconds_of([partial(prepare_all, unit) for unit in others], "cpu", enough_seconds=further)
    timed = [*zip((*units, *others), seconds, strict=False)]  # as many as were prepared
    return Pilots(tuple(units[:len(seconds)]), Store(folder), tuple(timed[1:] or timed))  # the first one imports


def time_cases(task: Task, spec: DatasetSpec, plan: Plan, configuration: Configuration, pilots: Pilots,
               folder: Path, *, enough_seconds: float) -> CaseTime:
    """What preparing the pilots took, and what predicting and validating the middle one takes.

    Args:
        folder: receives predictions.
        enough_seconds: after so long the case is not predicted, and not validated, once more.
    """
    unit, device = pilots.middle, plan.budget.target
    plan = replace(plan, configurations={configuration.name: configuration})
    network = RememberedNetwork(in_use(task.build_network(configuration), configuration.inference, device), device)
    watched = _Watched(task, network)
    predictor = _predictor(watched.task, spec, plan, configuration, network)
    predicted = _repeated(lambda number: watched.beside_network(
        lambda: predict_into(predictor, unit, folder / f"predicted_{number}"), device), enough_seconds)
    known = watched.with_known_prediction()
    validated = _repeated(lambda number: (seconds_of([lambda: validate_unit(
        Run(known, spec, plan, configuration, Fold((), ()), "0", {unit.id: unit}, {}, pilots.store, folder / f"run_{number}"),
        network, unit, Context(device))], device)[0], 0.0), enough_seconds)
    whole, inner = (statistics.median(part) for part in zip(*predicted, strict=True))
    preparing = statistics.fmean(taken for _, taken in pilots.timed)
    voxels = statistics.fmean(pilots.voxels(prepared) for prepared, _ in pilots.timed)
    return CaseTime(
        "", preparing, network.network_seconds / max(1, network.windows), voxels,
        tuple(map(float, pilots.store.record(unit.cases[0].id).model_shape)), network.windows / watched.cases, whole,
        statistics.median(first for first, _ in validated) + inner, network.start_seconds)


def _repeated(measure: Callable[[int], tuple[float, float]], enough_seconds: float) -> Sequence[tuple[float, float]]:
    """What was measured in every run but the first, which is the only one where it takes long."""
    measured: list[tuple[float, float]] = []
    while not measured or len(measured) < MOST_TIMES and sum(whole for whole, _ in measured) < enough_seconds:
        measured.append(measure(len(measured)))
    return measured[1:] or measured


class _Watched:
    """A task whose `infer` and `restore` are timed together, without the network.

    What a fresh network answers is no anatomy, and scoring an empty or noisy prediction takes another time than a good one:
    where a prediction is of the type of the reference, the reference itself is scored.

    Attributes:
        task: with timed slots.
        cases: that were predicted.
    """

    def __init__(self, task: Task, network: RememberedNetwork) -> None:
        self._own = task
        self._network = network
        self._seconds = 0.0
        self._prediction: Any = None
        self.cases = 0
        self.task = replace(task, infer=partial(self._timed, task.infer), restore=self._restored)

    def beside_network(self, predict: Callable[[], object], device: str) -> tuple[float, float]:
        """Seconds of predicting one case, and of its `infer` and `restore` alone; both without the network."""
        before, self._seconds = self._network.aside_seconds, 0.0
        taken, = seconds_of([predict], device)
        aside = self._network.aside_seconds - before
        self.cases += 1
        return taken - aside, self._seconds - aside

    def with_known_prediction(self) -> Task:
        """The task that takes no time to infer and to restore what it predicted last."""
        return replace(self._own, infer=lambda *asked: None, restore=lambda *asked: self._prediction, score=self._score)

    def _restored(self, *asked: Any) -> Any:
        self._prediction = self._timed(self._own.restore, *asked)
        return self._prediction

    def _timed(self, slot: Callable[..., Any], *asked: Any) -> Any:
        watch = Stopwatch()
        result = slot(*asked)
        self._seconds += watch.seconds()
        return result

    def _score(self, prediction: Any, target: Any, *asked: Any) -> Any:
        return self._own.score(target if type(prediction) is type(target) else prediction, target, *asked)


def _predictor(task: Task, spec: DatasetSpec, plan: Plan, configuration: Configuration, network: RememberedNetwork) -> Predictor:
    channels = sum(len(entry.channels) for entry in plan.inputs)
    bundle = Bundle(spec, plan, (Member(configuration.name, "0", "", ""),), Decisions(), sum_fingerprints([], channels), "")
    return Predictor(bundle, [network], task, Context(plan.budget.target))
