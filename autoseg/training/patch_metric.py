"""Training of a patch classifier on aligned pairs, which needs no labels: what is moved at random is misaligned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from autoseg.core.errors import UsageError
from autoseg.losses.local_correlation import standardised
from autoseg.nn.similarity import PATCH, PatchClassifier


@dataclass(frozen=True)
class PatchMetricRules:
    """How a patch classifier is trained; every number is planned.

    Attributes:
        features: of its five layers.
        iterations: steps of Adam.
        batch: patches of a step; the second half is misaligned.
        rate: learning rate.
        shift_voxels: least and largest length of a misalignment.
    """

    features: tuple[int, int, int, int, int]
    iterations: int
    batch: int
    rate: float
    shift_voxels: tuple[float, float]


def fit_patch_metric(pairs: Sequence[tuple[Tensor, Tensor]], rules: PatchMetricRules,
                     generator: torch.Generator) -> PatchClassifier:
    """A classifier of aligned and misaligned patches, in evaluation mode, its weights frozen.

    Args:
        pairs: aligned images (C, *spatial) of one grid each, at least 17 voxels along each axis.
        generator: of weights and patches, on the CPU.
    Raises:
        UsageError: there is no pair, or one is too small.
    Source: Simonovsky et al. 2016, section 2.2; shifts of parts of voxels, since a moving image is interpolated in use.
    """
    _require_patches(pairs)
    images = [(standardised(first[None]), standardised(second[None])) for first, second in pairs]
    channels, dims = images[0][0].shape[1], images[0][0].ndim - 2
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
        classifier = PatchClassifier(channels, dims, rules.features)
    optimizer = torch.optim.Adam(classifier.parameters(), lr=rules.rate)
    aligned = torch.arange(rules.batch) < rules.batch - rules.batch // 2
    for _ in range(rules.iterations):
        drawn = [_draw(images, bool(match), rules, generator) for match in aligned]
        first, second = (torch.cat(patches) for patches in zip(*drawn, strict=True))
        scores = classifier(first, second).flatten()
        loss = functional.binary_cross_entropy_with_logits(scores, aligned.float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return classifier.eval().requires_grad_(False)


def _require_patches(pairs: Sequence[tuple[Tensor, Tensor]]) -> None:
    if not pairs:
        raise UsageError("a learnt similarity needs at least one pair of aligned images; none was given")
    for first, second in pairs:
        if first.shape != second.shape or min(first.shape[1:]) < PATCH:
            raise UsageError(f"a learnt similarity is trained on aligned pairs of one shape, at least {PATCH} voxels along each "
                             f"axis; found {tuple(first.shape)} and {tuple(second.shape)} (channels, axes)",
                             hint="plan another similarity for images this small")


def _draw(images: Sequence[tuple[Tensor, Tensor]], match: bool, rules: PatchMetricRules,
          generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Two patches (1, C, 17, ...), mirrored alike at random; the second moved where they shall not match."""
    first, second = images[int(torch.randint(len(images), (1,), generator=generator))]
    sizes = torch.tensor(first.shape[2:], dtype=torch.float32)
    margin = (PATCH - 1) / 2
    centre = margin + torch.rand(len(sizes), generator=generator) * (sizes - 1 - 2 * margin)
    away = torch.zeros(len(sizes))
    if not match:
        direction = torch.randn(len(sizes), generator=generator)
        least, largest = rules.shift_voxels
        length = least + (largest - least) * torch.rand(1, generator=generator)
        away = direction / direction.norm().clamp_min(1e-6) * length
    flips = [axis + 2 for axis in range(len(sizes)) if torch.rand(1, generator=generator) < 0.5]
    patches = (_patch(first, centre), _patch(second, centre + away))
    return patches[0].flip(flips), patches[1].flip(flips)


def _patch(image: Tensor, centre: Tensor) -> Tensor:
    """(1, C, 17, ...) around a point in voxels, linear; beyond the border its values."""
    offsets = torch.arange(PATCH, dtype=torch.float32) - (PATCH - 1) / 2
    lines = [(middle + offsets) * (2 / (size - 1)) - 1 for middle, size in zip(centre, image.shape[2:], strict=True)]
    grid = torch.stack(torch.meshgrid(*lines, indexing="ij")[::-1], dim=-1)[None]
    return functional.grid_sample(image, grid, padding_mode="border", align_corners=True)
