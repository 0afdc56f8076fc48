"""Batches of patches with the targets of both tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from autoseg.core.case import Unit
from autoseg.core.plan import Configuration
from autoseg.core.task import CaseStore
from autoseg.tasks.joint.parts import Parts, configuration_of

if TYPE_CHECKING:
    from torch import Tensor


def draw_batch(parts: Parts, units: Sequence[Unit], store: CaseStore, configuration: Configuration,
               rng: np.random.Generator) -> dict[str, Tensor]:
    """A batch of the dense task, and for each of its samples what the other one stored of the case.

    What is true of the whole image is said of every patch of it: where a diagnosis shows is not known, and a second pass
    through the encoder with whole images would cost as much as the first. Prediction takes the mean over all windows.

    Returns:
        the tensors of the dense task; those of the other one but `image`, a row per sample; `cases`: ids.
    """
    import torch  # here, because planning loads this file too and needs no torch

    batch = parts.dense.draw_batch(units, store, configuration_of(parts.dense, configuration), rng)
    for name in _of_the_image(parts, configuration):
        rows = [store.array(case_id, name) for case_id in batch["cases"]]  # type: ignore[arg-type]
        batch[name] = torch.from_numpy(np.stack(rows))
    return batch


def blank_batch(parts: Parts, configuration: Configuration) -> dict[str, Tensor]:
    """Zeros of the shapes and types that `draw_batch` returns, on torch's default device."""
    return parts.dense.blank_batch(configuration_of(parts.dense, configuration)) | _of_the_image(parts, configuration)


def _of_the_image(parts: Parts, configuration: Configuration) -> dict[str, Tensor]:
    """What a batch of the other task holds beside images, blank."""
    smallest = replace(configuration_of(parts.whole, configuration), patch_size=(1, 1, 1))  # its images are not looked at
    return {name: tensor for name, tensor in parts.whole.blank_batch(smallest).items() if name != "image"}
