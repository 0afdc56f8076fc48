"""Batches of whole images, augmented; units of rare classes are drawn more often where the plan says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from autoseg.core.case import Unit
from autoseg.core.plan import Configuration
from autoseg.core.task import CaseStore
from autoseg.tasks.classification.heads import Head, heads_of, repeats_of
from autoseg.tasks.classification.kinds import Kind

if TYPE_CHECKING:
    from torch import Tensor

# Draws until a unit with a known truth is accepted; repeat factors stay below 10, so that a hundred rarely fail.
MOST_DRAWS = 100


def draw_batch(units: Sequence[Unit], store: CaseStore, configuration: Configuration,
               rng: np.random.Generator) -> dict[str, Tensor]:
    """One batch: units with replacement, of an exam any of its images, every image whole and randomly changed.

    Returns:
        `image`: float32 (B, C, Z, Y, X), without Z for a 2-D network that sees one slice; `truths`: float32 (B, T), see
        `heads.Head`; `cases`: ids, for error messages.
    """
    import torch  # here, because planning loads this file too and needs no torch

    heads, repeats = heads_of(configuration), repeats_of(configuration)
    images, truths, cases = [], [], []
    for _ in range(configuration.batch_size):
        case_id, truth = _draw_case(units, store, heads, repeats, rng)
        images.append(_changed(store, case_id, configuration, rng))
        truths.append(truth)
        cases.append(case_id)
    batch = {"image": torch.from_numpy(np.stack(images)), "truths": torch.from_numpy(np.stack(truths))}
    if is_flat(configuration):
        batch["image"] = batch["image"].squeeze(2)
    return batch | {"cases": cases}  # type: ignore[return-value]


def blank_batch(configuration: Configuration) -> dict[str, Tensor]:
    """Zeros of the shapes and types that `draw_batch` returns, on torch's default device."""
    import torch

    size = configuration.patch_size[1:] if is_flat(configuration) else configuration.patch_size
    truths = sum(len(head.truths) for head in heads_of(configuration))
    return {"image": torch.zeros(configuration.batch_size, configuration.network.in_channels, *size),
            "truths": torch.zeros(configuration.batch_size, truths)}


def is_flat(configuration: Configuration) -> bool:
    """The network sees one slice (Y, X), not several or a volume (Z, Y, X)."""
    network = configuration.network
    return network.dims == 2 and not getattr(network, "slices", False)


def repeat_factor(truth: NDArray[np.float32], heads: Sequence[Head], repeats: Mapping[str, Sequence[float]]) -> float:
    """How often a unit of this truth is drawn: the largest factor of its classes, at least 1.

    Source: Gupta et al. 2019 (LVIS, arXiv 1908.03195), repeat factor sampling.
    """
    factors = [1.0]
    for head in heads:
        if head.name in repeats:
            part = truth[head.truths.start:head.truths.stop]
            if head.kind == Kind.MULTILABEL:
                factors += [factor for factor, value in zip(repeats[head.name], part, strict=True) if value > 0]
            elif np.isfinite(part[0]) and part[0] >= 0:
                factors.append(repeats[head.name][int(part[0])])
    return max(factors)


def is_known(truth: NDArray[np.float32], heads: Sequence[Head]) -> bool:
    """Something is known of some target."""
    return any(np.isfinite(truth[place]) and not (head.kind in (Kind.MULTICLASS, Kind.ORDINAL) and truth[place] < 0)
               for head in heads for place in head.truths)


def _draw_case(units: Sequence[Unit], store: CaseStore, heads: Sequence[Head], repeats: Mapping[str, Sequence[float]],
               rng: np.random.Generator) -> tuple[str, NDArray[np.float32]]:
    """A case and its truths: units of factor f are accepted f times as often as those of factor 1."""
    largest = max((max(factors) for factors in repeats.values()), default=1.0)
    for _ in range(MOST_DRAWS):
        cases = units[int(rng.integers(len(units)))].cases
        case_id = cases[int(rng.integers(len(cases)))].id if len(cases) > 1 else cases[0].id
        truth = store.array(case_id, "truths")
        if not is_known(truth, heads):
            continue
        if largest == 1.0 or rng.random() * largest < repeat_factor(truth, heads, repeats):
            break
    return case_id, np.array(truth)


def _changed(store: CaseStore, case_id: str, configuration: Configuration, rng: np.random.Generator) -> NDArray[np.float32]:
    """The whole image (C, *patch), randomly moved and changed."""
    from autoseg.augment.compose import augment

    roles = [name for name in store.names(case_id) if name != "truths"]
    image = np.concatenate([np.asarray(store.array(case_id, role), np.float32) for role in roles])
    nothing = np.zeros(image.shape[1:], np.uint8)
    changed, _ = augment(image, nothing, configuration.augmentation, configuration.patch_size, rng)
    return changed
