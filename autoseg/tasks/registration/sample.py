"""Batches of pairs in one frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from autoseg.core.case import Case, Unit
from autoseg.core.plan import Configuration
from autoseg.core.task import CaseStore
from autoseg.ops.pyramid import axis_factors
from autoseg.tasks.registration.frame import cut, frame_spacing_mm, place_pair
from autoseg.tasks.registration.target import LABEL

if TYPE_CHECKING:
    from torch import Tensor


def draw_batch(units: Sequence[Unit], store: CaseStore, configuration: Configuration,
               rng: np.random.Generator) -> dict[str, Tensor]:
    """One batch: pairs uniformly with replacement; of a cohort any two of the cases that the units hold.

    Returns:
        `fixed`, `moving`: float32 (B, C, *frame); where labels are trained on, `fixed_labels` and `moving_labels`: bool
        (B, K, *frame), masks of the labels that were drawn for each pair; without Z in two dimensions. A supervised plan gets
        `displacement`, float32 (B, D, *frame) in voxels, and as fixed image the moving one moved by it. `cases`: ids of the
        pairs. A plan that learns from patches gets `fixed` and `moving` patches (P, C, *patch) and `aligned`, bool (P,).
    """
    import torch  # here, because planning loads this file too and needs no torch

    if learns_patches(configuration):
        return _patch_batch(units, store, configuration, rng)
    cases = sorted({case.id: case for unit in units for case in unit.cases}.values(), key=lambda case: case.id)
    columns: dict[str, list[NDArray]] = {}
    names = []
    for _ in range(configuration.batch_size):
        fixed, moving = draw_pair(units, cases, configuration, rng)
        drawn = _known(moving, store, configuration, rng) if configuration.task_values["method"] == "supervised" else \
            _placed(fixed, moving, store, configuration, rng)
        for name, array in drawn.items():
            columns.setdefault(name, []).append(array)
        names.append(f"{moving.id} to {fixed.id}")
    batch = {name: torch.from_numpy(np.stack(arrays)) for name, arrays in columns.items()}
    if configuration.network.dims == 2:
        batch = {name: tensor if name == "displacement" else tensor.squeeze(2) for name, tensor in batch.items()}
    return batch | {"cases": names}  # type: ignore[return-value]


def draw_pair(units: Sequence[Unit], cases: Sequence[Case], configuration: Configuration,
              rng: np.random.Generator) -> tuple[Case, Case]:
    """Fixed and moving case: of a unit, or any two of the cases where the plan says so."""
    if configuration.task_values["any_two"]:
        first, second = rng.permutation(len(cases))[:2]
        return cases[int(first)], cases[int(second)]
    fixed, moving = units[int(rng.integers(len(units)))].cases
    return fixed, moving


def blank_batch(configuration: Configuration) -> dict[str, Tensor]:
    """Zeros of the shapes and types that `draw_batch` returns, on torch's default device."""
    import torch

    network, count = configuration.network, configuration.batch_size
    if learns_patches(configuration):
        count *= int(configuration.task_values["patch_count"])  # type: ignore[arg-type]
        shape = (count, network.in_channels, *network.similarity.patch)  # type: ignore[union-attr]
        return {"fixed": torch.zeros(shape), "moving": torch.zeros(shape), "aligned": torch.zeros(count, dtype=torch.bool)}
    size = configuration.patch_size[-network.dims:]
    batch = {name: torch.zeros(count, network.in_channels, *size) for name in ("fixed", "moving")}
    if configuration.task_values["method"] == "supervised":
        batch["displacement"] = torch.zeros(count, network.dims, *size)
    drawn = drawn_labels(configuration)
    if drawn:
        batch |= {name: torch.zeros(count, drawn, *size, dtype=torch.bool) for name in ("fixed_labels", "moving_labels")}
    return batch


def learns_patches(configuration: Configuration) -> bool:
    """What is trained is a classifier of patches."""
    return configuration.task_values["similarity"] == "patches"


def drawn_labels(configuration: Configuration) -> int:
    """Labels of each pair that the loss sees; 0 where it sees none."""
    return int(configuration.task_values["drawn_labels"])  # type: ignore[arg-type]


def _placed(fixed: Case, moving: Case, store: CaseStore, configuration: Configuration,
            rng: np.random.Generator) -> dict[str, NDArray]:
    """Arrays of one pair in its frame."""
    first, second = (_arrays(case, store, with_label=drawn_labels(configuration) > 0) for case in (fixed, moving))
    placed = place_pair(first, second, (store.record(fixed.id), store.record(moving.id)), configuration.patch_size,
                        str(configuration.task_values["alignment"]))
    batch = {"fixed": placed.fixed["image"], "moving": placed.moving["image"]}
    if drawn_labels(configuration):
        values = configuration.task_values["label_values"]
        assert isinstance(values, tuple)
        chosen = 1 + np.sort(rng.permutation(len(values))[:drawn_labels(configuration)])
        batch |= {"fixed_labels": placed.fixed[LABEL] == chosen[:, None, None, None],
                  "moving_labels": placed.moving[LABEL] == chosen[:, None, None, None]}
    return {name: np.ascontiguousarray(array) for name, array in batch.items()}


def _patch_batch(units: Sequence[Unit], store: CaseStore, configuration: Configuration,
                 rng: np.random.Generator) -> dict[str, Tensor]:
    """Aligned and misaligned patches of pairs on one of the levels on which pairs are optimised, standardised as there."""
    import torch

    from autoseg.augment.patches import PatchRules, draw_patches
    from autoseg.inference.instance import shrunken
    from autoseg.losses.local_correlation import standardised

    values, network = configuration.task_values, configuration.network
    shifts = float(values["patch_least_shift_voxels"]), float(values["patch_largest_shift_voxels"])  # type: ignore[arg-type]
    rules = PatchRules(int(values["patch_count"]), network.similarity.patch, shifts)  # type: ignore[arg-type, union-attr]
    levels: Any = values["pair_levels"]
    columns, names = [], []
    for _ in range(configuration.batch_size):
        fixed, moving = draw_pair(units, (), configuration, rng)
        placed = _placed(fixed, moving, store, configuration, rng)
        factors = axis_factors(levels[int(rng.integers(len(levels)))][0], frame_spacing_mm(configuration))
        pair = [torch.from_numpy(placed[name]).unflatten(0, (1, -1)) for name in ("fixed", "moving")]
        pair = [standardised(shrunken(image.squeeze(2) if network.dims == 2 else image, factors))[0] for image in pair]
        columns.append(draw_patches(pair[0], pair[1], rules, rng))
        names += [f"{moving.id} to {fixed.id}"] * rules.count
    first, second, aligned = (torch.cat(column) for column in zip(*columns, strict=True))
    return {"fixed": first, "moving": second, "aligned": aligned, "cases": names}  # type: ignore[dict-item]


def _known(case: Case, store: CaseStore, configuration: Configuration, rng: np.random.Generator) -> dict[str, NDArray]:
    """An image, and what it becomes by a random deformation, which is known."""
    import torch

    from autoseg.augment.deformations import DeformationRules, draw_displacement
    from autoseg.nn.warp import warp

    values, dims = configuration.task_values, configuration.network.dims
    size = configuration.patch_size
    image = np.ascontiguousarray(cut(store.array(case.id, "image"), size))
    spacing = frame_spacing_mm(configuration)
    lengths = float(values["deformation_least_mm"]), float(values["deformation_most_mm"])  # type: ignore[arg-type]
    widths = tuple(width * min(spacing) for width in values["deformation_widths_voxels"])  # type: ignore[union-attr, operator]
    rules = DeformationRules(lengths, widths)
    displacement = draw_displacement(size[-dims:], spacing, rules, rng)
    voxels = torch.from_numpy(image.reshape(1, -1, *size[-dims:]))
    fixed = warp(voxels, torch.from_numpy(displacement)[None]).numpy().reshape(image.shape)
    return {"fixed": fixed, "moving": image, "displacement": displacement}


def _arrays(case: Case, store: CaseStore, *, with_label: bool) -> dict[str, NDArray]:
    """Image and label (1, Z, Y, X) of a stored case; a case without labels has none of them."""
    arrays = {"image": store.array(case.id, "image")}
    if with_label:
        has_labels = LABEL in store.names(case.id)
        arrays[LABEL] = store.array(case.id, LABEL)[None] if has_labels else np.zeros((1, *arrays["image"].shape[1:]), np.uint8)
    return arrays
