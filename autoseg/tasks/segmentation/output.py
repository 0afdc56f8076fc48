"""From networks to label maps on the case grid and files on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from autoseg.core.geometry import GridRecord
from autoseg.core.image import Image
from autoseg.core.plan import Configuration
from autoseg.core.spec import DatasetSpec
from autoseg.core.task import Arrays, Context
from autoseg.io.images import float_ending, read_label_map, split_ending, write_label_map, write_volume
from autoseg.ops.crop import paste
from autoseg.ops.resample import resample, separate_axis
from autoseg.tasks.segmentation.regions import decide, probabilities_of, probabilities_outside
from autoseg.tasks.segmentation.target import Segmentation, indices_to_values, values_to_indices

if TYPE_CHECKING:
    from torch import nn


def infer(networks: Sequence[nn.Module], inputs: Arrays, configuration: Configuration,
          context: Context) -> NDArray[np.float32]:
    """Logits (K, Z, Y, X) on the model grid: mean over members and, if asked for, over mirrorings."""
    import torch  # here, because planning loads this file too and needs no torch

    from autoseg.inference.averaging import averaged
    from autoseg.inference.engine import forward_of
    from autoseg.inference.mirroring import mirrored
    from autoseg.inference.sliding_window import predict_logits

    rules = configuration.inference
    mirror = rules.mirror if context.mirror is None else context.mirror
    forward = averaged([forward_of(network, rules, context.device) for network in networks])
    if mirror:
        forward = mirrored(forward, rules.mirror_axes, left_right_axis=rules.left_right_axis, pairs=rules.mirror_pairs)
    voxels = torch.from_numpy(np.ascontiguousarray(inputs["image"], dtype=np.float32)).to(context.device)
    logits = predict_logits(forward, voxels, patch_size=configuration.patch_size, tile_step=rules.tile_step,
                            gaussian_sigma=rules.gaussian_sigma, tiles_per_batch=rules.tiles_per_batch,
                            out_channels=configuration.network.out_channels, dims=configuration.network.dims)
    return logits.cpu().numpy()


def restore(raw: NDArray[np.float32], record: GridRecord, configuration: Configuration,
            context: Context) -> Segmentation:
    """Label map on the canonical case grid: logits resampled to the crop, decided, turned and pasted back.

    Voxels outside the crop are background.
    """
    rules = configuration.resampling
    apart = separate_axis(record.model_spacing_mm, record.turned_spacing_mm, rules.separate_z_ratio)
    logits = resample(raw, record.turned_shape, order=rules.output_order, order_z=rules.output_order_z,
                      separate_axis=apart)
    back = tuple(int(axis) for axis in np.argsort(record.transpose))
    shape = record.canonical.shape
    label = paste(decide(logits, configuration).transpose(back), record.crop_box, shape, 0)
    if not context.probabilities:
        return Segmentation(label)
    inside = probabilities_of(logits, configuration).transpose(0, *(1 + axis for axis in back))
    probabilities = np.stack([paste(plane, record.crop_box, shape, fill)
                              for plane, fill in zip(inside, probabilities_outside(configuration), strict=True)])
    return Segmentation(label, probabilities.astype(np.float32))


def write_prediction(prediction: Segmentation, spec: DatasetSpec, image: Image, path: Path) -> tuple[Path, ...]:
    """Writes the label map with the dataset's own values on the grid of the input; probabilities beside it.

    Args:
        path: with the ending of the input (`out/case.nii.gz`); probabilities get `case_probabilities`, and `.tif` where
            the format of the input holds whole numbers only (PNG, BMP).
    """
    write_label_map(path, indices_to_values(prediction.label, spec), image)
    if prediction.probabilities is None:
        return (path,)
    stem, ending = split_ending(path)
    beside = path.with_name(f"{stem}_probabilities{float_ending(ending)}")
    write_volume(beside, prediction.probabilities, image)
    return (path, beside)


def read_prediction(path: Path, spec: DatasetSpec) -> Segmentation:
    """The label map in a file, as indices."""
    label = read_label_map(path, values=spec.listed_values)
    return Segmentation(values_to_indices(label.voxels[0], spec))
