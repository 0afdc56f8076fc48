"""Which candidate fits the time budget: measured seconds per step, each measured once and kept."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace

from autoseg.core.budget import Budget, CaseTime, Footprint, StepTime
from autoseg.core.errors import ResourceError
from autoseg.core.plan import Configuration, Plan
from autoseg.core.task import Probe
from autoseg.planning import recipes


def candidate_key(configuration: Configuration) -> str:
    """Name of what is timed: readable sizes and a digest of all that changes the duration of a step.

    The number of iterations, the schedule and `inference` are left out.
    """
    network, optimization = configuration.network, configuration.optimization
    timed = {"patch": configuration.patch_size, "batch": configuration.batch_size, "network": asdict(network),
             "loss": asdict(configuration.loss), "augmentation": asdict(configuration.augmentation),
             "optimizer": optimization.optimizer, "average": optimization.ema_decay is not None,
             "clip": optimization.gradient_clip_norm, "precision": optimization.precision,
             "memory_format": optimization.memory_format, "oversample": configuration.oversample_foreground}
    digest = hashlib.sha256(json.dumps(timed, sort_keys=True).encode()).hexdigest()[:8]
    patch = "x".join(str(size) for size in configuration.patch_size[-network.dims:])
    return (f"{configuration.name} patch {patch} batch {configuration.batch_size} features {network.features[0]} "
            f"{optimization.precision} {optimization.memory_format} {digest}")


def footprint_key(configuration: Configuration) -> str:
    """Name of what memory is predicted for: what is timed, and the windows that are predicted together."""
    return f"{candidate_key(configuration)} windows {configuration.inference.tiles_per_batch}"


def case_key(configuration: Configuration) -> str:
    """Name of what cases are timed with: what memory is predicted for, and the way of prediction."""
    rules = configuration.inference
    mirrored = f"mirrored {' '.join(map(str, rules.mirror_axes))}" if rules.mirror and rules.mirror_axes else "not mirrored"
    return f"{footprint_key(configuration)} step {rules.tile_step:g} {mirrored}"


class Meter:
    """Seconds and bytes of candidates: looked up in the budget, else asked of the probe and remembered.

    Args:
        draft: the plan without configurations, for the probe.
    """

    def __init__(self, budget: Budget, probe: Probe, draft: Plan) -> None:
        self.budget = budget
        self._probe = probe
        self._draft = draft

    def seconds(self, configuration: Configuration) -> float:
        """Seconds per step of a candidate.

        Raises:
            ResourceError: the measured time is not a positive number.
        """
        key = candidate_key(configuration)
        known = self.budget.seconds_per_step(key)
        if known is None:
            known = float(self._probe.seconds(self._draft, configuration))
            self.budget = replace(self.budget, measured=(*self.budget.measured, StepTime(key, known)))
        if not (math.isfinite(known) and known > 0):
            raise ResourceError(f"candidate {key!r} took {known} s per step, expected a positive number; delete that entry "
                                "of budget.json and plan again")
        return known

    def footprint(self, configuration: Configuration) -> Footprint:
        """Predicted memory of a candidate."""
        key = footprint_key(configuration)
        known = self.budget.footprint(key)
        if known is None:
            known = Footprint(key, *self._probe.peak_bytes(configuration))
            self.budget = replace(self.budget, footprints=(*self.budget.footprints, known))
        return known

    def case_time(self, configuration: Configuration) -> CaseTime:
        """Seconds of pilot cases of a configuration."""
        key = case_key(configuration)
        known = self.budget.case_time(key)
        if known is None:
            known = replace(self._probe.case_seconds(self._draft, configuration), candidate=key)
            self.budget = replace(self.budget, case_times=(*self.budget.case_times, known))
        return known


def fastest(candidates: Sequence[Configuration], meter: Meter) -> int:
    """Index of the candidate with the shortest step; the first one of equals."""
    return min(range(len(candidates)), key=lambda place: meter.seconds(candidates[place]))


def climb(count: int, start: int, iterations_of: Callable[[int], int]) -> int:
    """The rung to train, out of `count` ordered from cheap to dear.

    Down from `start` while fewer than `TOO_FEW_ITERATIONS` steps fit into the minutes; else up while the next rung still
    allows `ENOUGH_ITERATIONS`. The next rung is measured only where this one allows more than that.
    """
    place = start
    while place > 0 and iterations_of(place) < recipes.TOO_FEW_ITERATIONS:
        place -= 1
    while (place >= start and place + 1 < count and iterations_of(place) > recipes.ENOUGH_ITERATIONS
           and iterations_of(place + 1) >= recipes.ENOUGH_ITERATIONS):
        place += 1
    return place
