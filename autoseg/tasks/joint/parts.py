"""The two tasks that a joint one is made of, and what each of them is given of what belongs to both."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Generic, Literal, TypeAlias, TypeVar

from autoseg.core.plan import Configuration
from autoseg.core.spec import DatasetSpec
from autoseg.core.task import Task

V = TypeVar("V")
Role: TypeAlias = Literal["dense", "whole"]
ROLES: tuple[Role, Role] = ("dense", "whole")


@dataclass(frozen=True)
class Pair(Generic[V]):
    """Something of both tasks: their records, targets, predictions.

    Attributes:
        dense: of the task that answers for every voxel.
        whole: of the task that answers for the whole image.
    """

    dense: V
    whole: V

    def of(self, role: Role) -> V:
        return self.dense if role == "dense" else self.whole


Parts: TypeAlias = Pair[Task]


def require_names_apart(parts: Parts) -> None:
    """Raises a TypeError where names could not tell the two tasks apart."""
    names = [entry.name for task in (parts.dense, parts.whole) for kind in task.option_types for entry in fields(kind)]
    shared = sorted({name for name in names if names.count(name) > 1})
    if parts.dense.name == parts.whole.name or shared:
        raise TypeError(f"tasks {parts.dense.name!r} and {parts.whole.name!r} cannot be joined: they have the same name, or "
                        f"share the options {shared}")


@dataclass(frozen=True)
class Slot:
    """A slot of the joint record: a function that is given both tasks first.

    Slots of the same function and tasks are equal, here and in a worker process, which `functools.partial`s are not.
    """

    function: Callable[..., Any]
    parts: Parts

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self.function(self.parts, *arguments, **named)


def spec_of(task: Task, spec: DatasetSpec) -> DatasetSpec:
    """The specification as one of the tasks knows it: with its own name and options."""
    known = {entry.name for kind in task.option_types for entry in fields(kind)}
    return replace(spec, task=task.name, options={key: value for key, value in spec.options.items() if key in known})


def configuration_of(task: Task, configuration: Configuration) -> Configuration:
    """A planned configuration as one of the tasks knows it: with its own terms of the loss and its own values."""
    return replace(configuration, loss=replace(configuration.loss, terms=own(task, configuration.loss.terms)),
                   task_values=own(task, configuration.task_values))


def lifted(task: Task, values: Mapping[str, V]) -> dict[str, V]:
    """Values of a task under names that begin with its own."""
    return {f"{task.name}.{name}": value for name, value in values.items()}


def own(task: Task, values: Mapping[str, V]) -> dict[str, V]:
    """Those of the lifted values that are the task's, under its own names."""
    stem = f"{task.name}."
    return {name.removeprefix(stem): value for name, value in values.items() if name.startswith(stem)}
