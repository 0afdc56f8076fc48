"""From networks to the predictions of both tasks, and to files."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from autoseg.core.case import Unit
from autoseg.core.geometry import GridRecord
from autoseg.core.image import Image
from autoseg.core.plan import Configuration
from autoseg.core.spec import DatasetSpec
from autoseg.core.task import Arrays, Context, Inputs
from autoseg.ops.slabs import LogitSlabs, require_all_planes
from autoseg.tasks.joint.head import head_of
from autoseg.tasks.joint.parts import ROLES, Pair, Parts, configuration_of, spec_of

if TYPE_CHECKING:
    from torch import nn


def infer(parts: Parts, networks: Sequence[nn.Module], inputs: Arrays, configuration: Configuration, context: Context) -> Any:
    """The dense task's raw output (K + N, Z, Y, X), whose last N are what every window said of the image.

    Windows, mirroring, members and engine are the dense task's own; it is told of K + N outputs.
    """
    own = configuration_of(parts.dense, configuration)
    outputs = own.network.out_channels + head_of(configuration).out_channels
    told = replace(own.network, out_channels=outputs)  # type: ignore[arg-type]
    return parts.dense.infer(networks, inputs, replace(own, network=told), context)


def restore(parts: Parts, raw: LogitSlabs | NDArray[np.float32], record: GridRecord, configuration: Configuration,
            context: Context) -> Pair[Any]:
    """Both predictions: the dense one from the first K outputs, slab by slab; the other from the mean of the rest.

    That mean is taken while the slabs pass, so that no array of all outputs and voxels is made. It is the mean over all voxels
    of what the windows that cover them said: over slices, where the network sees slices.
    """
    slabs = raw if isinstance(raw, LogitSlabs) else LogitSlabs.of(raw)
    kept = slabs.classes - head_of(configuration).out_channels
    sums, planes = np.zeros(slabs.classes - kept), 0

    def passing() -> Iterator[NDArray[np.float32]]:
        nonlocal planes
        for part in slabs.parts:
            planes += part.shape[1]
            sums[:] += part[kept:].sum(axis=(1, 2, 3), dtype=np.float64)
            yield part[:kept]

    dense = parts.dense.restore(LogitSlabs((kept, *slabs.grid), passing()), record, configuration_of(parts.dense, configuration),
                                context)
    require_all_planes(planes, slabs.grid[0])
    said = (sums / math.prod(slabs.grid)).astype(np.float32)
    return Pair(dense, parts.whole.restore(said, record, configuration_of(parts.whole, configuration), context))


def complete(parts: Parts, prediction: Pair[Any], unit: Unit, inputs: Inputs, spec: DatasetSpec) -> Pair[Any]:
    """Both predictions with what only the unit's files can give them."""
    dense, whole = (parts.of(role).complete(prediction.of(role), unit, inputs, spec_of(parts.of(role), spec)) for role in ROLES)
    return Pair(dense, whole)


def write_prediction(parts: Parts, prediction: Pair[Any], spec: DatasetSpec, image: Image, path: Path) -> tuple[Path, ...]:
    """The files of both tasks, which must have different endings."""
    return tuple(written for role in ROLES
                 for written in parts.of(role).write(prediction.of(role), spec_of(parts.of(role), spec), image, path))


def read_prediction(parts: Parts, path: Path, spec: DatasetSpec) -> Pair[Any]:
    """The predictions of both tasks in the files that `write_prediction` wrote for this path."""
    dense, whole = (parts.of(role).read_prediction(path, spec_of(parts.of(role), spec)) for role in ROLES)
    return Pair(dense, whole)


def row(parts: Parts, prediction: Pair[Any], spec: DatasetSpec, image: Image) -> dict[str, float | str]:
    """The columns of both tasks."""
    return {name: cell for role in ROLES
            for name, cell in parts.of(role).row(prediction.of(role), spec_of(parts.of(role), spec), image).items()}
