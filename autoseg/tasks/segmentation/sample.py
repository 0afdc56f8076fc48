"""Batches of augmented patches, the last positions of a batch around a label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from autoseg.core.case import Unit
from autoseg.core.plan import Configuration
from autoseg.core.task import CaseStore
from autoseg.ops.patches import grow_box, patch_box, random_box, read_padded

if TYPE_CHECKING:
    from torch import Tensor


def draw_batch(units: Sequence[Unit], store: CaseStore, configuration: Configuration,
               rng: np.random.Generator) -> dict[str, Tensor]:
    """One batch: units uniformly with replacement, patches at random or around a random label of the case.

    Returns:
        `image`: float32 (B, C, Z, Y, X); `label`: integers (B, Z, Y, X); without Z in a 2-D configuration;
        `cases`: ids, for error messages.
    Source: nnU-Net v2.8.1, data_loader.py (round(batch * (1 - share)) random positions come first).
    """
    import torch  # here, because planning loads this file too and needs no torch

    forced_from = round(configuration.batch_size * (1 - configuration.oversample_foreground))
    images, labels, cases = [], [], []
    for position in range(configuration.batch_size):
        case_id = units[int(rng.integers(len(units)))].cases[0].id
        image, label = draw_patch(case_id, store, configuration, rng, force_label=position >= forced_from)
        images.append(image)
        labels.append(label)
        cases.append(case_id)
    batch = {"image": torch.from_numpy(np.stack(images)), "label": torch.from_numpy(np.stack(labels))}
    if configuration.network.dims == 2:
        batch = {"image": batch["image"].squeeze(2), "label": batch["label"].squeeze(1)}
    return batch | {"cases": cases}  # type: ignore[return-value]


def blank_batch(configuration: Configuration) -> dict[str, Tensor]:
    """Zeros of the shapes and types that `draw_batch` returns, on torch's default device."""
    import torch

    size = configuration.patch_size[-configuration.network.dims:]
    return {"image": torch.zeros(configuration.batch_size, configuration.network.in_channels, *size),
            "label": torch.zeros(configuration.batch_size, *size, dtype=torch.uint8)}


def draw_patch(case_id: str, store: CaseStore, configuration: Configuration, rng: np.random.Generator, *,
               force_label: bool) -> tuple[np.ndarray, np.ndarray]:
    """One augmented patch: image float32 (C, *patch) and label (*patch)."""
    from autoseg.augment.compose import augment
    from autoseg.augment.spatial import draw_motion, source_size

    z, y, x = store.shape(case_id, "label")
    shape, patch = (z, y, x), configuration.patch_size
    motion = draw_motion(configuration.augmentation, patch, rng)  # before reading: most patches do not move
    centre = _draw_labelled_voxel(case_id, store, rng) if force_label else None
    inner = random_box(shape, patch, rng) if centre is None else patch_box(shape, patch, centre)
    box = grow_box(inner, source_size(patch, motion))
    image = read_padded(lambda part: store.array(case_id, "image", part), box, shape, 0.0)
    label = read_padded(lambda part: store.array(case_id, "label", part), box, shape, 0)
    return augment(image, label, configuration.augmentation, patch, rng, motion=motion)


def _draw_labelled_voxel(case_id: str, store: CaseStore, rng: np.random.Generator) -> Sequence[int] | None:
    names = sorted(name for name in store.names(case_id) if name.startswith("places_"))
    if not names:
        return None
    places = store.array(case_id, names[int(rng.integers(len(names)))])
    return places[int(rng.integers(len(places)))]
