"""Cross-entropy of classes that exclude each other, for whole images."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from autoseg.losses.missing import MISSING_CLASS


def softmax_cross_entropy(logits: Tensor, classes: Tensor, class_weights: Tensor | None,
                          label_smoothing: float = 0.0) -> Tensor:
    """Mean over samples of -sum over classes of w t log softmax(logits), in nats; at least 0.

    t is 1 - s + s / K at the class of the sample and s / K at the others, with s the smoothing.

    Args:
        logits: (B, K).
        classes: (B,) in [0, K), of any integer type; -1 where the class is not known, which does not count.
        class_weights: (K,), w of the formula; None: 1.
        label_smoothing: in [0, 1].
    Returns:
        Scalar; 0, with a gradient of 0, where no class is known. It is divided by the number of samples, not by the sum of
        their weights: in a batch of one class the weight would otherwise cancel.
    Source: Szegedy et al. 2016 (arXiv 1512.00567), section 7, for the smoothing.
    """
    weights = None if class_weights is None else class_weights.float()
    total = functional.cross_entropy(logits.float(), classes.long(), weights, ignore_index=MISSING_CLASS, reduction="sum",
                                     label_smoothing=label_smoothing)
    return total / (classes != MISSING_CLASS).sum().clamp_min(1)
