"""Pairs of images whose displacement is known, as files and as prepared arrays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from autoseg.core.budget import Budget, CaseTime
from autoseg.core.case import Case, Unit
from autoseg.core.fingerprint import sum_fingerprints
from autoseg.core.geometry import Geometry
from autoseg.core.image import Image
from autoseg.core.plan import Plan
from autoseg.core.spec import ChannelSpec, DatasetSpec, InputSpec, LabelSpec
from autoseg.core.task import PlanRequest, Probe
from autoseg.io.images import write_label_map, write_volume
from autoseg.stages.fingerprint import measure_unit
from autoseg.stages.prepare import prepare_inputs, read_inputs
from autoseg.tasks.registration import TASK

SHAPE, SPACING = (16, 20, 24), (2.0, 1.5, 1.0)


def blobs(shape=SHAPE, seed=0):
    found = gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2.5)
    return (found / found.std()).astype(np.float32)


def image(voxels, origin=(0.0, 0.0, 0.0), spacing=SPACING) -> Image:
    voxels = voxels if voxels.ndim == 4 else voxels[None]
    return Image.canonical(voxels.astype(np.float32), Geometry(voxels.shape[1:], spacing, origin))


def write_case(folder: Path, name: str, found: Image, label=None) -> Case:
    write_volume(folder / f"{name}.nii.gz", found.voxels, found)
    targets = {}
    if label is not None:
        write_label_map(folder / f"{name}_label.nii.gz", label, found)
        targets["label"] = folder / f"{name}_label.nii.gz"
    return Case(name, name, {"image": (folder / f"{name}.nii.gz",)}, targets)


def shifted_pair(folder: Path, steps=(0, 0, 0), origin=(0.0, 0.0, 0.0)) -> Unit:
    """The moving image shows the fixed one's voxel v at v + steps, and lies at another origin."""
    whole = blobs((32, 36, 40))
    fixed = whole[8:24, 8:28, 8:32]
    z, y, x = steps
    moving = whole[8 - z:24 - z, 8 - y:28 - y, 8 - x:32 - x]
    cases = [write_case(folder, name, image(voxels, where), np.where(voxels > 0.7, 2, 0))
             for name, voxels, where in (("fixed", fixed, (0.0, 0.0, 0.0)), ("moving", moving, origin))]
    return Unit("moving_to_fixed", tuple(cases), "fixed")


def moved_slices(folder: Path, slices, names: tuple[str, str], *, size: tuple[int, int], down: int, labelled: bool = False,
                 group: str = "fixed", spacing=SPACING) -> Unit:
    """Parts of one slice, or of two contrasts of it (1 or 2, Y, X); the moving part is cut `down` voxels further down."""
    (height, width), cases = size, []
    for name, part, y in zip(names, (slices[0], slices[-1]), (0, down), strict=True):
        cut = part[None, 4 + y:4 + y + height, 4:4 + width]
        cases.append(write_case(folder, name, image(cut, spacing=spacing), np.where(cut > 0.7, 2, 0) if labelled else None))
    return Unit(f"{names[1]}_to_{names[0]}", tuple(cases), group)


def spec(**options) -> DatasetSpec:
    return DatasetSpec("pair", "registration", (), inputs=(InputSpec("image", channels=(ChannelSpec("MRI"),)),),
                       labels=(LabelSpec("bright", 2),), options=options)


def planned(unit: Unit, dataset: DatasetSpec, minutes=None, start=None, target="cpu") -> Plan:
    """The plan of one pair, or of the dataset that has it many times."""
    singles = [replace(unit, id=case.id, cases=(case,)) for case in unit.cases]
    fingerprint = sum_fingerprints([measure_unit(TASK, dataset, single) for single in singles] * 8, 1)
    times = CaseTime("", 0.1, 0.1, 1e6, (1.0, 1.0, 1.0), 1.0, 0.1, 0.1)
    probe = Probe(lambda plan, configuration: 0.5, lambda configuration: (10**9, 10**8), lambda plan, configuration: times,
                  lambda plan, configuration: [prepare_inputs(read_inputs(unit, dataset), plan, configuration)] * 2)
    return TASK.make_plan(dataset, fingerprint, Budget(target, 4 * 10**9, minutes=minutes), PlanRequest("test", start=start),
                          probe)
