"""Focal loss: what is told well already counts little."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from autoseg.losses.missing import known_values, mean_of_known


def focal_loss(logits: Tensor, truths: Tensor, gamma: float, alpha: float) -> Tensor:
    """Mean over samples and findings of -a (1 - q)**gamma log q, q the probability of the truth, in nats; at least 0.

    Args:
        logits: (B, T).
        truths: (B, T) of 0 and 1; nan where a finding is not known, which does not count.
        gamma: at least 0; 0 is the cross-entropy weighted by a.
        alpha: a of truths of 1; those of 0 have 1 - alpha.
    Returns:
        Scalar; 0, with a gradient of 0, where nothing is known.
    Source: Lin et al. 2017 (arXiv 1708.02002), eq. 5, which divides by the positives of an image; here it is the mean.
    """
    wanted, known = known_values(truths)
    signed = logits.float() * (2 * wanted - 1)
    # The power through its logarithm: 1 - q is 0 in float32 from logits of 17, where a power below 1 has no gradient.
    doubt = (gamma * functional.logsigmoid(-signed)).exp()
    weight = alpha * wanted + (1 - alpha) * (1 - wanted)
    return mean_of_known(-weight * doubt * functional.logsigmoid(signed), known)
