"""Targets of both tasks: read, described for the fingerprint, and stored with a case."""

from __future__ import annotations

from typing import Any

from autoseg.core.case import Unit
from autoseg.core.errors import DatasetError
from autoseg.core.geometry import GridRecord
from autoseg.core.plan import Configuration
from autoseg.core.spec import DatasetSpec
from autoseg.core.task import Arrays, Description, Inputs
from autoseg.tasks.joint.parts import ROLES, Pair, Parts, configuration_of, spec_of


def read_target(parts: Parts, unit: Unit, spec: DatasetSpec) -> Pair[Any] | None:
    """The targets of both tasks, of which one may be missing; None where both are."""
    dense, whole = (parts.of(role).read_target(unit, spec_of(parts.of(role), spec)) for role in ROLES)
    return None if dense is None and whole is None else Pair(dense, whole)


def describe(parts: Parts, unit: Unit, inputs: Inputs, target: Pair[Any] | None) -> Description:
    """Intensities are measured in the foreground of the dense task; counted is what both tasks count.

    Raises:
        DatasetError: the unit has no target for every voxel.
    """
    if target is None or target.dense is None:
        raise DatasetError(f"case {unit.id} has no target of {parts.dense.name}; add its file, or list the case under 'exclude'",
                           code="E_NO_LABEL")
    dense = parts.dense.describe(unit, inputs, target.dense)
    whole = parts.whole.describe(unit, inputs, target.whole)
    shared = dense.properties.keys() & whole.properties.keys()
    assert not shared, f"{parts.dense.name} and {parts.whole.name} both count {sorted(shared)}"
    return Description(dense.foreground, dense.properties | whole.properties)


def prepare_target(parts: Parts, target: Pair[Any], record: GridRecord, configuration: Configuration) -> Arrays:
    """The arrays of both tasks."""
    arrays: Arrays = {}
    for role in ROLES:
        task = parts.of(role)
        found = task.prepare_target(target.of(role), record, configuration_of(task, configuration))
        assert not arrays.keys() & found.keys(), f"both tasks store {sorted(arrays.keys() & found.keys())}"
        arrays |= found
    return arrays

