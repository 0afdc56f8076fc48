"""The cheap models of both tasks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from autoseg.core.case import Unit
from autoseg.core.spec import DatasetSpec
from autoseg.core.task import Arrays, Inputs
from autoseg.tasks.joint.parts import ROLES, Pair, Parts, Role, lifted, own, spec_of


@dataclass(frozen=True)
class _SamplesOf:
    """The samples with the target of one task, without those that have none; read anew each time."""

    samples: Iterable[tuple[Unit, Inputs, Pair[Any]]]
    role: Role

    def __iter__(self) -> Iterator[tuple[Unit, Inputs, Any]]:
        return ((unit, inputs, target.of(self.role)) for unit, inputs, target in self.samples
                if target.of(self.role) is not None)


def fit_baseline(parts: Parts, samples: Iterable[tuple[Unit, Inputs, Pair[Any]]], spec: DatasetSpec,
                 rng: np.random.Generator) -> Arrays:
    """The arrays of both models; the samples are read once for each."""
    arrays: Arrays = {}
    for role in ROLES:
        task = parts.of(role)
        arrays |= lifted(task, task.fit_baseline(_SamplesOf(samples, role), spec_of(task, spec), rng))
    return arrays


def apply_baseline(parts: Parts, arrays: Arrays, inputs: Inputs, spec: DatasetSpec) -> Pair[Any]:
    """What both models predict."""
    dense, whole = (parts.of(role).apply_baseline(own(parts.of(role), arrays), inputs, spec_of(parts.of(role), spec))
                    for role in ROLES)
    return Pair(dense, whole)
