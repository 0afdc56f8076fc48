"""Hinge losses of support vector machines with several classes."""

from __future__ import annotations

import torch
from torch import Tensor

from autoseg.losses.missing import known_classes, mean_of_known


def crammer_singer(logits: Tensor, classes: Tensor, squared: bool = False) -> Tensor:
    """Mean over samples of max(0, 1 + largest other logit - logit of the class); at least 0.

    Args:
        logits: (B, K), K >= 2.
        classes: (B,) in [0, K), of any integer type; -1 where the class is not known, which does not count.
        squared: the square of it (L2-SVM, Tang 2013, arXiv 1306.0239), whose gradient has no jump.
    Returns:
        Scalar; 0, with a gradient of 0, where no class is known.
    Source: Crammer and Singer 2001 (JMLR 2:265), eq. 4.
    """
    shortfalls, known = _shortfalls(logits, classes)
    worst = shortfalls.amax(1)
    return mean_of_known(worst.square() if squared else worst, known)


def weston_watkins(logits: Tensor, classes: Tensor, squared: bool = False) -> Tensor:
    """As `crammer_singer`, with the sum over all other classes of max(0, 1 + other logit - logit of the class).

    It is what lecture notes and some programs call the hinge loss of several classes, and moves every other class at once.
    Source: Weston and Watkins 1999 (ESANN), eq. 3.
    """
    shortfalls, known = _shortfalls(logits, classes)
    return mean_of_known((shortfalls.square() if squared else shortfalls).sum(1), known)


def _shortfalls(logits: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """What each logit lacks to lie 1 below that of the class, at least 0 and 0 at the class itself: (B, K); known: (B,)."""
    index, known = known_classes(classes)
    own = logits.float().gather(1, index[:, None])
    shortfalls = (1 + logits.float() - own).clamp_min(0)
    return torch.scatter(shortfalls, 1, index[:, None], 0.0), known
