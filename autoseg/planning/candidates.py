"""CPU candidates: sizes from cheap to dear, timed by the probe, and the one that makes most of the minutes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from autoseg.core.plan import Configuration, MemoryFormat, Precision, Reason
from autoseg.planning import recipes
from autoseg.planning.budget import Meter, candidate_key, climb, fastest
from autoseg.planning.explain import Reasons
from autoseg.planning.fitting import fit_to_memory
from autoseg.planning.recipes import CPU, Rung
from autoseg.planning.schedule import iterations_within
from autoseg.planning.unet import Blueprint, Run, plan_unet

MEMORY_FORMATS: tuple[MemoryFormat, ...] = ("contiguous", "channels_last")


def on_rung(blueprint: Blueprint, rung: Rung) -> Blueprint:
    """The blueprint with the width and the step of a rung."""
    return replace(blueprint, recipe=replace(blueprint.recipe, base_features=rung.base_features),
                   limits=replace(blueprint.limits, step_voxels=rung.step_voxels))


def choose_candidate(blueprint: Blueprint, meter: Meter, minutes: float) -> tuple[Blueprint, Reasons]:
    """The blueprint whose steps make the most of the minutes, and why: arithmetic first, then size.

    Combinations of precision and memory layout are timed on a cheap rung, sizes with the fastest of them. Nothing is timed
    that is not predicted to fit into memory.
    """
    cheap = on_rung(blueprint, recipes.LADDER[recipes.ARITHMETIC])
    runs = _runs(meter.budget.supports_bf16)
    ways = [plan_unet(fit_to_memory(replace(cheap, run=run), meter)[0]) for run in runs]
    run = runs[fastest(ways, meter)]
    rungs = [replace(on_rung(blueprint, rung), run=run) for rung in recipes.LADDER]
    ladder = _distinct(rungs)
    first = [candidate_key(plan_unet(rung)) for rung in ladder].index(candidate_key(plan_unet(rungs[recipes.START])))
    fitted: dict[int, tuple[Blueprint, Reasons]] = {}

    def candidate(place: int) -> Configuration:
        if place not in fitted:
            fitted[place] = fit_to_memory(ladder[place], meter)
        return plan_unet(fitted[place][0])

    place = climb(len(ladder), first, lambda rung: iterations_within(minutes, meter.seconds(candidate(rung))))
    meter.seconds(candidate(place))  # its length needs it, and the reasons then name it, also when read from a budget file
    timed = [candidate(rung) for rung in sorted(fitted)]
    chosen, shrunk = fitted[place]
    return chosen, {**_arithmetic_reasons(ways, meter), **_size_reasons(timed, meter, minutes), **shrunk}


def _runs(supports_bf16: bool) -> list[Run]:
    precisions: tuple[Precision, ...] = ("fp32", "bf16") if supports_bf16 else ("fp32",)
    return [Run(1, precision, layout) for precision in precisions for layout in MEMORY_FORMATS]


def _distinct(ladder: Sequence[Blueprint]) -> list[Blueprint]:
    """Without the rungs that come to the same configuration as a later one."""
    last = {candidate_key(plan_unet(blueprint)): blueprint for blueprint in ladder}
    return sorted(last.values(), key=ladder.index)


def _arithmetic_reasons(ways: Sequence[Configuration], meter: Meter) -> Reasons:
    reason = Reason(_times(ways, meter), "the fastest of the combinations that this processor supports",
                    "measured on this machine, see budget.json")
    return {f"{part}.{value}": reason for part in ("optimization", "inference") for value in ("precision", "memory_format")}


def _size_reasons(timed: Sequence[Configuration], meter: Meter, minutes: float) -> Reasons:
    reason = Reason(
        _times(timed, meter),
        f"from cheap to dear candidates: smaller while fewer than {recipes.TOO_FEW_ITERATIONS} steps fit into {minutes:g} "
        f"minutes, larger while the next one still allows {recipes.ENOUGH_ITERATIONS}; features double per stage",
        f"candidates timed on this machine, see budget.json; limits {CPU.source}; fewest steps and width in 2-D "
        f"{recipes.SUNNYBROOK}")
    return {"network.features": reason}


def _times(candidates: Sequence[Configuration], meter: Meter) -> str:
    """Measured seconds per step of the candidates that were timed."""
    known = {candidate_key(candidate): meter.budget.seconds_per_step(candidate_key(candidate)) for candidate in candidates}
    return "; ".join(f"{key}: {seconds:.4g} s per step" for key, seconds in known.items() if seconds is not None)
