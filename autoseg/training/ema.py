"""Exponential moving average of a network's weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """Moving average over steps of parameters, and of what norms keep of batches (means and variances; not their counts).

    Averaged weights with the statistics of the last ones would be normalised by another network's features.

    The weight of step n (1, 2, ...) is max(1 - decay, 1 / n): a plain mean until the window of the decay is full, so
    that the first random weights leave no trace (as a bias correction does for Adam's moments).
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        # Parameters first: checkpoints of networks without such statistics name the same tensors as before they were averaged.
        self.parameters: list[Tensor] = [*network.parameters(), *(b for b in network.buffers() if b.is_floating_point())]
        self.average = [tensor.detach().clone() for tensor in self.parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the network's weights after optimisation step `step`, counted from 1."""
        torch._foreach_lerp_(self.average, list(self.parameters), max(1 - self.decay, 1 / step))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the network has the averaged weights; after, its own again."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the network's weights and the average, without new memory for more than one tensor."""
        for parameter, average in zip(self.parameters, self.average, strict=True):
            kept = parameter.detach().clone()
            parameter.copy_(average)
            average.copy_(kept)

    def tensors(self) -> dict[str, Tensor]:
        """The average by position, for a checkpoint."""
        return {f"{index:05d}": average for index, average in enumerate(self.average)}

    @torch.no_grad()
    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take the average from `tensors`."""
        for name, average in self.tensors().items():
            average.copy_(tensors[name])
