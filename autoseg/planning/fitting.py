"""Batch, patch and windows that keep to the memory budget, by the predicted peaks of a training step and of prediction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from autoseg.core.errors import ResourceError
from autoseg.core.plan import Configuration, Reason
from autoseg.planning.budget import Meter
from autoseg.planning.case_memory import inference_bytes, volume_bytes
from autoseg.planning.explain import Reasons
from autoseg.planning.memory import SMALLEST_BATCH, parameter_count
from autoseg.planning.unet import Blueprint, fit_blueprint, plan_unet

# Bytes that no step exceeds for each value that nnU-Net's count finds in a batch, for each parameter, and at all: three
# times what was predicted for plain and residual U-Nets, 2-D and 3-D, in 16 and 32 bits (at most 15.6, 24 and 164e6). They
# tell without a prediction that a small candidate fits.
MOST_BYTES_PER_VALUE, MOST_BYTES_PER_PARAMETER, MOST_BYTES_AT_ALL = 48, 72, 5 * 10**8

PREDICTION = "predicted on tensors without memory (training/memory.py), checked in benchmarks/README.md"


def fit_to_memory(blueprint: Blueprint, meter: Meter) -> tuple[Blueprint, Reasons]:
    """The blueprint within the memory of the budget, in training and in prediction, and why where it had to shrink.

    For training the batch shrinks to no less than 2 samples, then the patch, as nnU-Net shortens it, as often as is needed;
    for prediction the windows that are predicted together, to one, then the patch. Peaks grow with all of these, so that
    few of them have to be predicted.

    Raises:
        ResourceError: the smallest patch and batch do not fit; says what they need.
    """
    budget = meter.budget
    draft = plan_unet(blueprint)
    if most_bytes(blueprint) + volume_bytes(draft, blueprint.grid, budget.target) <= budget.memory_bytes:
        return blueprint, {}
    fitted, reasons = _fit_training(blueprint, meter)
    fitted, further = _fit_prediction(fitted, meter)
    return fitted, reasons | further


def _fit_training(blueprint: Blueprint, meter: Meter) -> tuple[Blueprint, Reasons]:
    def peak(limited: Blueprint) -> int:
        return meter.footprint(plan_unet(limited)).training_bytes

    budget = meter.budget.memory_bytes
    before, needed = plan_unet(blueprint), peak(blueprint)
    if needed <= budget:
        return blueprint, {}
    smallest = _limited(blueprint, largest_batch=SMALLEST_BATCH)
    least = peak(smallest)
    if least <= budget:
        count = _most_that_fit(before.batch_size, SMALLEST_BATCH, needed, least, budget,
                               lambda batch: peak(_limited(blueprint, largest_batch=batch)))
        fitted = _limited(blueprint, largest_batch=count)
    else:
        fitted = _shortened(smallest, peak, budget, "training step")
    return fitted, _training_reasons(before, needed, plan_unet(fitted), peak(fitted), budget)


def _fit_prediction(blueprint: Blueprint, meter: Meter) -> tuple[Blueprint, Reasons]:
    """The same for prediction, of a blueprint whose training fits."""
    budget = meter.budget.memory_bytes

    def peak(limited: Blueprint) -> int:
        configuration = plan_unet(limited)
        return inference_bytes(configuration, meter.footprint(configuration).forward_bytes, limited.grid, meter.budget.target)

    def larger(limited: Blueprint) -> int:
        return max(meter.footprint(plan_unet(limited)).training_bytes, peak(limited))

    before, needed = plan_unet(blueprint), peak(blueprint)
    if needed <= budget:
        return blueprint, {}
    alone = _limited(blueprint, largest_windows=1)
    least = peak(alone)
    if least <= budget:
        count = _most_that_fit(before.inference.tiles_per_batch, 1, needed, least, budget,
                               lambda windows: peak(_limited(blueprint, largest_windows=windows)))
        fitted = _limited(blueprint, largest_windows=count)
    else:
        fitted = _shortened(alone, larger, budget, "prediction of a median case")
    return fitted, _prediction_reasons(before, needed, plan_unet(fitted), peak(fitted), budget)


def most_bytes(blueprint: Blueprint) -> int:
    """Bytes that a training step surely keeps below, without a prediction."""
    configuration = plan_unet(blueprint)
    values = fit_blueprint(blueprint).values * configuration.batch_size
    return (values * MOST_BYTES_PER_VALUE + parameter_count(configuration.network) * MOST_BYTES_PER_PARAMETER
            + MOST_BYTES_AT_ALL)


def _limited(blueprint: Blueprint, **limits: Any) -> Blueprint:
    return replace(blueprint, limits=replace(blueprint.limits, **limits))


def _most_that_fit(before: int, smallest: int, needed: int, least: int, budget: int, peak: Callable[[int], int]) -> int:
    """The largest number that fits into the budget: `smallest` takes `least` bytes and `before`, which does not, `needed`."""
    each = max(1, (needed - least) // max(1, before - smallest))
    guess = smallest + (budget - least) // each
    while guess > smallest and peak(guess) > budget:
        guess -= 1
    return max(smallest, guess)


def _shortened(blueprint: Blueprint, peak: Callable[[Blueprint], int], budget: int, what: str) -> Blueprint:
    """The blueprint whose patch is shortened as few times as makes it fit, by bisection; it does not fit as it is."""
    least = blueprint.limits.shorter

    def shortened(times: int) -> Blueprint:
        return _limited(blueprint, shorter=times)

    most = least
    while _can_be_planned(shortened(most + 1)):
        most += 1
    if most == least or peak(shortened(most)) > budget:
        smallest = plan_unet(shortened(most))
        raise ResourceError(
            f"configuration {smallest.name!r}: the smallest {what}, with {smallest.batch_size} patches of "
            f"{smallest.patch_size} voxels (model axes), needs {peak(shortened(most)) / 1e9:.2f} GB, more than the memory budget "
            f"of {budget / 1e9:.2f} GB", hint=f"give at least --memory {peak(shortened(most)) / 1e9 + 0.01:.2f}GB")
    low, high = least, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if peak(shortened(middle)) <= budget else (middle, high)
    return shortened(high)


def _can_be_planned(blueprint: Blueprint) -> bool:
    """A patch so small that nothing is left to stride has one stage, which is no U-Net."""
    try:
        return len(plan_unet(blueprint).network.features) > 1
    except ResourceError:
        return False


def _training_reasons(before: Configuration, needed: int, after: Configuration, fits: int, budget: int) -> Reasons:
    inputs = (f"batch {before.batch_size} of patch {before.patch_size}, by nnU-Net's count, would take {needed / 1e9:.3g} GB; "
              f"batch {after.batch_size} of patch {after.patch_size} takes {fits / 1e9:.3g} GB of {budget / 1e9:.3g} GB")
    batch = Reason(inputs, "fewer samples, but at least 2, until the predicted peak fits into the memory budget", PREDICTION)
    if after.patch_size == before.patch_size:
        return {"batch_size": batch}
    return {"batch_size": batch, "patch_size": Reason(
        inputs, "two samples did not fit either: the axis that covers most of the median shape is shortened until the "
        "predicted peak fits into the memory budget", PREDICTION)}


def _prediction_reasons(before: Configuration, needed: int, after: Configuration, fits: int, budget: int) -> Reasons:
    inputs = (f"predicting a case of {before.median_shape} voxels would take {needed / 1e9:.3g} GB with "
              f"{before.inference.tiles_per_batch} windows of {before.patch_size} together; with "
              f"{after.inference.tiles_per_batch} of {after.patch_size} it takes {fits / 1e9:.3g} GB of {budget / 1e9:.3g} GB")
    windows = Reason(inputs, "fewer windows together until the predicted peak of prediction fits into the memory budget",
                     PREDICTION)
    if after.patch_size == before.patch_size:
        return {"inference.tiles_per_batch": windows}
    return {"inference.tiles_per_batch": windows, "patch_size": Reason(
        inputs, "one window did not fit either, beside the image and the sums of windows: the axis that covers most of the "
        "median shape is shortened until the predicted peaks fit into the memory budget", PREDICTION)}
