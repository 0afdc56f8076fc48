"""Squared error of values."""

from __future__ import annotations

from torch import Tensor

from autoseg.losses.missing import known_values, mean_of_known


def squared_error(predicted: Tensor, truths: Tensor) -> Tensor:
    """Mean over samples and values of (predicted - truth)**2, in the square of their unit.

    Args:
        predicted: (B, T).
        truths: (B, T); nan where a value is not known, which does not count.
    Returns:
        Scalar; 0, with a gradient of 0, where nothing is known.
    """
    wanted, known = known_values(truths)
    return mean_of_known((predicted.float() - wanted).square(), known)
