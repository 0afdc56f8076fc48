"""From networks to label maps on the case grid and files on disk."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
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
from autoseg.ops.crop import crop
from autoseg.ops.resample import axis_operators, resample, separate_axis
from autoseg.ops.slabs import LogitSlabs
from autoseg.ops.streaming import can_stream, stream_labels, stream_logits
from autoseg.tasks.segmentation.regions import decide, probabilities_of, probabilities_outside
from autoseg.tasks.segmentation.target import Segmentation, indices_to_values, values_to_indices

if TYPE_CHECKING:
    from torch import nn


def infer(networks: Sequence[nn.Module], inputs: Arrays, configuration: Configuration, context: Context) -> LogitSlabs:
    """Logits (K, Z, Y, X) on the model grid, slab by slab: mean over members and, if asked for, over mirrorings.

    The networks run while `restore` draws the slabs.
    """
    import torch  # here, because planning loads this file too and needs no torch

    from autoseg.inference.averaging import averaged
    from autoseg.inference.engine import forward_of
    from autoseg.inference.mirroring import mirrored
    from autoseg.inference.sliding_window import predict_slabs

    rules = configuration.inference
    mirror = rules.mirror if context.mirror is None else context.mirror
    forward = averaged([forward_of(network, rules, context.device) for network in networks])
    if mirror:
        forward = mirrored(forward, rules.mirror_axes, left_right_axis=rules.left_right_axis, pairs=rules.mirror_pairs)
    voxels = torch.from_numpy(np.ascontiguousarray(inputs["image"], dtype=np.float32)).to(context.device)
    return predict_slabs(forward, voxels, patch_size=configuration.patch_size, tile_step=rules.tile_step,
                         gaussian_sigma=rules.gaussian_sigma, tiles_per_batch=rules.tiles_per_batch,
                         out_channels=configuration.network.out_channels, dims=configuration.network.dims)


def restore(raw: LogitSlabs | NDArray[np.float32], record: GridRecord, configuration: Configuration,
            context: Context) -> Segmentation:
    """Label map on the canonical case grid: logits resampled to the crop, decided, turned and pasted back.

    Voxels outside the crop are background. No array of all classes on the whole case grid is made, with two exceptions:
    probabilities are such an array (4 bytes times classes times voxels of the case), and a planned `output_order` above 1,
    whose splines reach over the whole image, needs all logits at once on both grids.

    Args:
        raw: logits (K, Z, Y, X) on the model grid; a stream of slabs is drawn to its end.
    """
    slabs = raw if isinstance(raw, LogitSlabs) else LogitSlabs.of(raw)
    rules, paints = configuration.resampling, configuration.task_values.get("paints")
    apart = separate_axis(record.model_spacing_mm, record.turned_spacing_mm, rules.separate_z_ratio)
    operators = axis_operators(slabs.grid, record.turned_shape, order=rules.output_order, order_z=rules.output_order_z,
                               separate_axis=apart)
    label = np.zeros(record.canonical.shape, np.uint8)
    inside = crop(label, record.crop_box).transpose(record.transpose)
    if can_stream(operators) and not context.probabilities:
        # Where two regions paint the same label, the logits that give it are a union of convex sets.
        convex = not isinstance(paints, tuple) or len(set(paints)) == len(paints)
        for place, plane in enumerate(stream_labels(slabs, operators, partial(decide, configuration=configuration),
                                                    convex=convex)):
            inside[place] = plane
        return Segmentation(label)
    if can_stream(operators):
        planes = stream_logits(slabs, operators)
    else:
        planes = iter(resample(slabs.whole(), record.turned_shape, order=rules.output_order, order_z=rules.output_order_z,
                               separate_axis=apart).swapaxes(0, 1))
    probabilities = _outside(record, configuration) if context.probabilities else None
    for place, logits in enumerate(planes):
        inside[place] = decide(logits[:, None], configuration)[0]
        if probabilities is not None:
            turned = crop(probabilities, record.crop_box).transpose(0, *(1 + axis for axis in record.transpose))
            turned[:, place] = probabilities_of(logits[:, None], configuration)[:, 0]
    return Segmentation(label, probabilities)


def _outside(record: GridRecord, configuration: Configuration) -> NDArray[np.float32]:
    """Probabilities (K, Z, Y, X) on the case grid, everywhere as outside of the crop."""
    outside = probabilities_outside(configuration)
    return np.broadcast_to(outside[:, None, None, None], (len(outside), *record.canonical.shape)).copy()


def write_prediction(prediction: Segmentation, spec: DatasetSpec, image: Image, path: Path) -> tuple[Path, ...]:
    """Writes the label map with the dataset's own values on the grid of the input; probabilities beside it.

    Args:
        path: with the ending of the input (`out/case.nii.gz`); probabilities get `case_probabilities`, and `.tif` where
            the format of the input holds whole numbers only (PNG, BMP). Beside them the compressed file is in memory while
            it is made.
    """
    values = indices_to_values(np.arange(len(spec.labels) + 1, dtype=np.uint8), spec)
    written = np.empty(prediction.label.shape, np.result_type(*map(np.min_scalar_type, values)))
    for place, plane in enumerate(prediction.label):  # numpy makes 8-byte indices of a plane, not of the whole image
        written[place] = values[plane]
    write_label_map(path, written, image)
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
