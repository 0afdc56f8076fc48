"""How long one optimisation step takes: what the plan's time budget is divided by."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from torch import nn

from autoseg.core.plan import Optimization
from autoseg.core.task import Phase
from autoseg.training.device import Stopwatch, synchronize
from autoseg.training.step import Batch, Stepper


def seconds_per_step(
        network: nn.Module, phases: Sequence[Phase], batches: Callable[[int], Batch], optimization: Optimization,
        device: str, steps: int = 3, warmup: int = 1,
) -> float:
    """Median seconds of one step, drawing the batch included, after `warmup` steps that do not count.

    The network is trained by these steps: give one that is thrown away.

    Args:
        batches: iteration -> batch, as for `loop.train`.
    """
    stepper = Stepper(network, phases, optimization, device=device)
    stepper.train()
    measured = []
    for iteration in range(warmup + steps):
        watch = Stopwatch()
        stepper.step(iteration, batches(iteration))
        synchronize(device)
        measured.append(watch.seconds())
    return statistics.median(measured[warmup:])


def median_seconds(actions: Sequence[Callable[[], object]], device: str) -> float:
    """Median seconds of some actions, done in turn; where there are several, the first one warms up and does not count."""
    measured = []
    for action in actions:
        watch = Stopwatch()
        action()
        synchronize(device)
        measured.append(watch.seconds())
    return statistics.median(measured[1:] or measured)
