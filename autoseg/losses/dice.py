"""Soft Dice loss for mutually exclusive labels, and for regions that overlap."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from autoseg.losses.masks import annotated, in_region

# Keeps the quotient finite when a label is absent and nothing is predicted and smooth is 0 (nnU-Net's clip).
_SMALLEST_DENOMINATOR = 1e-8


def soft_dice_loss(logits: Tensor, target: Tensor, *, batch_dice: bool, smooth: float = 1e-5,
                   ignore: int | None = None) -> Tensor:
    """One minus the mean soft Dice over the foreground labels; scalar, 0 is perfect, 1 is no overlap.

    Dice = (2 sum(p t) + smooth) / (sum(p) + sum(t) + smooth) with p = softmax(logits).

    Args:
        logits: (B, K, *spatial), K >= 2; channel 0 is the background, which does not count.
        target: (B, *spatial) integers in [0, K).
        batch_dice: sums run over the whole batch, else over each sample, whose Dice are then averaged.
        ignore: value of the target where voxels do not count in any sum.
    Source: Drozdzal et al. 2016 as in nnU-Net's `MemoryEfficientSoftDiceLoss`, which returns the same less 1. The
        target is never expanded to K channels: one mask at a time.
    """
    probabilities = torch.softmax(logits.float(), dim=1).unbind(1)[1:]
    masks = (target == label for label in range(1, logits.shape[1]))
    return _mean_dice_loss(probabilities, masks, annotated(target, ignore), batch_dice, smooth)


def region_dice_loss(logits: Tensor, target: Tensor, *, regions: Sequence[Sequence[int]], batch_dice: bool,
                     smooth: float = 1e-5, ignore: int | None = None) -> Tensor:
    """One minus the mean soft Dice over regions, with p = sigmoid(logits); all channels count, none is background.

    Args:
        logits: (B, K, *spatial), one channel per region.
        regions: per channel, the label indices that it is the union of.
        target, batch_dice, smooth, ignore: as in `soft_dice_loss`.
    """
    probabilities = torch.sigmoid(logits.float()).unbind(1)
    masks = (in_region(target, labels) for labels in regions)
    return _mean_dice_loss(probabilities, masks, annotated(target, ignore), batch_dice, smooth)


def warped_dice_loss(shares: Tensor, target: Tensor, *, labels: Sequence[int], batch_dice: bool = False,
                     smooth: float = 1e-5) -> Tensor:
    """One minus the mean soft Dice of labels that were warped; scalar, 0 is perfect.

    Args:
        shares: (B, K, *spatial), how much of each voxel has each label: warped masks.
        target: (B, *spatial) integers.
        labels: the value in the target of each of the K masks.
        batch_dice, smooth: as in `soft_dice_loss`. A label that is in neither counts as perfect.
    """
    return _mean_dice_loss(shares.float().unbind(1), (target == label for label in labels), None, batch_dice, smooth)


def _mean_dice_loss(probabilities: Sequence[Tensor], masks: Iterable[Tensor], counts: Tensor | None, batch_dice: bool,
                    smooth: float) -> Tensor:
    sums = (_sums(p, mask, counts) for p, mask in zip(probabilities, masks, strict=True))
    overlaps, voxels = zip(*sums, strict=True)
    overlap, total = torch.stack(overlaps, dim=1), torch.stack(voxels, dim=1)
    if batch_dice:
        overlap, total = overlap.sum(0), total.sum(0)
    return 1 - ((2 * overlap + smooth) / (total + smooth).clamp_min(_SMALLEST_DENOMINATOR)).mean()


def _sums(probability: Tensor, mask: Tensor, counts: Tensor | None) -> tuple[Tensor, Tensor]:
    """Per sample (B,): sum of p t, and sum of p plus sum of t, over the voxels that count."""
    if counts is not None:
        probability, mask = probability * counts, mask & counts
    overlap = (probability * mask).flatten(1).sum(1)
    return overlap, probability.flatten(1).sum(1) + mask.flatten(1).sum(1)
