"""Means over what is not missing: the one way in which losses of whole images leave targets out."""

from __future__ import annotations

import torch
from torch import Tensor

# Class of a sample whose class is not known.
MISSING_CLASS = -1


def known_values(truths: Tensor) -> tuple[Tensor, Tensor]:
    """Truths as float32 with 0 where they are nan, and a mask of the same shape: where they are known."""
    known = ~torch.isnan(truths)
    return torch.where(known, truths, torch.zeros_like(truths)).float(), known


def known_classes(classes: Tensor) -> tuple[Tensor, Tensor]:
    """Classes (B,) as int64 with 0 where they are missing, and a mask of the same shape: where they are known."""
    known = classes != MISSING_CLASS
    return torch.where(known, classes, torch.zeros_like(classes)).long(), known


def mean_of_known(terms: Tensor, known: Tensor) -> Tensor:
    """Mean of the terms that are known; 0, with a gradient of 0, where none is."""
    return torch.where(known, terms, torch.zeros_like(terms)).sum() / known.sum().clamp_min(1)
