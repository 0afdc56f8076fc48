"""Several networks as one: the mean of their logits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor

from autoseg.inference.sliding_window import Forward


def averaged(forwards: Sequence[Forward]) -> Forward:
    """A forward that returns the mean of the outputs of all members, in float32.

    The members must see the same windows (same patch size). Averaging every window gives the same logits as averaging
    whole images, with one accumulator instead of one per member.
    """
    if len(forwards) == 1:
        return forwards[0]
    return lambda windows: mean_logits(forward(windows) for forward in forwards)


def mean_logits(members: Iterable[Tensor]) -> Tensor:
    """Mean of tensors of one shape, float32; they are drawn one after the other, so two are in memory at a time.

    Raises:
        ValueError: there is no member.
    """
    total, count = None, 0
    for logits in members:
        total = logits.float() if total is None else total + logits.float()
        count += 1
    if total is None:
        raise ValueError("the mean of no logits is not defined; give at least one member")
    return total / count
