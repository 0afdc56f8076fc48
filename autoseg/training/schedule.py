"""Learning rate as a pure function of the iteration."""

from __future__ import annotations

from autoseg.core.plan import Optimization


def learning_rate(iteration: int, optimization: Optimization) -> float:
    """Learning rate of iteration 0, 1, ..., `iterations` - 1.

    Warm-up: linear, (i + 1) / warmup of the full rate. Then poly: rate * (1 - t)**power, where t is the share of the
    iterations after warm-up that are done; with `schedule_steps_per_epoch` it moves at the start of an epoch only.
    Source: nnU-Net v2 `PolyLRScheduler` (rate * (1 - epoch / epochs)**0.9) without warm-up.
    """
    warmup = optimization.warmup_iterations
    if iteration < warmup:
        return optimization.learning_rate * (iteration + 1) / warmup
    done = iteration
    if optimization.schedule_steps_per_epoch:
        done = max(warmup, iteration - iteration % optimization.iterations_per_epoch)
    share = (done - warmup) / max(1, optimization.iterations - warmup)
    return optimization.learning_rate * max(0.0, 1 - share) ** optimization.poly_power
