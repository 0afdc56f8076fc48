"""Deep supervision: the same loss at every resolution of the decoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def deep_supervision_weights(count: int) -> tuple[float, ...]:
    """Weights of `count` outputs, full resolution first: 1 / 2**i with the lowest resolution at 0, summing to 1.

    A single output has weight 1. Source: nnU-Net v2, `_build_loss`.
    """
    if count == 1:
        return (1.0,)
    raw = [0.5**index for index in range(count - 1)]
    return (*(value / sum(raw) for value in raw), 0.0)


def downsample_target(target: Tensor, shape: Sequence[int]) -> Tensor:
    """The label map (B, *spatial) on a grid of `shape` that covers the same box, by nearest neighbour.

    Output voxel i takes input voxel floor((i + 1/2) * size / new size), as torch's `nearest-exact`.
    """
    for axis, (size, new_size) in enumerate(zip(target.shape[1:], shape, strict=True), start=1):
        if size != new_size:
            centres = (2 * torch.arange(new_size, device=target.device) + 1) * size // (2 * new_size)
            target = target.index_select(axis, centres)
    return target


def deeply_supervised(
        loss: Callable[[Tensor, Tensor], Tensor], outputs: Sequence[Tensor] | Tensor, target: Tensor,
) -> Tensor:
    """Weighted sum of `loss(output, target on the output's grid)`; outputs are ordered full resolution first.

    A single tensor, as a network without deep supervision returns it, gives its plain loss.
    """
    if isinstance(outputs, Tensor):
        return loss(outputs, target)
    weighted = [weight * loss(output, downsample_target(target, output.shape[2:]))
                for weight, output in zip(deep_supervision_weights(len(outputs)), outputs, strict=True) if weight > 0]
    return torch.stack(weighted).sum()
