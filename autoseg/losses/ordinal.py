"""Cross-entropy of grades: is the grade above the first, above the second, and so on."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from autoseg.losses.missing import known_classes, mean_of_known


def cumulative_cross_entropy(logits: Tensor, classes: Tensor) -> Tensor:
    """Mean over samples of the sum over thresholds k of the binary cross-entropy of "the grade is above k", in nats.

    Args:
        logits: (B, K - 1) of "above grade k" for k = 0 .. K - 2.
        classes: (B,) grades in [0, K), of any integer type; -1 where it is not known, which does not count.
    Returns:
        Scalar, at least 0; 0, with a gradient of 0, where no grade is known.
    Source: Cao, Mirjalili and Raschka 2020 (CORAL, arXiv 1901.07884), eq. 4 with equal importance. That its probabilities
        fall with k needs outputs that share their weights (`Classifier.shared_output`).
    """
    grades, known = known_classes(classes)
    thresholds = torch.arange(logits.shape[1], device=logits.device)
    above = (grades[:, None] > thresholds).float()
    terms = functional.binary_cross_entropy_with_logits(logits.float(), above, reduction="none")
    return mean_of_known(terms.sum(1), known)
