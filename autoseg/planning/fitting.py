"""Batch and patch that keep to the memory budget, by the predicted peak of a real training step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from autoseg.core.errors import ResourceError
from autoseg.core.plan import Configuration, Reason
from autoseg.planning.budget import Meter
from autoseg.planning.explain import Reasons
from autoseg.planning.memory import SMALLEST_BATCH, parameter_count
from autoseg.planning.unet import Blueprint, fit_blueprint, plan_unet

# Bytes that no step exceeds for each value that nnU-Net's count finds in a batch, for each parameter, and at all: three
# times what was predicted for plain and residual U-Nets, 2-D and 3-D, in 16 and 32 bits (at most 15.6, 24 and 164e6). They
# tell without a prediction that a small candidate fits.
MOST_BYTES_PER_VALUE, MOST_BYTES_PER_PARAMETER, MOST_BYTES_AT_ALL = 48, 72, 5 * 10**8

PREDICTION = "predicted on tensors without memory (training/memory.py), checked in benchmarks/README.md"


def fit_to_memory(blueprint: Blueprint, meter: Meter) -> tuple[Blueprint, Reasons]:
    """The blueprint within the memory of the budget, and why where it had to shrink.

    First the batch shrinks to no less than 2 samples; then the patch, as nnU-Net shortens it, as often as is needed.
    Peaks grow with batch and patch, so that few of them have to be predicted.

    Raises:
        ResourceError: the smallest patch and batch do not fit; says what they need.
    """
    def peak(limited: Blueprint) -> int:
        return meter.footprint(plan_unet(limited)).training_bytes

    budget = meter.budget.memory_bytes
    if most_bytes(blueprint) <= budget:
        return blueprint, {}
    before, needed = plan_unet(blueprint), peak(blueprint)
    if needed <= budget:
        return blueprint, {}
    smallest = _limited(blueprint, batch=SMALLEST_BATCH)
    least = peak(smallest)
    if least <= budget:
        per_sample = max(1, (needed - least) // max(1, before.batch_size - SMALLEST_BATCH))
        count = _last_that_fits(SMALLEST_BATCH, SMALLEST_BATCH + (budget - least) // per_sample,
                                lambda batch: peak(_limited(blueprint, batch=batch)) <= budget)
        fitted = _limited(blueprint, batch=count)
    else:
        fitted = _shortened(smallest, peak, budget)
    return fitted, _reasons(before, needed, plan_unet(fitted), peak(fitted), budget)


def most_bytes(blueprint: Blueprint) -> int:
    """Bytes that a training step surely keeps below, without a prediction."""
    configuration = plan_unet(blueprint)
    values = fit_blueprint(blueprint).values * configuration.batch_size
    return (values * MOST_BYTES_PER_VALUE + parameter_count(configuration.network) * MOST_BYTES_PER_PARAMETER
            + MOST_BYTES_AT_ALL)


def _limited(blueprint: Blueprint, *, batch: int) -> Blueprint:
    return replace(blueprint, limits=replace(blueprint.limits, largest_batch=batch))


def _last_that_fits(low: int, guess: int, fits: Callable[[int], bool]) -> int:
    """The largest number up to `guess` that fits; `low` does."""
    while guess > low and not fits(guess):
        guess -= 1
    return max(low, guess)


def _shortened(blueprint: Blueprint, peak: Callable[[Blueprint], int], budget: int) -> Blueprint:
    """The blueprint whose patch is shortened as few times as makes it fit, by bisection; it does not fit as it is."""
    def shortened(times: int) -> Blueprint:
        return replace(blueprint, limits=replace(blueprint.limits, shorter=times))

    most = 0
    while _can_be_planned(shortened(most + 1)):
        most += 1
    if most == 0 or peak(shortened(most)) > budget:
        least = plan_unet(shortened(most))
        raise ResourceError(
            f"configuration {least.name!r}: the smallest training step, {least.batch_size} patches of {least.patch_size} voxels "
            f"(model axes), needs {peak(shortened(most)) / 1e9:.2f} GB, more than the memory budget of {budget / 1e9:.2f} GB",
            hint=f"give at least --memory {peak(shortened(most)) / 1e9 + 0.01:.2f}GB")
    low, high = 0, most
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


def _reasons(before: Configuration, needed: int, after: Configuration, fits: int, budget: int) -> Reasons:
    inputs = (f"batch {before.batch_size} of patch {before.patch_size}, by nnU-Net's count, would take {needed / 1e9:.3g} GB; "
              f"batch {after.batch_size} of patch {after.patch_size} takes {fits / 1e9:.3g} GB of {budget / 1e9:.3g} GB")
    batch = Reason(inputs, "fewer samples, but at least 2, until the predicted peak fits into the memory budget", PREDICTION)
    if after.patch_size == before.patch_size:
        return {"batch_size": batch}
    return {"batch_size": batch, "patch_size": Reason(
        inputs, "two samples did not fit either: the axis that covers most of the median shape is shortened until the "
        "predicted peak fits into the memory budget", PREDICTION)}
