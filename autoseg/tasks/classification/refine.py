"""Post-processing candidates of classification; cross-validation decides which of them help."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.core.spec import DatasetSpec
from autoseg.core.task import Given, Refinement
from autoseg.tasks.classification.kinds import Kind
from autoseg.tasks.classification.output import probabilities_of
from autoseg.tasks.classification.score import CLIP
from autoseg.tasks.classification.spec import classification_options
from autoseg.tasks.classification.target import MIDDLE, Answer, Reading, aligned

# The score of the summary that a utility of thresholds shows in: Youden's index is twice the balanced accuracy, minus 1.
JUDGES = {"youden": "mean.balanced_accuracy", "f1": "mean.f1", "cost": "mean.utility"}

# The steps in which the cheap model answers: together with the networks, or for them.
AVERAGED, REPLACED = "average_with_baseline", "baseline_alone"

Change = Callable[[Answer, DatasetSpec, Given], Answer]


def refinements(spec: DatasetSpec) -> tuple[Refinement, ...]:
    """The average with the baseline, the baseline alone, a temperature, and thresholds, in this order.

    Source of the temperature: Guo et al. 2017 (arXiv 1706.04599).
    """
    utility = classification_options(spec).utility
    return (Refinement(AVERAGED, _once(AVERAGED, _average),
                       "two models of different kinds err on different units", uses_baseline=True, parts_may_vary=True),
            Refinement(REPLACED, _once(REPLACED, _take_baseline), "the cheap model ranks better than the network",
                       uses_baseline=True, parts_may_vary=True),
            Refinement("temperature", _once("temperature", _cool), "networks are too sure of what they say",
                       judged_by="mean.log_score", fit=fit_temperatures, parts_may_vary=True),
            Refinement("thresholds", _once("thresholds", _cut), f"decisions follow the utility of the specification, {utility}",
                       judged_by=JUDGES[utility], fit=fit_thresholds, parts_may_vary=True))


def _once(name: str, change: Change) -> Callable[[Any, DatasetSpec, Given], Any]:
    return partial(_apply_once, name=name, change=change)


def _apply_once(prediction: Answer, spec: DatasetSpec, given: Given, *, name: str, change: Change) -> Answer:
    """A step that was applied already changes nothing; the prediction says which were."""
    if name in prediction.refined:
        return prediction
    return replace(change(prediction, spec, given), refined=(*prediction.refined, name))


def _average(prediction: Answer, spec: DatasetSpec, given: Given) -> Answer:
    """Means of probabilities and of values."""
    return replace(prediction, readings=tuple(_mean(one, given.baseline.reading(one.name)) for one in prediction.readings))


def _mean(one: Reading, other: Reading) -> Reading:
    if one.kind == Kind.CONTINUOUS:
        return replace(one, value=(one.value + other.value) / 2, logits=())
    pairs = zip(one.probabilities, aligned(other, one.classes).probabilities, strict=True)
    return replace(one, probabilities=tuple((first + second) / 2 for first, second in pairs), logits=())


def _take_baseline(prediction: Answer, spec: DatasetSpec, given: Given) -> Answer:
    return replace(prediction, readings=tuple(replace(aligned(given.baseline.reading(one.name), one.classes), logits=())
                                              for one in prediction.readings))


def _cool(prediction: Answer, spec: DatasetSpec, given: Given) -> Answer:
    return replace(prediction, readings=tuple(cooled(one, given.fitted.get(one.name, 1.0)) for one in prediction.readings))


def cooled(reading: Reading, temperature: float) -> Reading:
    """The reading with its log-odds divided by a temperature; of classes and grades, the logarithms of their probabilities."""
    if reading.kind == Kind.CONTINUOUS or temperature == 1.0:
        return reading
    logits = log_odds(np.array(reading.probabilities), reading.kind) / temperature
    kind = Kind.MULTILABEL if reading.kind == Kind.MULTILABEL else Kind.MULTICLASS
    return replace(reading, probabilities=probabilities_of(kind, logits))


def log_odds(probabilities: NDArray[np.float64], kind: Kind) -> NDArray[np.float64]:
    """Numbers whose softmax, of several labels whose sigmoid, the probabilities are; of two classes the softmax of two."""
    clipped = np.clip(probabilities, CLIP, 1 - CLIP)
    return np.log(clipped / (1 - clipped)) if kind == Kind.MULTILABEL else np.log(clipped)


def fit_temperatures(pairs: Sequence[tuple[Answer, Answer]], spec: DatasetSpec) -> dict[str, float]:
    """By target, the temperature of the smallest log loss on these predictions with their truths."""
    from autoseg.metrics.calibration import fit_temperature

    found = {}
    for name, kind, said, true in _tables(pairs):
        truths = true if kind == Kind.MULTILABEL else np.argmax(true, axis=1).astype(np.float64)
        temperature = fit_temperature(log_odds(said, kind), truths)
        if not math.isnan(temperature):
            found[name] = temperature
    return found


def _cut(prediction: Answer, spec: DatasetSpec, given: Given) -> Answer:
    return replace(prediction, readings=tuple(
        replace(one, thresholds=tuple(given.fitted.get(f"{one.name}.{one.classes[place]}", MIDDLE) for place in cut_places(one)))
        for one in prediction.readings))


def cut_places(reading: Reading) -> tuple[int, ...]:
    """Places of the classes that are decided by a threshold."""
    if reading.kind == Kind.MULTILABEL:
        return tuple(range(len(reading.classes)))
    return (1,) if reading.kind == Kind.BINARY else ()


def fit_thresholds(pairs: Sequence[tuple[Answer, Answer]], spec: DatasetSpec) -> dict[str, float]:
    """By target and class, the threshold of the best utility on these predictions with their truths."""
    from autoseg.metrics.thresholds import best_threshold

    options = classification_options(spec)
    value = math.nan if options.costs is None else options.costs.missed / options.costs.false_alarm
    found = {}
    for name, _, said, true in _tables(pairs):
        reading = pairs[0][0].reading(name)
        for place in cut_places(reading):
            threshold = best_threshold(said[:, place], true[:, place], options.utility, value).score
            if not math.isnan(threshold):
                found[f"{name}.{reading.classes[place]}"] = threshold
    return found


def _tables(pairs: Sequence[tuple[Answer, Answer]]) -> list[tuple[str, Kind, NDArray[np.float64], NDArray[np.float64]]]:
    """Per target with classes its name and kind, and probabilities and truths (N, K) of the units whose truth is known."""
    tables = []
    for reading in pairs[0][0].readings if pairs else ():
        rows = [(said.reading(reading.name), aligned(true.reading(reading.name), reading.classes)) for said, true in pairs
                if reading.kind != Kind.CONTINUOUS and true.reading(reading.name).is_known]
        if rows:
            tables.append((reading.name, reading.kind, np.array([said.probabilities for said, _ in rows], np.float64),
                           np.array([true.probabilities for _, true in rows], np.float64)))
    return tables
