"""What cases need of memory and disk, told from their headers before anything is done."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path

from autoseg.core.case import Case, Unit, single_units
from autoseg.core.errors import AutosegError, ResourceError
from autoseg.core.fingerprint import Fingerprint
from autoseg.core.geometry import Shape
from autoseg.core.plan import Configuration, Plan
from autoseg.core.spec import DatasetSpec
from autoseg.io.atomic import require_writable
from autoseg.io.images import read_geometry
from autoseg.ops.resample import resampled_shape
from autoseg.planning.air import cropped_as_planned
from autoseg.planning.memory import parameter_count
from autoseg.stages.workers import TimeLimit

# Measuring or preparing a case holds, per voxel of the larger of its own and its model grid, two 32-bit copies of every
# channel, the label map as it is read (64 bits) and as indices, masks and a mask's 32-bit copy while labels are resampled.
# An upper bound: tracemalloc found 14 to 22.4 bytes of 1 channel and 25 to 37 of 3 on model grids of 1/27 to 11 times the
# voxels, the least on the finest grids.
BYTES_PER_CHANNEL = 8
BYTES_BESIDE = 15
# A worker process with the modules that it imports (Linux, Python 3.11, 2026-11-22).
WORKER_BYTES = 150 * 10**6
FLOAT_BYTES = 4
# Reading and measuring a case took 0.09 us of processor time per voxel and channel, reading and preparing it 0.11 us per
# voxel of the model grid (64 x 128 x 128 float32 as .nii.gz with a label map, to a grid of twice the voxels, one core of an
# EPYC, 2026-11-22); a slower processor may take twice that.
SECONDS_PER_VOXEL = 2e-7
# How much longer than that a case may take before it counts as hanging: room for a slow or remote disk and a busy machine.
PATIENCE = 50
# No case is given up sooner, however small: a first look at a remote disk or at a machine under load can take minutes.
SHORTEST_LIMIT_SECONDS = 300.0
# Kept free beside what a stage writes, for logs, plans and other programs.
SPARE_BYTES = 200 * 10**6


def case_bytes(voxels: float, channels: int) -> int:
    """Memory that one case takes while it is measured or prepared.

    Args:
        voxels: of its own or its model grid, whichever has more.
    """
    return int(voxels * (BYTES_BESIDE + BYTES_PER_CHANNEL * channels))


def count_workers(cores: int, free_bytes: int, bytes_per_case: int) -> int:
    """Processes that may work on cases side by side: one per core, as many as memory holds, at least one."""
    return max(1, min(cores, free_bytes // (bytes_per_case + WORKER_BYTES)))


def largest_case_bytes(units: Sequence[Unit], spec: DatasetSpec, configurations: Sequence[Configuration] = ()) -> int:
    """Memory that the largest case takes while it is measured and, for the configurations given, prepared.

    Headers that cannot be read are left to the stage that reads the file.
    """
    return case_bytes(largest_case_voxels(units, configurations), channel_count(spec))


def largest_case_voxels(units: Sequence[Unit], configurations: Sequence[Configuration] = ()) -> float:
    """Voxels of one channel of the largest case, on its own grid or on those of the configurations given."""
    steps = [configuration.spacing_mm for configuration in configurations if not configuration.whole_image]
    most = float(max((math.prod(c.patch_size) for c in configurations if c.whole_image), default=0))
    for unit in single_units(units):
        try:
            grid = read_geometry(next(iter(unit.cases[0].inputs.values()))[0])
        except AutosegError:
            continue
        voxels = math.prod(grid.shape)
        volume = voxels * math.prod(grid.spacing_mm)
        finest = [volume / ((step[0] or max(grid.spacing_mm)) * step[1] * step[2]) for step in steps]
        most = max(most, voxels, *finest)
    return most


def time_limit(voxels: float, channels: int) -> TimeLimit:
    """How long one case may take: long beyond what the largest needs, so that only what hangs is ended.

    Args:
        voxels: of one channel of the largest case; 0: not known.
    """
    expected = voxels * channels * SECONDS_PER_VOXEL
    if PATIENCE * expected <= SHORTEST_LIMIT_SECONDS:
        return TimeLimit(SHORTEST_LIMIT_SECONDS, f"cases of this size take {max(1, math.ceil(expected))} s or less, and "
                         f"{SHORTEST_LIMIT_SECONDS:.0f} s are the shortest limit; AUTOSEG_CASE_MINUTES sets another one")
    return TimeLimit(PATIENCE * expected, f"that is {PATIENCE} times the {expected:.0f} s that the largest case takes by its "
                     "size; AUTOSEG_CASE_MINUTES sets another limit")


def channel_count(spec: DatasetSpec) -> int:
    """Channels of all images of a case."""
    return sum(len(entry.channels) for entry in spec.inputs if entry.kind == "image")


def store_bytes(fingerprint: Fingerprint, plan: Plan, configuration: Configuration) -> int:
    """Disk that prepared cases take, uncompressed: every channel in 32 bits and one byte for a target, per model voxel."""
    cropped = cropped_as_planned(fingerprint, plan.inputs)
    voxels = sum(math.prod(model_shape(shape, spacing, plan, configuration))
                 for shape, spacing in zip(cropped.shapes_after_crop, cropped.spacings_mm, strict=True))
    return voxels * (FLOAT_BYTES * fingerprint.channel_count + 1)


def model_shape(shape: Shape, spacing_mm: Sequence[float], plan: Plan, configuration: Configuration) -> Shape:
    """Shape of a cropped case on the model grid, model axis order."""
    if configuration.whole_image:
        return configuration.patch_size
    z, y, x = plan.transpose
    own = (spacing_mm[z], spacing_mm[y], spacing_mm[x])
    planned = configuration.spacing_mm
    return resampled_shape((shape[z], shape[y], shape[x]), own, (planned[0] or own[0], planned[1], planned[2]))


def prediction_bytes(cases: Sequence[Case], outputs: int, *, probabilities: bool) -> int:
    """Disk that predictions take, uncompressed: a byte per voxel, and 32 bits per voxel and output for probabilities."""
    per_voxel = 1 + (FLOAT_BYTES * outputs if probabilities else 0)
    total = 0
    for case in cases:
        try:
            total += math.prod(read_geometry(next(iter(case.inputs.values()))[0]).shape) * per_voxel
        except AutosegError:  # refused with its name when it is read
            continue
    return total


def training_bytes(configuration: Configuration) -> tuple[int, int]:
    """Disk that a training run takes, and its largest file: a checkpoint, of which two are kept while a third is written.

    A checkpoint holds the weights, two moments of each (AdamW; other optimisers have one) and their average.
    """
    average = configuration.optimization.ema_decay is not None
    checkpoint = parameter_count(configuration.network) * FLOAT_BYTES * (3 + average)
    return 3 * checkpoint, checkpoint


def require_space(folder: Path, needed_bytes: int, what: str, *, largest_bytes: int = 0,
                  free_bytes: int | None = None) -> None:
    """Raises before a stage begins that the disk cannot hold, or that may not write there; makes the folder.

    Args:
        folder: where the stage will write; need not exist yet. What it holds already counts as written.
        largest_bytes: of the largest file among it.
        free_bytes: on its disk; None: asked of the system.
    Raises:
        ResourceError: too little is free, with how much is needed and free, and where; or a file cannot be written there.
    """
    written = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else 0
    require_free(folder, needed_bytes - written, what, free_bytes=free_bytes)
    require_writable(folder, largest_bytes)


def require_free(folder: Path, missing: int, what: str, *, free_bytes: int | None = None) -> None:
    """As `require_space` for bytes that are still to be written, whatever the folder holds; makes nothing."""
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free if free_bytes is None else free_bytes
    if missing > 0 and missing + SPARE_BYTES > free:
        raise ResourceError(f"{what} may need {(missing + SPARE_BYTES) / 1e9:.2f} GB in {folder}, and {free / 1e9:.2f} GB are "
                            "free there", hint="free some space, or name a folder on another disk (--root, or -o)")
