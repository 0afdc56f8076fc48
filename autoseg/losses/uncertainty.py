"""Losses of several tasks as one, each weighed by what is learned of its uncertainty."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class UncertaintyWeights(nn.Module):
    """sum over tasks of exp(-s) L + s, with s the logarithm of a task's variance, learned with everything else.

    Where s has settled, exp(s) is the mean of L: every task weighs one over its own loss, so that no task drowns another one by
    the unit of its loss, and none has a weight to be chosen. All s start at 0: the plain sum.

    Source: Kendall, Gal and Cipolla 2018 (arXiv 1705.07115), eq. 7 to 10, with s learned for numerical stability as in
    section 3.2; factors of one half are left out, which only shift s.
    """

    def __init__(self, tasks: int) -> None:
        super().__init__()
        self.log_variances = nn.Parameter(torch.zeros(tasks))

    def forward(self, losses: Sequence[Tensor]) -> Tensor:
        """Scalar from one scalar loss per task, each at least 0; a loss below 0 would have no smallest sum."""
        return (torch.exp(-self.log_variances) * torch.stack(list(losses)) + self.log_variances).sum()
