"""Scores of what is said of one unit against its truth: what the summary of all units is made of."""

from __future__ import annotations

import math

from autoseg.core.image import Image
from autoseg.core.report import Scores
from autoseg.core.spec import DatasetSpec
from autoseg.tasks.classification.boxes import score_boxes
from autoseg.tasks.classification.kinds import Kind
from autoseg.tasks.classification.output import expected_grade, shown_probabilities
from autoseg.tasks.classification.spec import CostOptions, classification_options
from autoseg.tasks.classification.target import Answer, Reading, aligned

# Closest that a probability comes to 0 and 1 before its logarithm is taken, so that one certain mistake costs 13.8 and not
# infinity; scikit-learn's log_loss clips for the same reason.
CLIP = 1e-6


def score(prediction: Answer, target: Answer, spec: DatasetSpec, image: Image | None = None) -> Scores:
    """Probabilities, truth and log score of every target; nan where the truth is not known.

    `<target>.log_score` is the logarithm (nats) of the probability of the truth, the mean over several labels, and of a value
    minus the squared error in standard deviations; 0 is best. `mean.log_score` is the mean over targets whose truth is known.
    Where the specification declares costs, `<target>.utility` is minus the cost of what was decided wrongly, over its labels,
    and `mean.utility` the mean over targets of which that can be said.
    Where boxes were sought and drawn, the scores of `boxes.score_boxes`.

    Raises:
        DatasetError: the truth is a class that the prediction does not know, or the prediction says nothing of a target.
    """
    scores: Scores = {}
    costs = classification_options(spec).costs if spec.options.get("costs") else None
    for true in target.readings:
        said = prediction.reading(true.name)
        parts = _score_value(said, true) if said.kind == Kind.CONTINUOUS else _score_classes(said, aligned(true, said.classes))
        scores |= {f"{true.name}.{name}": value for name, value in parts.items()}
        if costs is not None and said.kind in (Kind.BINARY, Kind.MULTILABEL):
            scores[f"{true.name}.utility"] = -_cost(said, aligned(true, said.classes), costs)
    for name in ("log_score", "utility") if costs is not None else ("log_score",):
        values = [scores.get(f"{true.name}.{name}", math.nan) for true in target.readings]
        known = [value for value in values if not math.isnan(value)]
        scores[f"mean.{name}"] = math.fsum(known) / len(known) if known else math.nan
    if prediction.found is not None:
        scores |= score_boxes(prediction.found, target.boxes, {reading.name: reading.classes for reading in prediction.readings})
    return scores


def _cost(said: Reading, true: Reading, costs: CostOptions) -> float:
    """Of the decisions about one unit; nan where the truth is not known."""
    if not true.is_known:
        return math.nan
    places = range(len(said.classes)) if said.kind == Kind.MULTILABEL else (1,)
    missed = sum(place in true.decided and place not in said.decided for place in places)
    false = sum(place in said.decided and place not in true.decided for place in places)
    return missed * costs.missed + false * costs.false_alarm


def _score_value(said: Reading, true: Reading) -> Scores:
    error = said.value - true.value
    return {"value": said.value, "truth": true.value, "absolute_error": abs(error), "log_score": -((error / said.std) ** 2)}


def _score_classes(said: Reading, true: Reading) -> Scores:
    scores = {f"{name}.probability": probability for name, probability in shown_probabilities(said)}
    if said.kind == Kind.MULTILABEL:
        decided = said.decided
        for place, (name, truth) in enumerate(zip(said.classes, true.probabilities, strict=True)):
            scores |= {f"{name}.truth": truth, f"{name}.decided": float(place in decided)}
    else:
        scores["truth"] = float(true.decided[0]) if true.is_known else math.nan
        scores["decided"] = float(said.decided[0])
    if said.kind == Kind.ORDINAL:
        scores["grade"] = expected_grade(said)
    return scores | {"log_score": _log_score(said, true)}


def _log_score(said: Reading, true: Reading) -> float:
    if not true.is_known:
        return math.nan
    logs = []
    for probability, truth in zip(said.probabilities, true.probabilities, strict=True):
        clipped = min(max(probability, CLIP), 1 - CLIP)
        if said.kind == Kind.MULTILABEL:
            logs.append(math.log(clipped if truth else 1 - clipped))
        elif truth:
            logs.append(math.log(clipped))
    return math.fsum(logs) / max(len(logs), 1)
