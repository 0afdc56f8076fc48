"""The rule books: `nnunet` repeats nnU-Net on any machine, `default` also keeps to target, memory and minutes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

from autoseg.core.budget import Budget
from autoseg.core.errors import UsageError, choose, unknown_name
from autoseg.core.fingerprint import Fingerprint
from autoseg.core.plan import Configuration, Plan, Precision
from autoseg.core.task import PlanRequest, Probe
from autoseg.planning import recipes
from autoseg.planning.budget import Meter
from autoseg.planning.candidates import choose_candidate, on_rung
from autoseg.planning.costs import cost_reasons, predicted
from autoseg.planning.explain import Reasons, below
from autoseg.planning.fitting import fit_to_memory, most_bytes
from autoseg.planning.memory import REFERENCE_BYTES
from autoseg.planning.recipes import CPU, CUDA, NNUNET
from autoseg.planning.schedule import dataset_reason, fixed_reason, iterations_for_dataset, iterations_within, minutes_reason
from autoseg.planning.spacing import Grid, plan_grid
from autoseg.planning.unet import DIMENSIONS, Blueprint, Limits, Run, Wanted, plan_unet
from autoseg.planning.why import explain_configuration

Drawn: TypeAlias = tuple[Blueprint, Reasons]
Book: TypeAlias = Callable[[str, Grid, Wanted, Meter], Drawn]


@dataclass(frozen=True)
class Planned:
    """Configurations by name, the budget with all measurements, and reasons with full paths."""

    grid: Grid
    configurations: dict[str, Configuration]
    budget: Budget
    reasons: Reasons


def plan_configurations(fingerprint: Fingerprint, budget: Budget, request: PlanRequest, probe: Probe, draft: Plan,
                        wanted: Wanted) -> Planned:
    """All U-Net configurations that the user asked for, by the rule book of the request.

    Raises:
        UsageError: a rule book or configuration that does not exist, or that the dataset does not allow.
        DatasetError: the fingerprint holds no case.
        ResourceError: the smallest patch does not fit into the memory budget.
    Args:
        draft: the plan without configurations, for the probe.
    """
    book = choose(BOOKS, request.rules, "rule book")
    grid = plan_grid(fingerprint)
    meter = Meter(budget, probe, draft)
    configurations: dict[str, Configuration] = {}
    reasons: Reasons = {}
    for name in _names(grid, request):
        blueprint, decided = book(name, grid, wanted, meter)
        most = most_bytes(blueprint)
        timed = request.rules != "nnunet" and (budget.minutes is not None or not configurations)
        configurations[name] = predicted(plan_unet(blueprint), grid, meter, timed=timed, most=most)
        why = explain_configuration(configurations[name], blueprint, fingerprint, budget) | cost_reasons(
            configurations[name], meter, most=most) | decided
        reasons |= below(f"configurations.{name}", why)
    return Planned(grid, configurations, meter.budget, reasons)


def _names(grid: Grid, request: PlanRequest) -> tuple[str, ...]:
    allowed = tuple(name for name, dims in DIMENSIONS.items() if dims == 2 or grid.median_shape[0] != 1)
    for name in request.configurations:
        if name not in DIMENSIONS:
            raise UsageError(unknown_name(name, list(DIMENSIONS), "configuration"))
        if name not in allowed:
            raise UsageError(f"configuration {name!r} needs images of more than one slice, the median case has one; "
                             f"plan {', '.join(allowed)} instead")
    return tuple(name for name in allowed if not request.configurations or name in request.configurations)


def draw_nnunet(name: str, grid: Grid, wanted: Wanted, meter: Meter) -> Drawn:
    """nnU-Net's blueprint; of the budget only the target matters, for the precision."""
    precision: Precision = "fp16" if meter.budget.target == "cuda" else "fp32"
    run = Run(recipes.NNUNET_ITERATIONS, precision)
    return Blueprint(name, grid, wanted, NNUNET, Limits(), run), fixed_reason(meter.budget)


def draw_default(name: str, grid: Grid, wanted: Wanted, meter: Meter) -> Drawn:
    """The blueprint that makes the most of target, memory and minutes."""
    budget = meter.budget
    limits = Limits(budget.memory_bytes / REFERENCE_BYTES, smallest_if_too_large=True)
    if budget.target == "cuda":
        return _with_length(fit_to_memory(Blueprint(name, grid, wanted, CUDA, limits, Run(1, "fp16")), meter), meter)
    blueprint = Blueprint(name, grid, wanted, CPU, limits)
    if budget.minutes is not None:
        return _with_length(choose_candidate(blueprint, meter, budget.minutes), meter)
    run = Run(1, "bf16" if budget.supports_bf16 else "fp32", CPU.memory_format)
    start = replace(on_rung(blueprint, recipes.LADDER[recipes.START]), run=run)
    return _with_length(fit_to_memory(start, meter), meter)


BOOKS: dict[str, Book] = {"default": draw_default, "nnunet": draw_nnunet}


def _with_length(drawn: Drawn, meter: Meter) -> Drawn:
    """The same with the number of iterations, from the minutes or else from the dataset."""
    blueprint, reasons = drawn
    draft, budget = plan_unet(blueprint), meter.budget
    if budget.minutes is None:
        patch_voxels = draft.patch_size[0] * draft.patch_size[1] * draft.patch_size[2]
        step_voxels = patch_voxels * draft.batch_size
        iterations = iterations_for_dataset(blueprint.grid.dataset_voxels, step_voxels, budget.target)
        why = dataset_reason(blueprint.grid.dataset_voxels, step_voxels, budget.target)
        return _lasting(blueprint, iterations), reasons | why
    first = _lasting(blueprint, iterations_within(budget.minutes, meter.seconds(draft)))
    seconds = meter.seconds(plan_unet(first))  # another time where so many steps ask for stronger augmentation
    return _lasting(blueprint, iterations_within(budget.minutes, seconds)), reasons | minutes_reason(budget.minutes, seconds)


def _lasting(blueprint: Blueprint, iterations: int) -> Blueprint:
    return replace(blueprint, run=replace(blueprint.run, iterations=iterations))
