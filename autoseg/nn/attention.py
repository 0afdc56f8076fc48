"""Attention of convolutional networks: which features count, and which places. In two and three dimensions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from autoseg.core.errors import choose
from autoseg.nn.blocks import Norm, convolution

# Features that are squeezed into one (Hu et al. 2018, section 4.1 and table 10; CBAM takes the same).
REDUCTION = 16
# Fewest squeezed features: below some 64 features a sixteenth is too few to tell anything.
FEWEST = 4
# Of CBAM's spatial attention (Woo et al. 2018, table 2: 7 is better than 3).
SPATIAL_KERNEL = 7


class SqueezeExcitation(nn.Module):
    """Every feature weighed by what the whole image has of all features.

    Source: Hu et al. 2018 (arXiv 1709.01507), eq. 2 to 4: sigmoid(W2 relu(W1 mean)), with biases.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weigh = _squeezing(channels)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, *places) to the same shape."""
        return _scaled(features, torch.sigmoid(self.weigh(features.flatten(2).mean(2))))


class Cbam(nn.Module):
    """Features weighed by their mean and largest value over places, then places by mean and largest value over features.

    Source: Woo et al. 2018 (CBAM, arXiv 1807.06521), eq. 2 and 3; its published code has a norm after the spatial convolution.
    """

    def __init__(self, channels: int, dims: int, norm: Norm) -> None:
        super().__init__()
        self.weigh = _squeezing(channels)
        self.look = nn.Sequential(convolution(2, 1, kernel=(SPATIAL_KERNEL,) * dims), norm(1))

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, *places) to the same shape."""
        places = features.flatten(2)
        features = _scaled(features, torch.sigmoid(self.weigh(places.mean(2)) + self.weigh(places.amax(2))))
        extremes = torch.stack([features.amax(1), features.mean(1)], dim=1)
        return features * torch.sigmoid(self.look(extremes))


def attention_of(kind: str, channels: int, dims: int, norm: Norm) -> nn.Module:
    """Attention (B, channels, *places) -> the same shape: `squeeze_excitation`, `cbam` or `none`."""
    kinds: dict[str, Callable[[], nn.Module]] = {
        "none": nn.Identity, "squeeze_excitation": lambda: SqueezeExcitation(channels),
        "cbam": lambda: Cbam(channels, dims, norm)}
    return choose(kinds, kind, "attention")()


def _squeezing(channels: int) -> nn.Sequential:
    """(B, C) to (B, C), before the sigmoid, through a sixteenth of the features."""
    squeezed = max(FEWEST, channels // REDUCTION)
    return nn.Sequential(nn.Linear(channels, squeezed), nn.ReLU(inplace=True), nn.Linear(squeezed, channels))


def _scaled(features: Tensor, weights: Tensor) -> Tensor:
    """Features (B, C, *places) times one number (B, C) each."""
    return features * weights.reshape(*weights.shape, *(1,) * (features.ndim - 2))
