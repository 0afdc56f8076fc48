"""A displacement as a network of sines from a point to a vector, with its derivatives in closed form."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations_with_replacement

import torch
from torch import Tensor, nn


class Siren(nn.Module):
    """Points (N, D) in [-1, 1] to vectors (N, D), by linear layers with sines between them.

    Source: Sitzmann et al. 2020 (SIREN), section 3.2: weights of the first layer uniform within 1 / inputs, of later ones within
    sqrt(6 / inputs) / frequency. Wolterink et al. 2022 (IDIR) take three hidden layers of 256 and a frequency of 32.

    Args:
        dims: of the space.
        widths: of the hidden layers.
        frequency: what every sine's argument is multiplied by.
        last_scale: factor of the weights of the last layer; 0: the displacement begins at 0.
    """

    def __init__(self, dims: int, widths: Sequence[int], *, frequency: float, last_scale: float = 1.0) -> None:
        super().__init__()
        self.frequency = frequency
        sizes = (dims, *widths, dims)
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in zip(sizes, sizes[1:], strict=False))
        for number, (layer, inputs) in enumerate(zip(self.layers, sizes, strict=False)):
            bound = 1 / inputs if number == 0 else math.sqrt(6 / inputs) / frequency
            scale = last_scale if number == len(self.layers) - 1 else 1.0
            nn.init.uniform_(layer.weight, -bound * scale, bound * scale)  # type: ignore[arg-type]
            if scale != 1:
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, points: Tensor) -> Tensor:
        """Vectors at the points."""
        return self._vectors(points)

    def _vectors(self, points: Tensor) -> Tensor:
        values = points
        for layer in list(self.layers)[:-1]:
            values = torch.sin(self.frequency * layer(values))
        return self.layers[-1](values)

    def with_first(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors (N, D), and their derivatives (N, D, D): entry [:, d, e] of component d along axis e."""
        values, first, _ = self._with_derivatives(points, second=False)
        return values, first.movedim(0, 2)

    def with_second(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `with_first`, and the second derivatives (N, D, P) along the pairs of axes in `axis_pairs` order."""
        values, first, second = self._with_derivatives(points, second=True)
        return values, first.movedim(0, 2), second.movedim(0, 2)

    def _with_derivatives(self, points: Tensor, *, second: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Values (N, D), first (D, N, D) and second derivatives (P, N, D), carried through the layers by the chain rule.

        Training differentiates them once, as any other value: automatic second derivatives would cost a graph of graphs.
        """
        dims = points.shape[1]
        pairs = axis_pairs(dims) if second else []
        values = points
        first = torch.eye(dims, dtype=points.dtype, device=points.device)[:, None, :].expand(dims, len(points), dims)
        curved = points.new_zeros(len(pairs), len(points), dims)
        for number, layer in enumerate(self.layers):
            values = layer(values)
            first, curved = first @ layer.weight.T, curved @ layer.weight.T  # type: ignore[operator]
            if number == len(self.layers) - 1:
                break
            values, first, curved = self.frequency * values, self.frequency * first, self.frequency * curved
            sine, cosine = torch.sin(values), torch.cos(values)
            if pairs:
                products = torch.stack([first[a] * first[b] for a, b in pairs])
                curved = cosine * curved - sine * products
            values, first = sine, cosine * first
        return values, first, curved


def axis_pairs(dims: int) -> list[tuple[int, int]]:
    """Pairs of axes of second derivatives, each once; pairs of two different axes stand for both orders."""
    return list(combinations_with_replacement(range(dims), 2))
