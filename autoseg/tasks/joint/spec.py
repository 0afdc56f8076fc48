"""The units of a joint task: every case is one, understood by both tasks."""

from __future__ import annotations

from collections.abc import Sequence

from autoseg.core.case import Case, Unit
from autoseg.core.errors import DatasetError
from autoseg.core.spec import DatasetSpec
from autoseg.tasks.joint.parts import Parts, spec_of

# Options of either task that its half of a joint network cannot keep: the second head answers with numbers and keeps no map.
NOT_JOINED = ("localise",)


def index_units(parts: Parts, spec: DatasetSpec, cases: Sequence[Case]) -> tuple[Unit, ...]:
    """One unit per case that both tasks accept, with what they say of groups, strata and values.

    Raises:
        DatasetError: what either task raises; a unit has several cases, which do not share one label map; or an option asks for
            what only one of the tasks alone can do.
    """
    for name in NOT_JOINED:
        if spec.options.get(name):
            raise DatasetError(f"the options of {spec.name!r} say '{name}: true', which a joint task cannot do: its label maps "
                               "say where things are", hint=f"leave {name!r} out, or take 'task: classification' for boxes")
    units = _of_one_case(parts.dense.index(spec_of(parts.dense, spec), cases), spec)
    return _of_one_case(parts.whole.index(spec_of(parts.whole, spec), [unit.cases[0] for unit in units]), spec)


def _of_one_case(units: Sequence[Unit], spec: DatasetSpec) -> tuple[Unit, ...]:
    for unit in units:
        if len(unit.cases) > 1:
            raise DatasetError(f"unit {unit.id} of {spec.name!r} has {len(unit.cases)} images, and a joint task learns both from "
                               "one image; leave 'exam' out of the options, so that every image is a unit")
    return tuple(units)
