"""What people are told and shown of a joint task: what both tasks say, one after the other."""

from __future__ import annotations

from collections.abc import Sequence

from autoseg.core.case import Unit
from autoseg.core.errors import AutosegError
from autoseg.core.image import Image
from autoseg.core.report import Failure, Record
from autoseg.core.spec import DatasetSpec
from autoseg.core.task import Picture, Task
from autoseg.tasks.joint.parts import ROLES, Pair, Parts, spec_of
from autoseg.tasks.joint.score import HEADLINE, records_of, score_name


def examine(parts: Parts, units: Sequence[Unit], spec: DatasetSpec) -> tuple[Failure, ...]:
    """What either task finds wrong with all units together; and that no unit has a target for every voxel."""
    found = [failure for role in ROLES for failure in parts.of(role).examine(units, spec_of(parts.of(role), spec))]
    dense, whole = parts.dense, parts.whole
    if units and not any(_has_target(dense, unit, spec_of(dense, spec)) for unit in units):
        found.append(Failure(f"{len(units)} cases", "E_NO_LABEL", f"none of them has a target of {dense.name}; name their files "
                             f"under 'targets' of the layout, or write 'task: {whole.name}'"))
    return tuple(found)


def _has_target(task: Task, unit: Unit, spec: DatasetSpec) -> bool:
    try:
        return task.read_target(unit, spec) is not None
    except AutosegError:  # one that cannot be read is told case by case, where all of them are read
        return True


def facts(parts: Parts, spec: DatasetSpec, units: Sequence[Unit]) -> dict[str, str]:
    """The facts of both tasks."""
    return {name: text for role in ROLES for name, text in parts.of(role).facts(spec_of(parts.of(role), spec), units).items()}


def notes(parts: Parts, spec: DatasetSpec) -> tuple[str, ...]:
    """What the scores of both tasks are made of, and how each task's are to be read."""
    texts = [f"{score_name(task)} is {task.headline} of {task.name}" for task in (parts.dense, parts.whole)]
    return (f"{HEADLINE} is the mean of {score_name(parts.dense)} and {score_name(parts.whole)}: {'; '.join(texts)}. Models are "
            f"compared by it, cases by {parts.dense.case_headline} of {parts.dense.name}.",
            *(note for role in ROLES for note in parts.of(role).notes(spec_of(parts.of(role), spec))))


def draw_figures(parts: Parts, prediction: Pair, target: Pair | None, image: Image, spec: DatasetSpec) -> tuple[Picture, ...]:
    """The pictures of both tasks."""
    return tuple(picture for role in ROLES for picture in parts.of(role).figures(
        prediction.of(role), None if target is None else target.of(role), image, spec_of(parts.of(role), spec)))


def charts(parts: Parts, records: Sequence[Record], baseline: Sequence[Record], spec: DatasetSpec) -> tuple[str, ...]:
    """The charts of both tasks."""
    return tuple(chart for role in ROLES for chart in parts.of(role).charts(
        records_of(parts.of(role), records), records_of(parts.of(role), baseline), spec_of(parts.of(role), spec)))
