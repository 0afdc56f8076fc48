"""One training step of both tasks: each task's own loss of what the shared network says to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from autoseg.core.plan import Configuration
from autoseg.core.task import Phase, Task
from autoseg.tasks.joint.network import WEIGHTS
from autoseg.tasks.joint.parts import ROLES, Parts, configuration_of, lifted

if TYPE_CHECKING:
    from torch import Tensor, nn

    Step = Callable[[Any, Mapping[str, Tensor]], dict[str, Tensor]]


def phases(parts: Parts, configuration: Configuration) -> tuple[Phase, ...]:
    """The single phase: the tasks' own steps on one pass of the network, their totals weighed by learned uncertainty.

    Losses are the terms of both tasks under names that begin with the task's, `<task>.log_variance` (s) and `total`.
    """
    steps = {role: _step_of(parts.of(role), configuration) for role in ROLES}

    def step(network: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        answers = dict(zip(ROLES, network(batch["image"]), strict=True))
        weights = network.get_submodule(WEIGHTS)
        losses: dict[str, Tensor] = {}
        totals = []
        for role, log_variance in zip(ROLES, weights.log_variances, strict=True):  # type: ignore[arg-type]
            found = steps[role](lambda image, answer=answers[role]: answer, batch)  # in place of a network of its own
            totals.append(found.pop("total"))
            losses |= lifted(parts.of(role), found | {"log_variance": log_variance})
        return losses | {"total": weights(totals)}

    return (Phase("joint", lambda network: network.parameters(), step),)


def _step_of(task: Task, configuration: Configuration) -> Step:
    """The step of a task with one phase."""
    (phase,) = task.phases(configuration_of(task, configuration))
    return phase.step
