"""Cross-entropy for mutually exclusive labels."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def cross_entropy_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Mean over all voxels of -log softmax(logits) at the target label, in nats; scalar, at least 0.

    Args:
        logits: (B, K, *spatial).
        target: (B, *spatial) integers in [0, K), of any integer type.
    """
    return functional.cross_entropy(logits.float(), target.long())
