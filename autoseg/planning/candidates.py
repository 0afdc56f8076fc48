"""CPU candidates: sizes from cheap to dear, timed by the probe, and the one that makes most of the minutes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from autoseg.core.plan import Configuration, MemoryFormat, Precision, Reason
from autoseg.planning import recipes
from autoseg.planning.budget import Stopwatch, candidate_key, climb, fastest
from autoseg.planning.explain import Reasons
from autoseg.planning.recipes import CPU, Rung
from autoseg.planning.schedule import iterations_within
from autoseg.planning.unet import Blueprint, Limits, Run, plan_unet

MEMORY_FORMATS: tuple[MemoryFormat, ...] = ("contiguous", "channels_last")


def on_rung(blueprint: Blueprint, rung: Rung) -> Blueprint:
    """The blueprint with the width and the step of a rung."""
    return replace(blueprint, recipe=replace(blueprint.recipe, base_features=rung.base_features),
                   limits=Limits(blueprint.limits.scale, rung.step_voxels))


def choose_candidate(blueprint: Blueprint, stopwatch: Stopwatch, minutes: float) -> tuple[Blueprint, Reasons]:
    """The blueprint whose steps make the most of the minutes, and why: arithmetic first, then size.

    Combinations of precision and memory layout are timed on a cheap rung, sizes with the fastest of them.
    """
    cheap = on_rung(blueprint, recipes.LADDER[recipes.ARITHMETIC])
    runs = _runs(stopwatch.budget.supports_bf16)
    ways = [plan_unet(replace(cheap, run=run)) for run in runs]
    run = runs[fastest(ways, stopwatch)]
    rungs = [replace(on_rung(blueprint, rung), run=run) for rung in recipes.LADDER]
    ladder = _distinct(rungs)
    timed = [plan_unet(candidate) for candidate in ladder]
    first = timed.index(plan_unet(rungs[recipes.START]))
    place = climb(len(timed), first, lambda rung: iterations_within(minutes, stopwatch.seconds(timed[rung])))
    stopwatch.seconds(timed[place])  # its length needs it, and the reasons then name it, also when read from a budget file
    return ladder[place], {
        **_arithmetic_reasons(ways, stopwatch), **_size_reasons(timed, stopwatch, minutes)}


def _runs(supports_bf16: bool) -> list[Run]:
    precisions: tuple[Precision, ...] = ("fp32", "bf16") if supports_bf16 else ("fp32",)
    return [Run(1, precision, layout) for precision in precisions for layout in MEMORY_FORMATS]


def _distinct(ladder: Sequence[Blueprint]) -> list[Blueprint]:
    """Without the rungs that come to the same configuration as a later one."""
    last = {candidate_key(plan_unet(blueprint)): blueprint for blueprint in ladder}
    return sorted(last.values(), key=ladder.index)


def _arithmetic_reasons(ways: Sequence[Configuration], stopwatch: Stopwatch) -> Reasons:
    reason = Reason(_times(ways, stopwatch), "the fastest of the combinations that this processor supports",
                    "measured on this machine, see budget.json")
    return {f"{part}.{value}": reason for part in ("optimization", "inference") for value in ("precision", "memory_format")}


def _size_reasons(timed: Sequence[Configuration], stopwatch: Stopwatch, minutes: float) -> Reasons:
    reason = Reason(
        _times(timed, stopwatch),
        f"from cheap to dear candidates: smaller while fewer than {recipes.TOO_FEW_ITERATIONS} steps fit into {minutes:g} "
        f"minutes, larger while the next one still allows {recipes.ENOUGH_ITERATIONS}; features double per stage",
        f"candidates timed on this machine, see budget.json; limits {CPU.source}")
    return {"network.features": reason}


def _times(candidates: Sequence[Configuration], stopwatch: Stopwatch) -> str:
    """Measured seconds per step of the candidates that were timed."""
    known = {candidate_key(candidate): stopwatch.budget.seconds_per_step(candidate_key(candidate)) for candidate in candidates}
    return "; ".join(f"{key}: {seconds:.4g} s per step" for key, seconds in known.items() if seconds is not None)
