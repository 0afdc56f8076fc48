"""Masks of label maps, made when they are needed: a one-hot target would cost K times the memory."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def in_region(target: Tensor, labels: Sequence[int]) -> Tensor:
    """Bool (B, *spatial): where the target has one of the labels."""
    mask = target == labels[0]
    for label in labels[1:]:
        mask |= target == label
    return mask


def annotated(target: Tensor, ignore: int | None) -> Tensor | None:
    """Bool (B, *spatial): where the target is not `ignore`; None where every voxel counts."""
    return None if ignore is None else torch.ne(target, ignore)
