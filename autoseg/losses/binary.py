"""Binary cross-entropy of several findings, the rare ones weighted."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from autoseg.losses.missing import known_values, mean_of_known


def weighted_binary_cross_entropy(logits: Tensor, truths: Tensor, positive_weights: Tensor) -> Tensor:
    """Mean over samples and findings of -(w y log p + (1 - y) log(1 - p)) with p = sigmoid(logits), in nats; at least 0.

    Args:
        logits: (B, T).
        truths: (B, T) of 0 and 1; nan where a finding is not known, which does not count.
        positive_weights: (T,), w of the formula.
    Returns:
        Scalar; 0, with a gradient of 0, where nothing is known.
    Source: Rajpurkar et al. 2017 (arXiv 1711.05225), section 2, up to a factor for each finding.
    """
    wanted, known = known_values(truths)
    terms = functional.binary_cross_entropy_with_logits(
        logits.float(), wanted, pos_weight=positive_weights.float(), reduction="none")
    return mean_of_known(terms, known)
