"""How smooth: the weight of the smoothness, tried on a few pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from autoseg.core.budget import Finding
from autoseg.core.geometry import GridRecord
from autoseg.core.plan import Configuration, Loss, Reason, Value
from autoseg.core.task import Arrays, Context
from autoseg.io.atomic import hash_values
from autoseg.metrics.deformation import folded_share, log_jacobian_deviation
from autoseg.ops.displacement import jacobian_determinant
from autoseg.planning.budget import Meter, candidate_key
from autoseg.planning.explain import Reasons
from autoseg.tasks.registration import recipes
from autoseg.tasks.registration.output import infer, restore

Pairs = Callable[[Configuration], Sequence[tuple[Arrays, GridRecord]]]

PATH = "loss.terms.smoothness"


@dataclass(frozen=True)
class Tried:
    """What one weight did to the pilot pairs.

    Attributes:
        folded_percent: mean share of voxels that fold.
        deviation: mean standard deviation of the log Jacobian.
    """

    weight: float
    folded_percent: float
    deviation: float

    @property
    def keeps(self) -> bool:
        """Whether displacements of this weight can be believed."""
        return self.folded_percent < recipes.MOST_FOLDED_PERCENT and self.deviation < recipes.LARGEST_DEVIATION

    def __str__(self) -> str:
        return f"{self.weight:g}: {self.folded_percent:.2g} % folded, sd of the log Jacobian {self.deviation:.3f}"


def choose_smoothness(configuration: Configuration, meter: Meter, values: dict[str, Value], pilots: Pairs,
                      key: str) -> tuple[float, Reasons]:
    """The smallest weight of a bracket around the published one whose displacements can be believed, and why.

    Pilot pairs are optimised one by one with each weight in turn, from the smallest on. The largest one is taken where none
    keeps to the bounds. Where displacements are drawn, or fitted by a network of coordinates, it stays as it is.

    Args:
        configuration: one whose frame is small enough to try.
        values: how single pairs are optimised.
        pilots: the pilot pairs on the grid of a configuration.
        key: names the data and options that findings belong to.
    """
    published = configuration.loss.terms["smoothness"]
    similarity = str(configuration.task_values["similarity"])
    if configuration.network.similarity is not None:  # type: ignore[union-attr]  # what it has learned is not there yet
        return published, {}
    if configuration.task_values["method"] not in ("network", "pair"):
        return published, {PATH: _published(configuration)}
    trial = replace(configuration, task_values={**configuration.task_values, **values, "method": "pair"})
    pairs, tried_as = cache(lambda: pilots(trial)), hash_values(trial.spacing_mm, values)[:8]
    name = f"{key} {candidate_key(trial)} {tried_as} {similarity}"
    tried: list[Tried] = []
    for factor in recipes.BRACKET:
        tried.append(_try(trial, published * factor, meter, pairs, name))
        if tried[-1].keeps:
            break
    found = f"{published:g} is published beside {similarity}; pairs optimised one by one: {'; '.join(map(str, tried))}"
    rule = (f"the smallest of {_listed([published * factor for factor in recipes.BRACKET])} that folds less than "
            f"{recipes.MOST_FOLDED_PERCENT:g} % and keeps the deviation of the log Jacobian below {recipes.LARGEST_DEVIATION:g}")
    return tried[-1].weight, {PATH: Reason(found, rule if tried[-1].keeps else f"the largest, as none is {rule}",
                                           "measured on this machine, see budget.json")}


def _published(configuration: Configuration) -> Reason:
    if configuration.task_values["method"] == "implicit":
        return Reason("method implicit", "the published weight of the penalty on changes of volume, in mm by mm", recipes.IDIR)
    return Reason(f"similarity {configuration.task_values['similarity']}", "the published weight beside this similarity, for "
                  "refining answers only; derivatives are in mm by mm", recipes.VOXELMORPH)


def _listed(weights: Sequence[float]) -> str:
    return ", ".join(f"{weight:g}" for weight in weights)


def _try(trial: Configuration, weight: float, meter: Meter, pairs: Callable[[], Sequence[tuple[Arrays, GridRecord]]],
         key: str) -> Tried:
    """What a weight does: looked up in the budget, or measured now and kept there."""
    names = [f"{key} smoothness {weight:g} {what}" for what in ("folded percent", "deviation")]
    known = [meter.budget.found(name) for name in names]
    if None in known:
        one = replace(trial, loss=Loss({"similarity": 1.0, "smoothness": weight}))
        rows = [_optimised(arrays, record, one) for arrays, record in pairs()]
        known = [float(f"{value:.4g}") for value in np.mean(rows, axis=0)]
        findings = (Finding(name, value) for name, value in zip(names, known, strict=True) if value is not None)
        meter.budget = replace(meter.budget, findings=(*meter.budget.findings, *findings))
    folded, deviation = known
    assert folded is not None and deviation is not None
    return Tried(weight, folded, deviation)


def _optimised(arrays: Arrays, record: GridRecord, trial: Configuration) -> tuple[float, float]:
    """Percent of folded voxels and deviation of the log Jacobian of one pair; on a CPU, as a plan may be for another machine."""
    found = restore(infer([], arrays, trial, Context()), record, trial, Context())
    determinants = jacobian_determinant(found.displacement, record.canonical)
    return 100 * folded_share(determinants), log_jacobian_deviation(determinants)
