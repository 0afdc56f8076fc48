"""Turns a fingerprint and a budget into a plan; times real steps of candidates on pilot units where the planner asks."""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from autoseg.core.budget import Budget, CaseTime
from autoseg.core.case import Unit
from autoseg.core.errors import AutosegError, IncompatibleError
from autoseg.core.fingerprint import Fingerprint
from autoseg.core.geometry import GridRecord
from autoseg.core.plan import Configuration, Plan
from autoseg.core.spec import DatasetSpec
from autoseg.core.task import Arrays, PlanRequest, Probe, Task
from autoseg.io.atomic import hash_values
from autoseg.io.done import DONE, is_as_written, is_done, mark_done
from autoseg.io.plans import read_plan
from autoseg.io.values import read_json, read_value, write_value
from autoseg.stages.prepare import grid_hash, prepare_inputs, read_inputs

if TYPE_CHECKING:  # it imports torch, which most plans do without
    from autoseg.stages.rehearse import Pilots

log = logging.getLogger(__name__)

# Raised whenever the same inputs would give another plan.
PLAN_RULES = 9
# Units whose batches are timed: enough that a batch is not one case repeated, few enough to prepare in a second.
PILOT_UNITS = 4
# Temporary folders begin so; one that a killed command left is found by it.
PILOTS = ".pilots-"
# The plan beside `plan.json` that nobody edits, to say what an edit changed.
AS_MADE = ".plan_as_made.json"
# Enough of an edit to know it again.
MOST_DIFFERENCES, MOST_CHARACTERS = 5, 80
# Steps of a candidate of which the median counts, after one to warm up. Of an image of 28 x 28 the median of the first three
# was 0.107 s, that of twenty 0.076 s.
PROBE_STEPS, MOST_PROBE_STEPS = 3, 40


@dataclass(frozen=True)
class Enough:
    """How long measurements go on.

    Attributes:
        prepare, step, case: seconds after which no further pilot unit is prepared, no further step begins (one is always
            done after the one that warms up), and no case is predicted once more.
        steps: seconds that the steps which count take together at least, if forty do.
        pilots: seconds that preparing takes together at least, if the dataset has so many units.
    """

    prepare: float
    step: float
    case: float
    steps: float
    pilots: float


# Steps of a plan with a time budget decide how long it trains. Pairs of Hippocampus take 0.23 s a step (EPYC, two threads,
# 2026-11-22), and one second of steps said 0.25, 0.29 and 0.37 s, in memory that the virtual machine had yet to hand out; four
# seconds said 0.23 and 0.24. A plan without a budget needs times to tell the user, and must be there soon: where one step or one
# case takes some seconds, few are done. The step that warms up cannot stand for the others: of LungGTV it took 3.0 s, others
# 2.2 s, of DSB2018 2.0 and 1.2 s, and steps of one run differ by a quarter (EPYC with AVX-512, two threads, 2026-11-23). There
# the 200 cases of Hippocampus took 1.8 to 2.5 s to prepare; four of them, in 30 ms, had said 1.3 to 2.3 s, two seconds of them
# 1.8 to 2.6 (five times each); one second said 1.57 of 1.78 s.
THOROUGH, QUICK = Enough(2.0, math.inf, 1.0, 4.0, 1.0), Enough(1.0, 4.0, 0.3, 0.0, 0.0)


def run_plan(task: Task, spec: DatasetSpec, units: Sequence[Unit], fingerprint: Fingerprint, budget: Budget,
             request: PlanRequest, folder: Path, *, keep_memory: bool) -> Plan:
    """The plan; `folder` receives `plan.json`, `budget.json` with what was measured, and `done.json`.

    Measurements of an earlier run with the same budget are used again, so that the plan is reproducible from its files.

    Args:
        keep_memory: the memory was not asked for but taken from what is free now; keep that of the earlier run, or the
            plan would change with every other program on the machine.
    """
    budget = _with_earlier_measurements(budget, folder / "budget.json", keep_memory)
    request = _with_earlier_configurations(request, budget, folder / "plan.json")
    inputs = hash_values(PLAN_RULES, spec, fingerprint, budget, request)
    if is_done(folder, inputs):
        return read_plan(folder / "plan.json")
    for killed in folder.glob(f"{PILOTS}*"):
        shutil.rmtree(killed)
    with pilot_folder(folder) as pilots:
        probe = make_probe(task, spec, units, fingerprint, request, budget, pilots)
        plan = task.make_plan(spec, fingerprint, budget, request, probe)
    plan = replace(plan, specification=specification_digest(spec), fingerprint=fingerprint_digest(fingerprint))
    write_value(folder / "budget.json", plan.budget)
    write_value(folder / AS_MADE, plan)
    write_value(folder / "plan.json", plan)
    mark_done(folder, hash_values(PLAN_RULES, spec, fingerprint, plan.budget, request),
              [folder / "plan.json", folder / "budget.json"])
    return plan


def read_made_plan(folder: Path) -> Plan:
    """The plan in a folder, as it was made. Without `done.json` it is one of the user's own and taken as it is.

    Raises:
        IncompatibleError: it was edited since, with what; or it is a copy that carries the name of another plan, whose runs
            it would overwrite.
    """
    path = folder / "plan.json"
    if is_as_written(path) is False:
        earlier = read_json(folder / AS_MADE) if (folder / AS_MADE).exists() else None
        found = "" if earlier is None else ": " + "; ".join(list(differences(earlier, read_json(path)))[:MOST_DIFFERENCES])
        raise IncompatibleError(f"{path} was edited after it was made{found}", code="E_PLAN_EDITED",
                                hint="autoseg plan_and_preprocess makes it anew; for a plan of your own copy the folder under "
                                f"another name beside it, write that name into plan.json, and delete {DONE} there")
    plan = read_plan(path)
    if plan.name != folder.name:
        raise IncompatibleError(f"{path} says that its name is {plan.name!r}; a plan in {folder.name}/ must be called "
                                f"{folder.name!r}", code="E_PLAN_NAME", hint="correct 'name' in the file")
    return plan


def differences(before: Any, after: Any, path: str = "") -> Iterator[str]:
    """What differs between two JSON documents, by key path."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in {**before, **after}:
            yield from differences(before.get(key), after.get(key), f"{path}.{key}" if path else key)
    elif before != after:
        yield f"{path} was {json.dumps(before)[:MOST_CHARACTERS]} and is {json.dumps(after)[:MOST_CHARACTERS]}"


def fingerprint_digest(fingerprint: Fingerprint) -> str:
    """Digest of the measurements that a plan follows from."""
    return hash_values(fingerprint)[:16]


def specification_digest(spec: DatasetSpec) -> str:
    """Digest of what decides a plan: task, inputs, labels, regions, ignored value and options; not texts and layouts."""
    return hash_values(spec.task, spec.inputs, spec.labels, spec.regions, spec.ignore, spec.options)[:16]


def require_same_measurements(plan: Plan, fingerprint: Fingerprint) -> None:
    """Raises where the dataset was measured anew, with other numbers, since the plan was made.

    Raises:
        IncompatibleError: with the number of cases now; a plan that does not say its fingerprint is taken as it is.
    """
    if plan.fingerprint not in ("", fingerprint_digest(fingerprint)):
        raise IncompatibleError(f"the plan {plan.name!r} follows from other measurements (digest {plan.fingerprint}) than "
                                f"fingerprint.json holds now ({fingerprint_digest(fingerprint)}, {len(fingerprint.spacings_mm)} "
                                "cases): cases came, went or changed since", code="E_FINGERPRINT_CHANGED",
                                hint=f"autoseg plan_and_preprocess -d {plan.dataset}")


def fits_specification(plan: Plan, spec: DatasetSpec) -> bool:
    """Whether the plan was made for this specification; a plan that does not say it is taken as it is."""
    return plan.specification in ("", specification_digest(spec))


def _with_earlier_measurements(budget: Budget, path: Path, keep_memory: bool) -> Budget:
    if not path.exists():
        return budget
    earlier = read_value(path, Budget)
    same = (earlier.target, earlier.device, earlier.threads) == (budget.target, budget.device, budget.threads)
    if not same:
        log.info("budget.json was measured on %s with %d threads; measuring anew", earlier.device, earlier.threads)
        return budget
    memory = earlier.memory_bytes if keep_memory else budget.memory_bytes
    return replace(budget, memory_bytes=memory, measured=earlier.measured, footprints=earlier.footprints,
                   case_times=earlier.case_times, findings=earlier.findings)


def _with_earlier_configurations(request: PlanRequest, budget: Budget, path: Path) -> PlanRequest:
    """The request with what this plan holds already, so that planning 2d does not take 3d_fullres away."""
    if not request.configurations or not path.exists():
        return request
    try:
        earlier = read_plan(path)
    except AutosegError:  # of another version: it is planned anew
        return request
    same = (earlier.seed, earlier.budget.minutes, earlier.budget.memory_bytes, earlier.budget.target)
    if same != (request.seed, budget.minutes, budget.memory_bytes, budget.target):
        return request
    return replace(request, configurations=tuple(dict.fromkeys((*earlier.configurations, *request.configurations))))


def make_probe(task: Task, spec: DatasetSpec, units: Sequence[Unit], fingerprint: Fingerprint, request: PlanRequest,
               budget: Budget, folder: Path) -> Probe:
    """What the planner may measure: real steps and cases on pilot units, and memory on tensors without content.

    Args:
        folder: receives pilot units, prepared once for each grid, and predictions of them; to be removed afterwards.
    """
    limits = QUICK if budget.minutes is None else THOROUGH
    prepared: dict[str, Pilots] = {}

    def pilots_of(plan: Plan, configuration: Configuration) -> Pilots:
        from autoseg.stages.rehearse import prepare_pilots

        grid = grid_hash(plan, configuration, spec, fingerprint.spacings_mm)
        if grid not in prepared:
            chosen, others = pilot_units(units)
            prepared[grid] = prepare_pilots(task, spec, plan, configuration, chosen, folder / grid,
                                            enough_seconds=limits.prepare, others=others, least_seconds=limits.pilots)
        return prepared[grid]

    def seconds(plan: Plan, configuration: Configuration) -> float:
        from autoseg.training.loader import BatchLoader
        from autoseg.training.timing import seconds_per_step

        pilots = pilots_of(plan, configuration)
        loader = BatchLoader(lambda rng: task.draw_batch(pilots.units, pilots.store, configuration, rng), seed=request.seed,
                             fold=0, count=1 + MOST_PROBE_STEPS)
        return seconds_per_step(task.build_network(configuration), task.phases(configuration), loader,
                                configuration.optimization, plan.budget.target, steps=PROBE_STEPS, most=MOST_PROBE_STEPS,
                                least_seconds=limits.steps, enough_seconds=limits.step)

    def peak_bytes(configuration: Configuration) -> tuple[int, int]:
        from autoseg.training.memory import predict_peaks

        return predict_peaks(task, configuration, target=budget.target, threads=budget.threads)

    def case_seconds(plan: Plan, configuration: Configuration) -> CaseTime:
        from autoseg.stages.rehearse import time_cases

        pilots = pilots_of(plan, configuration)
        with TemporaryDirectory(dir=folder) as predictions:
            return time_cases(task, spec, plan, configuration, pilots, Path(predictions), enough_seconds=limits.case)

    def on_grid(plan: Plan, configuration: Configuration) -> list[tuple[Arrays, GridRecord]]:
        return [prepare_inputs(read_inputs(unit, spec), plan, configuration) for unit in pilot_units(units)[0]]

    return Probe(seconds, peak_bytes, case_seconds, on_grid)


@contextmanager
def pilot_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder beside the plan: on the disk that has room, and found again after a kill."""
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=PILOTS, dir=folder) as temporary:
        yield Path(temporary)


def pilot_units(units: Sequence[Unit]) -> tuple[list[Unit], list[Unit]]:
    """Units spread evenly over the dataset, and the others in an order that mixes them, the same each time."""
    places = np.linspace(0, len(units) - 1, min(PILOT_UNITS, len(units))).round().astype(int)
    mixed = np.random.default_rng(0).permutation(len(units))
    return [units[place] for place in places], [units[place] for place in mixed if place not in places]
