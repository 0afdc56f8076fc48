"""Measures every case of a dataset and adds the measurements up."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoseg.core.case import Case, Unit, single_units
from autoseg.core.errors import AutosegError
from autoseg.core.fingerprint import CaseFingerprint, Fingerprint, measure_channel, sum_fingerprints
from autoseg.core.geometry import Box, Shape
from autoseg.core.image import Image
from autoseg.core.modality import intensity_kind
from autoseg.core.profiles import content_digest, measure_profile
from autoseg.core.progress import Progress
from autoseg.core.spec import DatasetSpec
from autoseg.core.task import Inputs, Task
from autoseg.io.atomic import hash_values, sha256_path
from autoseg.io.done import is_done, mark_done
from autoseg.io.images import companion_file, unchanged
from autoseg.io.values import read_value, write_value
from autoseg.ops.crop import bounding_box, content_box, content_mask, corner_value, crop
from autoseg.stages import suspects
from autoseg.stages.parallel import map_cases, require_all
from autoseg.stages.prepare import read_inputs

log = logging.getLogger(__name__)

# Raised whenever a case's measurement would change; cached ones are then measured anew.
FINGERPRINT_RULES = 5
# Beside `fingerprint.json`: cases with equal images, which folds keep together.
COPIES = "copies.json"


@dataclass(frozen=True)
class MeasureUnit:
    """Measures one unit, or takes its measurement from the cache if its files are unchanged."""

    task: Task
    spec: DatasetSpec
    cache: Path

    def __call__(self, unit: Unit) -> tuple[str, CaseFingerprint]:
        with unchanged(unit_files(unit)):
            key = hash_values(FINGERPRINT_RULES, self.spec.task, self.spec.inputs, self.spec.labels, self.spec.ignore,
                              self.spec.options, digest_unit(unit))
            cached = self.cache / f"{unit.id}.{key[:16]}.json"
            if cached.exists():
                try:
                    return key, read_value(cached, CaseFingerprint)
                except AutosegError as error:  # a cache is not flushed to disk, so a power cut can leave half of one
                    log.warning("%s; the case is measured again", error)
            measured = measure_unit(self.task, self.spec, unit)
        write_value(cached, measured, durable=False)
        return key, measured


def run_fingerprint(task: Task, spec: DatasetSpec, units: Sequence[Unit], folder: Path, *, executor: Executor | None,
                    progress: Progress) -> Fingerprint:
    """The fingerprint of a dataset, over the cases of all units; `folder` receives `fingerprint.json`, a cache per case and
    `done.json`.

    Raises:
        DatasetError: cases cannot be read; the message lists all of them and nothing is written but the cache.
    """
    units = single_units(units)
    results, failures = map_cases(MeasureUnit(task, spec, folder / "cases"), units, [unit.id for unit in units],
                                  stage="fingerprint", executor=executor, progress=progress)
    require_all(failures, f"dataset {spec.name!r}")
    inputs = hash_values([key for key, _ in results], [unit.group for unit in units])
    path = folder / "fingerprint.json"
    if is_done(folder, inputs):
        return read_value(path, Fingerprint)
    channels = sum(len(entry.channels) for entry in spec.inputs if entry.kind == "image")
    cases = [measured for _, measured in results]
    fingerprint = sum_fingerprints(cases, channels, [unit.group for unit in units])
    ids = [unit.id for unit in units]
    copies = suspects.find_copies(ids, [case.content for case in cases])
    for failure in suspects.channel_warnings(spec, ids, [case.profiles for case in cases]) + suspects.copy_warnings(copies):
        log.warning("%s: %s [%s]", failure.unit, failure.message, failure.code)
    write_value(path, fingerprint)
    write_value(folder / COPIES, copies)
    mark_done(folder, inputs, [path, folder / COPIES])
    return fingerprint


def measure_unit(task: Task, spec: DatasetSpec, unit: Unit) -> CaseFingerprint:
    """Grid, foreground intensities and the task's own counts of one unit, read from its files."""
    inputs = read_inputs(unit, spec)
    first = next(iter(inputs.values()))
    description = task.describe(unit, inputs, task.read_target(unit, spec))
    voxels = _stack(inputs)
    box = bounding_box(content_mask(voxels, [0] * len(voxels)))
    shape, share = _extent(box, first)
    inside_corners = _extent(content_box(voxels, [corner_value(channel) for channel in voxels]), first)
    foreground = crop(description.foreground, box)
    channels = [measure_channel(channel[foreground]) for channel in crop(voxels, box)]
    return CaseFingerprint(
        shape, first.geometry.spacing_mm, share,
        tuple(moments for moments, _ in channels), tuple(histogram for _, histogram in channels), description.properties,
        tuple(intensity_kind(channel) for channel in voxels), *inside_corners,
        content=content_digest([image.voxels for image in inputs.values()]),
        profiles=tuple(measure_profile(channel) for channel in voxels) if len(voxels) > 1 else (), marks=description.marks)


def _extent(box: Box, image: Image) -> tuple[Shape, float]:
    """Size of a box, and its share of the image."""
    z, y, x = (stop - start for start, stop in box)
    return (z, y, x), z * y * x / math.prod(image.geometry.shape)


def digest_unit(unit: Unit) -> str:
    """Digest of a unit: that of its case, or of all of its cases."""
    return join_digests([digest_case(case) for case in unit.cases])


def join_digests(digests: Sequence[str]) -> str:
    """The digest of a unit from those of its cases."""
    return digests[0] if len(digests) == 1 else hash_values(digests)


def digest_case(case: Case) -> str:
    """Digest over the content of all files of a case, those with the spacing of an image among them, and over its values."""
    return hash_values([[sha256_path(path) for path in case_files(case)]], *([case.values] if case.values else []))


def unit_files(unit: Unit) -> list[Path]:
    """All files of a unit: images, targets, and those with the spacing of an image."""
    return [path for case in unit.cases for path in case_files(case)]


def case_files(case: Case) -> list[Path]:
    """All files of a case; see `unit_files`."""
    files = [*(path for paths in case.inputs.values() for path in paths), *case.targets.values()]
    return [*files, *(found for path in files if (found := companion_file(path)) is not None)]


def _stack(inputs: Inputs) -> np.ndarray:
    return np.concatenate([image.voxels for image in inputs.values()])
