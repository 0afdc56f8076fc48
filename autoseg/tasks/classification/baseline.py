"""The cheap model: logistic regression or boosted trees on simple numbers of an image, chosen by inner cross-validation."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from autoseg.core.case import Unit
from autoseg.core.errors import DatasetError, ReadError
from autoseg.core.spec import DatasetSpec
from autoseg.core.task import Arrays, Inputs
from autoseg.tasks.classification.features import image_features
from autoseg.tasks.classification.kinds import Kind
from autoseg.tasks.classification.output import probabilities_of
from autoseg.tasks.classification.target import Answer, Reading
from autoseg.tasks.classification.trees import evaluate_trees, tree_arrays

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator

# Principal components of thumbnails; see `features.THUMBNAIL` for what they reach.
COMPONENTS = 60
# Units that a model is fitted on: beyond, simple features gain nothing and boosting takes minutes.
MOST_UNITS = 20_000
INNER_FOLDS = 3
# Inverse strengths of regularisation that are tried, scikit-learn's default of 1 among them; the others are for few units.
STRENGTHS = (0.01, 0.1, 1.0)
# Trees: depth, rate and number are scikit-learn's defaults; half of the units and the root of the features per tree make them
# some ten times faster, and vary them (Friedman 2002, stochastic gradient boosting).
TREES = {"n_estimators": 100, "max_depth": 3, "learning_rate": 0.1, "subsample": 0.5, "max_features": "sqrt"}
# What is said of a class that the training units lack: less than one unit in a million.
ABSENT = -14.0


@dataclass(frozen=True)
class Candidate:
    """A kind of model on a part of the features.

    Attributes:
        features: `simple`, `thumbnail` or `both`.
        strength: inverse of the regularisation; of trees 0.
    """

    model: str
    features: str
    strength: float = 0.0


FEATURES = ("simple", "thumbnail", "both")
CANDIDATES = (*(Candidate("linear", features, strength) for features in FEATURES for strength in STRENGTHS),
              Candidate("trees", "both"))


@dataclass(frozen=True)
class Question:
    """What one model answers: a target, or one label of several.

    Attributes:
        target: place of the target.
        classes: of the target, or two for a label of several; none of a value.
        truth: (n,) place of the class, or the standardised value; nan where not known.
    """

    target: int
    classes: int
    truth: NDArray[np.float64]


def fit_baseline(samples: Iterable[tuple[Unit, Inputs, Answer]], spec: DatasetSpec, rng: np.random.Generator) -> Arrays:
    """The models of all targets as arrays; every sample is read once.

    Raises:
        DatasetError: there is no sample.
    """
    rows, groups, answers = [], [], []
    for unit, inputs, target in samples:
        rows.append(image_features(inputs))
        groups.append(unit.group)
        answers.append(target)
    if not rows:
        raise DatasetError(f"no training case of {spec.name!r} is left for the baseline; it needs some")
    if len(rows) > MOST_UNITS:
        kept = np.sort(rng.permutation(len(rows))[:MOST_UNITS])
        rows, groups, answers = ([part[place] for place in kept] for part in (rows, groups, answers))  # type: ignore[assignment]
    seed = int(rng.integers(2**31))
    arrays, features, simple = _project(np.stack([one for one, _ in rows]), np.stack([other for _, other in rows]), seed)
    document: list[dict[str, Any]] = [{"name": reading.name, "kind": str(reading.kind), "classes": reading.classes,
                                       "mean": 0.0, "std": reading.std, "models": []} for reading in answers[0].readings]
    for question in _questions(answers, document):
        chosen = _choose(question, features, simple, groups, seed)
        entry = document[question.target]
        name = f"{question.target}.{len(entry['models'])}"
        fitted, classes = _fit(chosen, question, features, simple, seed)
        arrays |= {f"{name}.{key}": value for key, value in fitted.items()}
        entry["models"].append(asdict(chosen) | {"present": classes})
    arrays["document"] = np.frombuffer(json.dumps(document).encode(), np.uint8)
    return arrays


def apply_baseline(arrays: Arrays, inputs: Inputs, spec: DatasetSpec) -> Answer:
    """What the fitted models say of a unit.

    Raises:
        ReadError: the arrays are none that `fit_baseline` made for these inputs.
    """
    try:
        document = json.loads(bytes(arrays["document"].astype(np.uint8)))
        simple, thumbnail = image_features(inputs)
        # in double precision: single rounds differently where arrays lie at other addresses
        components = (thumbnail - arrays["thumbnail.mean"]) @ arrays["thumbnail.components"].T.astype(np.float64)
        scaled = (np.concatenate([simple, components]) - arrays["mean"]) / arrays["std"]
        return Answer(tuple(_reading(arrays, place, entry, scaled, len(simple)) for place, entry in enumerate(document)))
    except (KeyError, ValueError, IndexError) as error:
        raise ReadError(f"the baseline does not fit these images or is damaged ({error!r}); train again") from error


def _project(simple: NDArray, thumbnails: NDArray, seed: int) -> tuple[Arrays, NDArray[np.float64], int]:
    """Arrays of the projection, standardised features (n, S + P), and how many of them are the simple ones.

    What varies by rounding only is left as small as it is: made as large as the other features, it would decide what is said
    of a unit that was not fitted on. Around their mean n thumbnails vary along n - 1 directions.
    """
    from sklearn.decomposition import PCA

    count = min(COMPONENTS, *thumbnails.shape)
    pca = PCA(count, svd_solver="randomized", random_state=seed).fit(thumbnails)
    components = (thumbnails - pca.mean_) @ pca.components_.T
    features = np.concatenate([simple, components], axis=1).astype(np.float64)
    mean, std = features.mean(axis=0), features.std(axis=0)
    largest = std[simple.shape[1]:].max(initial=0.0) * max(thumbnails.shape)
    rounding = np.finfo(np.float32).eps * np.concatenate([np.abs(simple).max(axis=0), np.full(components.shape[1], largest)])
    std[std <= rounding] = 1.0  # the tolerance of numpy.linalg.matrix_rank, for what was computed in float32
    return ({"thumbnail.mean": pca.mean_.astype(np.float32), "thumbnail.components": pca.components_.astype(np.float32),
             "mean": mean, "std": std}, (features - mean) / std, simple.shape[1])


def _questions(answers: Sequence[Answer], document: list[dict[str, Any]]) -> list[Question]:
    questions = []
    for place, first in enumerate(answers[0].readings):
        readings = [answer.readings[place] for answer in answers]
        if first.kind == Kind.CONTINUOUS:
            values = np.array([reading.value for reading in readings])
            document[place]["mean"] = float(np.nanmean(values)) if not np.isnan(values).all() else 0.0
            questions.append(Question(place, 0, (values - document[place]["mean"]) / first.std))
            continue
        said = np.array([reading.probabilities for reading in readings], np.float64)
        if first.kind == Kind.MULTILABEL:
            questions += [Question(place, 2, said[:, label]) for label in range(said.shape[1])]
        else:
            known = ~np.isnan(said[:, 0])
            questions.append(Question(place, said.shape[1], np.where(known, np.argmax(said, axis=1), np.nan)))
    return questions


def _choose(question: Question, features: NDArray, simple: int, groups: Sequence[str], seed: int) -> Candidate:
    """The candidate that ranks best in cross-validation inside the training units; the first where that cannot be done."""
    from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

    known = ~np.isnan(question.truth)
    truth, rows = question.truth[known], features[known]
    patients = np.array(groups)[known]
    counts = np.bincount(truth.astype(int)) if question.classes and len(truth) else np.zeros(0)
    if len(set(patients)) < 2 * INNER_FOLDS or (question.classes and sorted(counts)[-2:][0] < INNER_FOLDS):
        return CANDIDATES[0]
    splitter = (StratifiedGroupKFold if question.classes else GroupKFold)(INNER_FOLDS, shuffle=True, random_state=seed)
    folds = list(splitter.split(rows, truth, patients))
    scores = []
    for candidate in CANDIDATES:
        said = np.full((len(truth), max(question.classes, 1)), ABSENT)
        for train, held in folds:
            part = Question(question.target, question.classes, truth[train])
            fitted, present = _fit(candidate, part, rows[train], simple, seed)
            said[held] = _raw(fitted, candidate.model, present, question.classes, _part(rows[held], candidate.features, simple))
        scores.append(_ranking(said, truth, question.classes))
    return CANDIDATES[int(np.nanargmax(scores))] if not np.isnan(scores).all() else CANDIDATES[0]


def _ranking(said: NDArray, truth: NDArray, classes: int) -> float:
    """AUC, of several classes the mean over them; of values the concordance."""
    from autoseg.metrics.roc import auc, concordance

    if not classes:
        return concordance(said[:, 0], truth)
    if classes == 2:
        return auc(said[:, 1] - said[:, 0], (truth == 1).astype(float))
    areas = [auc(said[:, place], (truth == place).astype(float)) for place in range(classes)]
    return float(np.nanmean(areas)) if not np.isnan(areas).all() else float("nan")


def _part(features: NDArray, name: str, simple: int) -> NDArray:
    return {"simple": features[..., :simple], "thumbnail": features[..., simple:], "both": features}[name]


def _fit(candidate: Candidate, question: Question, features: NDArray, simple: int, seed: int) -> tuple[Arrays, list[int]]:
    """A fitted model as arrays, and the places of the classes that the units have."""
    known = ~np.isnan(question.truth)
    rows, truth = _part(features[known], candidate.features, simple), question.truth[known]
    present = [int(value) for value in np.unique(truth)] if question.classes else []
    if len(truth) < 2 or (question.classes and len(present) < 2):
        return {"coefficients": np.zeros((1, rows.shape[1])), "intercepts": np.zeros(1)}, present[:1]
    if candidate.model == "trees":
        return tree_arrays(_trees(question.classes, seed).fit(rows, truth), rows[:1]), present
    model = _linear(question.classes, candidate.strength).fit(rows, truth)
    return {"coefficients": np.atleast_2d(model.coef_).astype(np.float64),  # type: ignore[attr-defined]
            "intercepts": np.atleast_1d(model.intercept_).astype(np.float64)}, present  # type: ignore[attr-defined]


def _linear(classes: int, strength: float) -> BaseEstimator:
    from sklearn.linear_model import LogisticRegression, Ridge

    return LogisticRegression(C=strength, max_iter=500) if classes else Ridge(alpha=1 / strength)


def _trees(classes: int, seed: int) -> BaseEstimator:
    from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor

    return (GradientBoostingClassifier if classes else GradientBoostingRegressor)(**TREES, random_state=seed)


def _raw(fitted: Arrays, model: str, present: Sequence[int], classes: int, rows: NDArray) -> NDArray[np.float64]:
    """Logits (n, classes) whose softmax gives the probabilities; the value (n, 1) of a continuous target."""
    if model == "trees" and "coefficients" not in fitted:
        found = evaluate_trees(fitted, rows)
    else:
        found = rows @ fitted["coefficients"].T + fitted["intercepts"]
    if not classes:
        return found
    logits = np.full((len(rows), classes), ABSENT)
    if len(present) == 2 and found.shape[1] == 1:
        found = np.concatenate([np.zeros_like(found), found], axis=1)
    logits[:, list(present)] = found
    return logits


def _reading(arrays: Arrays, place: int, entry: dict[str, Any], scaled: NDArray, simple: int) -> Reading:
    kind, classes = Kind(entry["kind"]), tuple(entry["classes"])
    logits = []
    for number, model in enumerate(entry["models"]):
        stem = f"{place}.{number}."
        fitted = {name.removeprefix(stem): array for name, array in arrays.items() if name.startswith(stem)}
        count = 0 if kind == Kind.CONTINUOUS else 2 if kind == Kind.MULTILABEL else len(classes)
        logits.append(_raw(fitted, model["model"], model["present"], count, _part(scaled[None], model["features"], simple))[0])
    if kind == Kind.CONTINUOUS:
        return Reading(entry["name"], kind, value=float(logits[0][0] * entry["std"] + entry["mean"]), std=entry["std"])
    if kind == Kind.MULTILABEL:
        return Reading(entry["name"], kind, classes, tuple(probabilities_of(Kind.MULTICLASS, pair)[1] for pair in logits))
    return Reading(entry["name"], kind, classes, probabilities_of(Kind.MULTICLASS, logits[0]))
