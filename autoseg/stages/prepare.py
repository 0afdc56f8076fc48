"""From the files of a unit to arrays on the model grid; used by planning (pilot units), preprocessing and prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from autoseg.core.case import Unit
from autoseg.core.errors import GeometryError
from autoseg.core.geometry import Box, GridRecord, Spacing
from autoseg.core.image import Image
from autoseg.core.plan import Configuration, Normalization, Plan
from autoseg.core.spec import DatasetSpec
from autoseg.core.task import Arrays, CaseStore, Inputs
from autoseg.io.atomic import hash_values
from autoseg.io.images import accepted_of, read_image
from autoseg.ops.crop import content_box, content_mask, corner_value, crop, whole_box
from autoseg.ops.normalize import measure_scaling, require_channels
from autoseg.ops.resample import resample_parts, resampled_shape, separate_axis

# Raised whenever the arrays in a store would change for the same plan; old stores are then not found and made anew.
STORE_RULES = 1


def read_inputs(unit: Unit, spec: DatasetSpec, *, compact: bool = False, varied: bool = False) -> Inputs:
    """The images of a unit by role, canonical; the roles of its k-th further case are called `role@k`.

    Args:
        compact: integers of at most 16 bits stay what they are, for `prepare_inputs`; see `read_image`.
        varied: a channel of one value everywhere is refused.
    Raises:
        ReadError, GeometryError: a file cannot be read completely, or channels lie on different grids.
    """
    inputs: Inputs = {}
    for place, case in enumerate(unit.cases):
        for entry in spec.inputs:
            if entry.kind == "image":
                inputs[role_of(entry.role, place)] = read_image(case.inputs[entry.role], channels=len(entry.channels),
                                                             compact=compact, varied=varied,
                                                             accepted=accepted_of(entry))
    return inputs


def role_of(role: str, place: int) -> str:
    """The name of an input of a unit's case: the role itself for the first case, `role@k` for the k-th further one."""
    return f"{role}@{place}" if place else role


def stored_inputs(store: CaseStore, unit: Unit, plan: Plan) -> Arrays:
    """The preprocessed images of all cases of a unit, under the names of `role_of`."""
    return {role_of(entry.role, place): store.array(case.id, entry.role)
            for place, case in enumerate(unit.cases) for entry in plan.inputs}


def stored_record(store: CaseStore, unit: Unit) -> GridRecord:
    """The way back of a unit's first case, with those of its further cases in it."""
    first, *others = (store.record(case.id) for case in unit.cases)
    return replace(first, further=tuple(others))


def prepare_inputs(inputs: Inputs, plan: Plan, configuration: Configuration) -> tuple[Arrays, GridRecord]:
    """The images of all cases of a unit on the model grid, each case by itself, and the way back: of the first, with those of
    the others in it.

    Args:
        inputs: under the names of `role_of`.
    Returns:
        float32 (C, Z, Y, X) by the same names in model axis order; one record a case, because all its images share a grid.
    Raises:
        GeometryError: two roles of a case lie on different grids.
    """
    arrays: Arrays = {}
    records: list[GridRecord] = []
    while role_of(plan.inputs[0].role, len(records)) in inputs:
        names = {entry.role: role_of(entry.role, len(records)) for entry in plan.inputs}
        found, record = _prepare_case({role: inputs[name] for role, name in names.items()}, plan, configuration)
        arrays |= {names[role]: array for role, array in found.items()}
        records.append(record)
    return arrays, replace(records[0], further=tuple(records[1:]))


def _prepare_case(inputs: Inputs, plan: Plan, configuration: Configuration) -> tuple[Arrays, GridRecord]:
    """Images cropped to what is not air, turned, normalised and resampled to the model grid, and the way back.

    Order and numbers are nnU-Net's (default_preprocessor.py): normalise before resampling, in float32. Channels are
    read part by part as they are stored, so that beside the images little more than the result is in memory.
    """
    first = next(iter(inputs.values()))
    for role, image in inputs.items():
        if not image.geometry.agrees_with(first.geometry):
            raise GeometryError(f"input {role!r} lies on {image.geometry} and the first input on {first.geometry}; "
                                "resample them to one grid")
    channels = [channel for entry in plan.inputs for channel in inputs[entry.role].voxels]
    mask, box = _content(inputs, channels, plan)
    record = _grid_record(first, box, plan, configuration)
    turned_mask = None if mask is None else crop(mask, box).transpose(plan.transpose)
    arrays: Arrays = {}
    for entry in plan.inputs:
        voxels = crop(inputs[entry.role].voxels, box).transpose(0, *(1 + axis for axis in plan.transpose))
        require_channels(voxels, entry.channels)
        arrays[entry.role] = np.empty((len(voxels), *record.model_shape), np.float32)
        for place, planned in enumerate(entry.channels):
            arrays[entry.role][place] = _prepare_channel(voxels[place], planned, turned_mask, record, configuration)
    return arrays, record


def _content(inputs: Inputs, channels: Sequence[NDArray], plan: Plan) -> tuple[NDArray[np.bool_] | None, Box]:
    """Where a case is not air, if a normalisation asks for it, and the box around that; all of it where nothing is air."""
    if any(entry.air == "nothing" for entry in plan.inputs):
        return None, whole_box(channels[0].shape)
    air = [corner_value(channel) if entry.air == "corners" else 0.0 for entry in plan.inputs
           for channel in inputs[entry.role].voxels]
    masked = any(planned.use_mask for entry in plan.inputs for planned in entry.channels)
    return content_mask(channels, air) if masked else None, content_box(channels, air)


def _prepare_channel(channel: NDArray, planned: Normalization, mask: NDArray[np.bool_] | None, record: GridRecord,
                     configuration: Configuration) -> NDArray[np.float32]:
    """A turned channel (Z, Y, X) of any number type, normalised and resampled, part by part."""
    scaling = measure_scaling(channel, planned, mask)

    def part(box: Box) -> NDArray[np.float32]:
        return scaling.apply(crop(channel, box), None if mask is None else crop(mask, box))

    rules = configuration.resampling
    apart = separate_axis(record.turned_spacing_mm, record.model_spacing_mm, rules.separate_z_ratio)
    return resample_parts(part, record.turned_shape, record.model_shape, order=rules.image_order,
                          order_z=rules.image_order_z, separate_axis=apart, low_pass_from=rules.low_pass_from)


def _grid_record(image: Image, box: Box, plan: Plan, configuration: Configuration) -> GridRecord:
    """The record of a crop; where the plan leaves an axis its own spacing, that of the case.

    Of a whole image the shape is planned, and the spacing follows.
    """
    same_grid = GridRecord(image.stored, image.orientation, box, plan.transpose, (1, 1, 1), (1.0, 1.0, 1.0))
    own, planned = same_grid.turned_spacing_mm, configuration.spacing_mm
    if configuration.whole_image:
        z, y, x = (step * before / after for step, before, after in
                   zip(own, same_grid.turned_shape, configuration.patch_size, strict=True))
        return replace(same_grid, model_shape=configuration.patch_size, model_spacing_mm=(z, y, x))
    model = (own[0] if planned[0] is None else planned[0], planned[1], planned[2])
    return replace(same_grid, model_shape=resampled_shape(same_grid.turned_shape, own, model), model_spacing_mm=model)


def grid_hash(plan: Plan, configuration: Configuration, spec: DatasetSpec, spacings_mm: Sequence[Spacing]) -> str:
    """Name of the store: equal for configurations that prepare every case in the same way.

    A configuration that keeps each case's own spacing along an axis shares the grid of one that resamples to a spacing
    which all cases have already. Whole images share a grid of a size, whatever their spacing.
    """
    resolved: list[object] = ["whole", *configuration.patch_size] if configuration.whole_image else []
    for axis, planned in enumerate(() if configuration.whole_image else configuration.spacing_mm):
        own = {spacing[plan.transpose[axis]] for spacing in spacings_mm}
        resolved.append(own.pop() if planned is None and len(own) == 1 else planned)
    return hash_values(STORE_RULES, spec.task, spec.labels, spec.ignore, spec.options, configuration.task_values, plan.inputs,
                       plan.transpose, resolved, configuration.resampling)[:16]
