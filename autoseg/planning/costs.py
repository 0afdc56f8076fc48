"""What a configuration will cost: memory of prediction, and seconds of every stage, from what was measured or predicted."""

from __future__ import annotations

import math
from dataclasses import replace

from autoseg.core.plan import Configuration, Durations, Reason
from autoseg.planning.budget import Meter
from autoseg.planning.explain import Reasons
from autoseg.planning.fitting import PREDICTION
from autoseg.planning.memory import parameter_count
from autoseg.planning.spacing import Grid

FLOAT_BYTES = 4
# Sums of windows that would take more are kept in 16 bits (inference/sliding_window.py, LARGEST_SUMS_BYTES).
LARGEST_SUMS_BYTES = 2**31
# Folds of five: a fifth of the cases is validated (planning/splits.py).
VALIDATION_SHARE = 0.2


def predicted(configuration: Configuration, grid: Grid, meter: Meter, *, timed: bool, most: int) -> Configuration:
    """The configuration with its predicted memory and, where the budget says minutes, its predicted seconds.

    A plan without minutes must be there in seconds: nothing is timed, and memory is not predicted where a bound tells that
    training surely fits (torch alone takes longer to load than all the rest of such a plan).

    Args:
        timed: the rule book keeps to minutes.
        most: bytes that training surely keeps below.
    """
    if meter.budget.minutes is None and most <= meter.budget.memory_bytes:
        return configuration
    footprint = meter.footprint(configuration)
    known = replace(configuration, predicted_peak_bytes=footprint.training_bytes,
                    predicted_inference_bytes=footprint.forward_bytes + volume_bytes(configuration))
    if meter.budget.minutes is None or not timed:
        return known
    times = meter.case_time(configuration)
    case = 2 * times.prepare_seconds + times.window_seconds * pass_count(configuration)
    validated = math.ceil(grid.case_count * VALIDATION_SHARE)
    return replace(known, predicted_seconds=Durations(
        preprocess=grid.case_count * times.prepare_seconds,
        training=configuration.optimization.iterations * meter.seconds(configuration),
        validation=validated * case, case=case))


def volume_bytes(configuration: Configuration) -> int:
    """Bytes of a median case beside its windows: the image in 32 bits, its labels, and the sums of windows.

    Sums are kept for as many planes as the patch has.
    """
    depth, height, width = (max(size, patch) for size, patch in
                            zip(configuration.median_shape, configuration.patch_size, strict=True))
    sums = configuration.network.out_channels * configuration.patch_size[0] * height * width * FLOAT_BYTES
    return int(depth * height * width * (FLOAT_BYTES * configuration.network.in_channels + 1)
               + (sums if sums <= LARGEST_SUMS_BYTES else sums / 2))


def pass_count(configuration: Configuration) -> int:
    """How many windows of the median case go through the network, mirrored ones included."""
    rules = configuration.inference
    windows = math.prod(_windows(size, patch, rules.tile_step) for size, patch in
                        zip(configuration.median_shape, configuration.patch_size, strict=True))
    mirrored = 2 ** len(rules.mirror_axes) if rules.mirror else 1
    return windows * mirrored


def _windows(size: float, patch: int, tile_step: float) -> int:
    """Windows along one axis; as `inference.sliding_window.window_starts` places them."""
    if patch == 1:
        return math.ceil(size)
    return 1 if size <= patch else math.ceil((size - patch) / (patch * tile_step)) + 1


def cost_reasons(configuration: Configuration, meter: Meter, *, most: int) -> Reasons:
    """Why memory and seconds are predicted as they are; `most` as in `predicted`."""
    run, shape = configuration.optimization, configuration.median_shape
    inputs = (f"{parameter_count(configuration.network)} parameters, batch {configuration.batch_size} of patch "
              f"{configuration.patch_size}, {run.precision}, {run.optimizer}")
    reasons = {
        "predicted_peak_bytes": Reason(inputs, "most that two steps hold at once: weights, gradients, optimiser state, saved "
                                       "tensors, copies that convolutions make, and what the process takes once", PREDICTION),
        "predicted_inference_bytes": Reason(
            f"{configuration.inference.tiles_per_batch} windows together, median shape {shape}", "one batch of windows through "
            "the network, the image, its labels, and the sums of windows for as many planes as a patch has", PREDICTION)}
    if configuration.predicted_peak_bytes is None:
        bound = Reason(f"{inputs}; a budget of {meter.budget.memory_bytes / 1e9:.3g} GB", f"no such step takes more than "
                       f"{most / 1e9:.2g} GB, which fits; the exact peak is predicted where that is not sure, and for plans "
                       "with minutes", "planning/fitting.py, three times the largest predictions")
        reasons = dict.fromkeys(reasons, bound)
    if configuration.predicted_seconds is None:
        return reasons | {"predicted_seconds": Reason(
            "no minutes given, or none obeyed", "only a plan with a time budget measures steps and cases",
            "a plan without one is made in seconds")}
    times = meter.case_time(configuration)
    return reasons | {"predicted_seconds": Reason(
        f"{times.prepare_seconds:.3g} s to prepare a case, {meter.seconds(configuration):.3g} s per step, "
        f"{times.window_seconds:.3g} s per window, {pass_count(configuration)} of them in the median case",
        "cases x preparing; iterations x step; a case is twice preparing (to read and prepare it; about as much to bring it "
        "back and write it) + windows; validation is as many cases as a fold has; one process",
        "measured on this machine, see budget.json")}
