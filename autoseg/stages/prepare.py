"""From the files of a unit to arrays on the model grid; used by planning (pilot units), preprocessing and prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from autoseg.core.case import Unit
from autoseg.core.errors import GeometryError
from autoseg.core.geometry import Box, GridRecord, Spacing
from autoseg.core.image import Image
from autoseg.core.plan import Configuration, Plan
from autoseg.core.spec import DatasetSpec
from autoseg.core.task import Arrays, Inputs
from autoseg.io.atomic import hash_values
from autoseg.io.images import read_image
from autoseg.ops.crop import bounding_box, crop, nonzero_mask
from autoseg.ops.normalize import normalize
from autoseg.ops.resample import resample, resampled_shape, separate_axis

# Raised whenever the arrays in a store would change for the same plan; old stores are then not found and made anew.
STORE_RULES = 1


def read_inputs(unit: Unit, spec: DatasetSpec) -> Inputs:
    """The images of a unit by role, canonical; the roles of its k-th further case are called `role@k`.

    Raises:
        ReadError, GeometryError: a file cannot be read completely, or channels lie on different grids.
    """
    inputs: Inputs = {}
    for place, case in enumerate(unit.cases):
        for entry in spec.inputs:
            if entry.kind == "image":
                role = entry.role if place == 0 else f"{entry.role}@{place}"
                inputs[role] = read_image(case.inputs[entry.role], channels=len(entry.channels))
    return inputs


def prepare_inputs(inputs: Inputs, plan: Plan, configuration: Configuration) -> tuple[Arrays, GridRecord]:
    """Images cropped to non-zero, turned, normalised and resampled to the model grid, and the way back.

    Order and numbers are nnU-Net's (default_preprocessor.py): normalise before resampling, in float32.

    Returns:
        float32 (C, Z, Y, X) by role in model axis order; one record, because all images of a unit share a grid.
    Raises:
        GeometryError: two roles lie on different grids.
    """
    first = next(iter(inputs.values()))
    for role, image in inputs.items():
        if not image.geometry.agrees_with(first.geometry):
            raise GeometryError(f"input {role!r} lies on {image.geometry} and the first input on {first.geometry}; "
                                "resample them to one grid")
    mask = nonzero_mask(np.concatenate([image.voxels for image in inputs.values()]))
    box = bounding_box(mask)
    record = _grid_record(first, box, plan, configuration)
    apart = separate_axis(record.turned_spacing_mm, record.model_spacing_mm, configuration.resampling.separate_z_ratio)
    turn = (0, *(1 + axis for axis in plan.transpose))
    turned_mask = crop(mask, box).transpose(plan.transpose)
    arrays: Arrays = {}
    for entry in plan.inputs:
        voxels = crop(inputs[entry.role].voxels, box).transpose(turn)
        normalized = normalize(voxels, entry.channels, turned_mask)
        arrays[entry.role] = resample(normalized, record.model_shape, order=configuration.resampling.image_order,
                                      order_z=configuration.resampling.image_order_z, separate_axis=apart)
    return arrays, record


def _grid_record(image: Image, box: Box, plan: Plan, configuration: Configuration) -> GridRecord:
    """The record of a crop; where the plan leaves an axis its own spacing, that of the case."""
    same_grid = GridRecord(image.stored, image.orientation, box, plan.transpose, (1, 1, 1), (1.0, 1.0, 1.0))
    own, planned = same_grid.turned_spacing_mm, configuration.spacing_mm
    model = (own[0] if planned[0] is None else planned[0], planned[1], planned[2])
    return replace(same_grid, model_shape=resampled_shape(same_grid.turned_shape, own, model), model_spacing_mm=model)


def grid_hash(plan: Plan, configuration: Configuration, spec: DatasetSpec, spacings_mm: Sequence[Spacing]) -> str:
    """Name of the store: equal for configurations that prepare every case in the same way.

    A configuration that keeps each case's own spacing along an axis shares the grid of one that resamples to a spacing
    which all cases have already.
    """
    resolved = []
    for axis, planned in enumerate(configuration.spacing_mm):
        own = {spacing[plan.transpose[axis]] for spacing in spacings_mm}
        resolved.append(own.pop() if planned is None and len(own) == 1 else planned)
    return hash_values(STORE_RULES, spec.task, spec.labels, spec.ignore, spec.options, configuration.task_values, plan.inputs,
                       plan.transpose, resolved, configuration.resampling)[:16]
