"""Cross-entropy for mutually exclusive labels, and for regions that overlap."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from autoseg.losses.masks import annotated, in_region


def cross_entropy_loss(logits: Tensor, target: Tensor, *, ignore: int | None = None) -> Tensor:
    """Mean over all voxels of -log softmax(logits) at the target label, in nats; scalar, at least 0.

    Args:
        logits: (B, K, *spatial).
        target: (B, *spatial) integers in [0, K), of any integer type.
        ignore: value of the target where voxels do not count; the loss is 0 where none counts.
    """
    if ignore is None:
        return functional.cross_entropy(logits.float(), target.long())
    total = functional.cross_entropy(logits.float(), target.long(), ignore_index=ignore, reduction="sum")
    return total / (target != ignore).sum().clamp_min(1)


def region_cross_entropy_loss(logits: Tensor, target: Tensor, *, regions: Sequence[Sequence[int]],
                              ignore: int | None = None) -> Tensor:
    """Mean over voxels and regions of the binary cross-entropy of sigmoid(logits), in nats; scalar, at least 0.

    Args:
        logits: (B, K, *spatial), one channel per region.
        target: (B, *spatial) label indices.
        regions: per channel, the label indices that it is the union of.
        ignore: value of the target where voxels do not count; the loss is 0 where none counts.
    Source: nnU-Net v2, `DC_and_BCE_loss`; with an ignored label that one divides by voxels only, so that the term grows
        with the number of regions. Here it is the mean over both, with and without.
    """
    counts = annotated(target, ignore)
    terms = [_binary_terms(plane.float(), in_region(target, labels), counts)
             for plane, labels in zip(logits.unbind(1), regions, strict=True)]
    voxels = target.numel() if counts is None else counts.sum().clamp_min(1)
    return torch.stack(terms).sum() / (voxels * len(terms))


def _binary_terms(logits: Tensor, mask: Tensor, counts: Tensor | None) -> Tensor:
    """Sum over the voxels that count."""
    terms = functional.binary_cross_entropy_with_logits(logits, mask.float(), reduction="none")
    return (terms if counts is None else terms * counts).sum()
