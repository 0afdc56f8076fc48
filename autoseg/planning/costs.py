"""What a configuration will cost: memory of prediction, and seconds of every stage, from what was measured or predicted."""

from __future__ import annotations

import logging
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import replace

from autoseg.core.budget import CaseTime
from autoseg.core.errors import AutosegError
from autoseg.core.plan import Configuration, Durations, Reason
from autoseg.planning.budget import Meter
from autoseg.planning.case_memory import inference_bytes, volume_bytes
from autoseg.planning.explain import Reasons
from autoseg.planning.fitting import PREDICTION
from autoseg.planning.memory import parameter_count
from autoseg.planning.spacing import Grid

log = logging.getLogger(__name__)

# Folds of five: a fifth of the cases is validated (planning/splits.py).
VALIDATION_SHARE = 0.2
# Voxels of all channels of a median case up to which a plan without minutes measures. Reading, preparing, predicting and
# scoring such a case without its network takes some 5 s (0.1 to 0.3 us per voxel and stage, stages/limits.py).
LARGEST_TRIED = 2**24


def predicted(configuration: Configuration, grid: Grid, meter: Meter, *, timed: bool, most: int) -> Configuration:
    """The configuration with its predicted memory and seconds.

    A plan without minutes must be there in seconds: memory is not predicted where a bound tells that training and
    prediction surely fit, and seconds are not where trying cases takes long.

    Args:
        timed: seconds are wanted of this configuration.
        most: bytes that training surely keeps below.
    """
    budget = meter.budget
    quick = budget.minutes is None
    if not quick or most + volume_bytes(configuration, grid, budget.target) > budget.memory_bytes:
        footprint = meter.footprint(configuration)
        predicting = inference_bytes(configuration, footprint.forward_bytes, grid, budget.target)
        configuration = replace(configuration, predicted_peak_bytes=footprint.training_bytes,
                                predicted_inference_bytes=predicting)
    if not timed or quick and math.prod(configuration.median_shape) * configuration.network.in_channels > LARGEST_TRIED:
        return configuration
    try:
        return replace(configuration, predicted_seconds=durations(configuration, grid, meter))
    except (AutosegError, MemoryError, RuntimeError) as error:  # a case that cannot be predicted, say: times decide nothing
        log.warning("no times are predicted for %r: %s", configuration.name, error)
        return configuration


def durations(configuration: Configuration, grid: Grid, meter: Meter) -> Durations:
    """Seconds of every stage, from what steps and pilot cases took, for cases of the shapes that the dataset has."""
    times, step = meter.case_time(configuration), meter.seconds(configuration)
    shapes = model_shapes(configuration, grid)
    mean = math.fsum(math.prod(shape) for shape in shapes) / len(shapes)
    validated = math.ceil(grid.case_count * VALIDATION_SHARE) / len(shapes)
    return Durations(
        preprocess=grid.case_count * times.prepare_seconds * mean / times.prepared_voxels,
        training=configuration.optimization.iterations * step,
        validation=times.start_seconds + validated * validating_seconds(configuration, times, shapes),
        case=statistics.median(predicting_seconds(configuration, times, shape) for shape in shapes))


def predicting_seconds(configuration: Configuration, times: CaseTime, shape: Sequence[float]) -> float:
    """Seconds of reading, predicting and writing a case of this shape; what is not the network grows with the voxels."""
    beside = times.predict_seconds * math.prod(shape) / math.prod(times.shape)
    return beside + asked_windows(configuration, times, shape) * times.window_seconds


def validating_seconds(configuration: Configuration, times: CaseTime, shapes: Iterable[Sequence[float]]) -> float:
    """Seconds of predicting, writing and scoring prepared cases of these shapes, without the start of the network."""
    beside = times.validate_seconds / math.prod(times.shape)
    return math.fsum(beside * math.prod(shape) + asked_windows(configuration, times, shape) * times.window_seconds
                     for shape in shapes)


def model_shapes(configuration: Configuration, grid: Grid) -> list[tuple[float, ...]]:
    """Shape of every case on the model grid; slices of a 2-D configuration are as many as were stored."""
    if not grid.shapes:
        return [configuration.median_shape]
    if configuration.network.dims == 3:
        return [*grid.shapes]
    return [(count, *shape[1:]) for count, shape in zip(grid.slices, grid.shapes, strict=True)]


def asked_windows(configuration: Configuration, times: CaseTime, shape: Sequence[float]) -> float:
    """Windows of a case of this shape that go through the network, if as many hold one value as in the case that was tried."""
    return pass_count(configuration, shape) * times.windows / pass_count(configuration, times.shape)


def pass_count(configuration: Configuration, shape: Sequence[float] | None = None) -> int:
    """How many windows, mirrored ones included, a case of this shape on the model grid has; None: the median case."""
    rules = configuration.inference
    windows = math.prod(_windows(size, patch, rules.tile_step) for size, patch in
                        zip(shape or configuration.median_shape, configuration.patch_size, strict=True))
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
            "the network, the image as it is read and as it is prepared, its labels, and the sums of windows for as many planes "
            "as a patch has; of torch and OpenVINO the one that takes more", PREDICTION)}
    if configuration.predicted_peak_bytes is None:
        bound = Reason(f"{inputs}; a budget of {meter.budget.memory_bytes / 1e9:.3g} GB", f"no such step takes more than "
                       f"{most / 1e9:.2g} GB, which fits, as does predicting a case; the exact peak is predicted where that is "
                       "not sure, and for plans with minutes", "planning/fitting.py, three times the largest predictions")
        reasons = dict.fromkeys(reasons, bound)
    return reasons | {"predicted_seconds": _time_reason(configuration, meter)}


def _time_reason(configuration: Configuration, meter: Meter) -> Reason:
    if configuration.predicted_seconds is None:
        return Reason(
            f"median shape {configuration.median_shape}, {configuration.network.in_channels} channels", "not measured: by the "
            "rule book of nnU-Net nothing is; a plan without minutes measures its first configuration, where a case has at most "
            f"{LARGEST_TRIED} voxels in all channels and nothing goes wrong. A time budget (--minutes), or asking for this "
            "configuration alone (-c), measures it", "a plan without a time budget measures little, to be there soon")
    times = meter.case_time(configuration)
    return Reason(
        f"{times.prepare_seconds:.3g} s to prepare a case, {meter.seconds(configuration):.3g} s per step, "
        f"{times.window_seconds:.3g} s per window, {asked_windows(configuration, times, configuration.median_shape):.3g} of them "
        "in a case of median shape; "
        f"{times.predict_seconds:.3g} s for all else in predicting a case of {times.shape} voxels, "
        f"{times.validate_seconds:.3g} s in validating it",
        "cases x preparing; iterations x step; a case is its windows and all else, and the one that is predicted for takes the "
        "median time; validation is as many cases as a fold has and "
        f"{times.start_seconds:.2g} s to compile the network; what is not the network grows with the voxels; one network, one "
        "process; the start of a command is left out",
        "measured on this machine, see budget.json")
