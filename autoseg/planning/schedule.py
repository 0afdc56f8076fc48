"""How long to train and with which optimiser: by the minutes given, else by the size of the dataset."""

from __future__ import annotations

import math
from dataclasses import replace

from autoseg.core.budget import Budget, Target
from autoseg.core.plan import MemoryFormat, Optimization, Precision, Reason
from autoseg.planning import recipes
from autoseg.planning.explain import Reasons
from autoseg.planning.recipes import Recipe


def iterations_within(minutes: float, seconds_per_step: float) -> int:
    """Steps that fit into the minutes, at least `FLOOR_WITHIN_MINUTES`."""
    return max(recipes.FLOOR_WITHIN_MINUTES, int(minutes * 60 / seconds_per_step))


def iterations_for_dataset(dataset_voxels: float, step_voxels: int, target: Target) -> int:
    """Steps that draw every voxel of the dataset `PASSES_OVER_DATASET` times, within the limits of the target."""
    wanted = math.ceil(recipes.PASSES_OVER_DATASET * dataset_voxels / step_voxels)
    return min(max(wanted, recipes.FEWEST_ITERATIONS[target]), recipes.MOST_ITERATIONS[target])


def plan_optimization(recipe: Recipe, iterations: int, *, precision: Precision, memory_format: MemoryFormat) -> Optimization:
    """The optimisation of a default-book run of this length.

    AdamW and Muon warm up over a share of the run and average weights over a share of it, so a longer run averages longer.
    """
    chosen = recipe.optimization
    if recipe.long_optimization is not None and iterations >= recipes.LONG_RUN:
        chosen = recipe.long_optimization
    planned = replace(chosen, iterations=iterations, iterations_per_epoch=epoch_length(iterations), precision=precision,
                      memory_format=memory_format)
    if planned.optimizer == "sgd":
        return planned
    return replace(planned, warmup_iterations=math.ceil(recipe.warmup_share * iterations),
                   ema_decay=average_decay(recipe, iterations))


def average_decay(recipe: Recipe, iterations: int) -> float | None:
    """Decay per step of the average of weights, whose horizon is a share of the run and at least ten steps."""
    if recipe.ema_share is None:
        return None
    return round(1 - 1 / max(10.0, recipe.ema_share * iterations), 6)


def epoch_length(iterations: int) -> int:
    """Steps between two logged and saved states: a twentieth of the run, at most nnU-Net's 250."""
    return max(1, min(recipes.LONGEST_EPOCH, iterations // recipes.EPOCHS))


def fixed_reason(budget: Budget) -> Reasons:
    """Why nnU-Net's book trains as long as it does."""
    asked = "" if budget.minutes is None else f"; the {budget.minutes:g} minutes asked for are not obeyed by this rule book"
    return {"optimization.iterations": Reason(
        f"1000 epochs of {recipes.NNUNET_ITERATIONS_PER_EPOCH} iterations{asked}", "fixed, whatever the dataset is",
        recipes.NNUNET_TRAINER)}


def dataset_reason(dataset_voxels: float, step_voxels: int, target: Target) -> Reasons:
    """Why a run without a time budget is as long as it is."""
    low, high = recipes.FEWEST_ITERATIONS[target], recipes.MOST_ITERATIONS[target]
    return {"optimization.iterations": Reason(
        f"{dataset_voxels:.4g} voxels in the dataset, {step_voxels} in a step, no minutes given",
        f"every voxel is drawn {recipes.PASSES_OVER_DATASET} times, within {low} to {high} iterations on {target}: small "
        "datasets are learned long before nnU-Net's 250,000", recipes.HIPPOCAMPUS)}


def minutes_reason(minutes: float, seconds_per_step: float) -> Reasons:
    """Why a run with a time budget is as long as it is."""
    return {"optimization.iterations": Reason(
        f"{minutes:g} minutes, {seconds_per_step:.4g} s per step",
        f"minutes x 60 / seconds per step, at least {recipes.FLOOR_WITHIN_MINUTES}: a warm-up of 5 % needs one step",
        "measured on this machine, see budget.json")}
