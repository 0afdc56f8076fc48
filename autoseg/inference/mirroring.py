"""Test-time mirroring: the mean over all flips."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from torch import Tensor

from autoseg.inference.sliding_window import Forward


def mirrored(forward: Forward, axes: Sequence[int], *, left_right_axis: int | None = None,
             pairs: Sequence[tuple[int, int]] = ()) -> Forward:
    """A forward that returns the mean of the outputs over all combinations of flips, each flipped back.

    Args:
        forward: (B, C, *spatial) -> (B, K, *spatial).
        axes: model axes (0, 1, 2 for z, y, x) that may be flipped; 1 and 2 for a network that sees slices (Y, X).
            2**len(axes) forward passes are made; without axes, `forward` itself is returned.
        left_right_axis: the model axis from right to left.
        pairs: outputs (k, l) of a left and a right structure: they change places where that axis is flipped, as the
            mirror image of a left kidney is a right one.
    Source: nnU-Net v2, `predict_from_raw_data.py` (mean of logits), which swaps nothing.
    """
    if not axes:
        return forward
    flips = [flip for count in range(1, len(axes) + 1) for flip in combinations([axis - 3 for axis in axes], count)]

    def mean_over_flips(windows: Tensor) -> Tensor:
        if min(axes) < 5 - windows.ndim:
            raise ValueError(f"model axes {tuple(axes)} cannot be flipped in windows of shape {tuple(windows.shape)}")
        total = forward(windows).float()
        for flip in flips:
            output = forward(windows.flip(flip)).float().flip(flip)
            swaps = left_right_axis is not None and left_right_axis - 3 in flip
            total = total + (output[:, _order(output.shape[1], pairs)] if swaps else output)
        return total / (len(flips) + 1)

    return mean_over_flips


def _order(count: int, pairs: Sequence[tuple[int, int]]) -> list[int]:
    """Outputs 0 to count - 1 with those of every pair exchanged."""
    order = list(range(count))
    for first, second in pairs:
        order[first], order[second] = second, first
    return order
