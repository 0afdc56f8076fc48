"""A toy problem whose evidence is known: a bright square somewhere in the noise decides the class; a dark one is a decoy."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

SIDE = 8


class SquareNetwork(nn.Module):
    """A small classifier with the methods that explanations need; its activations work in place."""

    def __init__(self, dims: int = 2) -> None:
        super().__init__()
        convolution, norm = (nn.Conv2d, nn.BatchNorm2d) if dims == 2 else (nn.Conv3d, nn.BatchNorm3d)
        self.body = nn.Sequential(
            convolution(1, 8, 3, padding=1), norm(8), nn.ReLU(inplace=True), convolution(8, 16, 3, stride=2, padding=1), norm(16),
            nn.ReLU(inplace=True), convolution(16, 16, 3, stride=2, padding=1), nn.ReLU(inplace=True))
        self.head = nn.Linear(16, 2)

    def features(self, image: Tensor) -> Tensor:
        return self.body(image)

    def maps(self, image: Tensor) -> Tensor:
        features = self.features(image)
        bias = self.head.bias.view(1, -1, *[1] * (features.ndim - 2))
        return torch.einsum("kf,bf...->bk...", self.head.weight, features) + bias

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.features(image).flatten(2).mean(dim=2))


def draw(count: int, rng: np.random.Generator, shape: tuple[int, ...] = (28, 36)) -> tuple[Tensor, Tensor, np.ndarray]:
    """Images (count, 1, *shape), classes 0 and 1 in turn, and where the bright square is."""
    images, regions = rng.normal(0, 0.5, (count, 1, *shape)).astype(np.float32), np.zeros((count, *shape), bool)
    classes = np.arange(count) % 2
    for place in range(count):
        bright, dark = box(rng, shape), box(rng, shape)
        if classes[place]:
            images[place, 0][bright] += 1.5
            regions[place][bright] = True
        if not regions[place][dark].any():
            images[place, 0][dark] -= 1.5
    return torch.from_numpy(images), torch.from_numpy(classes), regions


def box(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[slice, ...]:
    starts = [int(rng.integers(0, size - SIDE + 1)) for size in shape]
    return tuple(slice(start, start + SIDE) for start in starts)


@cache
def trained(*, shape: tuple[int, ...] = (28, 36), steps: int = 60, seed: int = 0) -> SquareNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network, rng = SquareNetwork(len(shape)), np.random.default_rng(seed)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(steps):
        images, classes, _ = draw(24, rng, shape)
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images), classes).backward()
        optimizer.step()
    optimizer.zero_grad()
    return network.eval()
