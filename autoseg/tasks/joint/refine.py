"""Post-processing candidates of both tasks, each judged by the scores of its own task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from autoseg.core.spec import DatasetSpec
from autoseg.core.task import Given, Refinement, Task
from autoseg.tasks.joint.parts import ROLES, Pair, Parts, Role, spec_of


def refinements(parts: Parts, spec: DatasetSpec) -> tuple[Refinement, ...]:
    """First those of the dense task; their names begin with the task's."""
    return tuple(_lifted(parts.of(role), role, refinement)
                 for role in ROLES for refinement in parts.of(role).refinements(spec_of(parts.of(role), spec)))


def _lifted(task: Task, role: Role, refinement: Refinement) -> Refinement:
    fit = None if refinement.fit is None else partial(_fit, task, role, refinement)
    return replace(refinement, name=f"{task.name}.{refinement.name}", apply=partial(_apply, task, role, refinement), fit=fit,
                   judged_by=f"{task.name}.{refinement.judged_by or task.headline}")


def _apply(task: Task, role: Role, refinement: Refinement, prediction: Pair[Any], spec: DatasetSpec, given: Given) -> Pair[Any]:
    baseline = None if given.baseline is None else given.baseline.of(role)
    changed = refinement.apply(prediction.of(role), spec_of(task, spec), replace(given, baseline=baseline))
    return Pair(changed, prediction.whole) if role == "dense" else Pair(prediction.dense, changed)


def _fit(task: Task, role: Role, refinement: Refinement, pairs: Sequence[tuple[Pair[Any], Pair[Any]]],
         spec: DatasetSpec) -> dict[str, float]:
    assert refinement.fit is not None
    return refinement.fit(_PairsOf(pairs, role), spec_of(task, spec))


class _PairsOf(Sequence[tuple[Any, Any]]):
    """Predictions with their targets, of one task, read one by one when they are asked for."""

    def __init__(self, pairs: Sequence[tuple[Pair[Any], Pair[Any]]], role: Role) -> None:
        self._pairs = pairs
        self._role = role

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, place: Any) -> Any:
        found = self._pairs[place]
        return [self._of(pair) for pair in found] if isinstance(place, slice) else self._of(found)

    def _of(self, pair: tuple[Pair[Any], Pair[Any]]) -> tuple[Any, Any]:
        prediction, target = pair
        return prediction.of(self._role), target.of(self._role)
