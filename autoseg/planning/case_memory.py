"""Memory that a case takes while it is predicted, beside the network and its windows."""

from __future__ import annotations

import math

from autoseg.core.budget import Target
from autoseg.core.plan import Configuration
from autoseg.ops.slabs import SLAB_BYTES
from autoseg.planning.spacing import Grid

FLOAT_BYTES = 4
# Sums of windows that would take more are kept in 16 bits (inference/sliding_window.py, LARGEST_SUMS_BYTES).
LARGEST_SUMS_BYTES = 2**31


def inference_bytes(configuration: Configuration, forward_bytes: int, grid: Grid | None = None, target: Target = "cpu") -> int:
    """Predicted peak of predicting the median case.

    Args:
        forward_bytes: of the network and one batch of windows, see `training.memory.predict_peaks`.
        grid, target: as in `volume_bytes`.
    """
    return forward_bytes + volume_bytes(configuration, grid, target)


def volume_bytes(configuration: Configuration, grid: Grid | None = None, target: Target = "cpu") -> int:
    """Bytes of a median case beside its network.

    On the model grid the image in 32 bits, sums of windows for as many planes as the patch has, and those of them that are
    being released; a network that sees images whole has no sums. On a CPU also, of the case as it is stored, its image in
    32 bits and its labels; an image of one channel in 16-bit integers takes half of that.

    Args:
        grid: knows how large cases are before they are cropped; None: as on the model grid.
    """
    channels = configuration.network.in_channels
    depth, height, width = (max(size, patch) for size, patch in
                            zip(configuration.median_shape, configuration.patch_size, strict=True))
    stored = max(0.0 if grid is None else grid.stored_voxels, math.prod(configuration.median_shape))
    plane = configuration.network.out_channels * height * width * FLOAT_BYTES
    sums, released = configuration.patch_size[0] * plane, min(configuration.patch_size[0], max(1, SLAB_BYTES // plane)) * plane
    outputs = 0 if configuration.whole_image else (sums if sums <= LARGEST_SUMS_BYTES else sums / 2) + released
    return int(depth * height * width * FLOAT_BYTES * channels + outputs
               + (stored * (FLOAT_BYTES * channels + 1) if target == "cpu" else 0))
