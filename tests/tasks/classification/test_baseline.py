from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor
from tasks.classification.sets import make_spec

from autoseg.core.case import Unit
from autoseg.core.errors import DatasetError, ReadError
from autoseg.core.geometry import Geometry
from autoseg.core.image import Image
from autoseg.tasks.classification import baseline
from autoseg.tasks.classification.baseline import apply_baseline, fit_baseline
from autoseg.tasks.classification.features import QUANTILES, image_features
from autoseg.tasks.classification.kinds import Kind
from autoseg.tasks.classification.target import Answer, Reading
from autoseg.tasks.classification.trees import evaluate_trees, tree_arrays

SPEC = make_spec("ill")


@pytest.mark.parametrize("classes", [2, 3, 0])
def test_trees_say_what_scikit_learns_say(classes):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(80, 5))
    truth = rng.integers(0, classes, 80) if classes else rows[:, 0] ** 2 + rows[:, 1]
    model = (GradientBoostingClassifier if classes else GradientBoostingRegressor)(n_estimators=20, random_state=0)
    model.fit(rows, truth)
    said = model.decision_function(rows) if classes else model.predict(rows)
    found = evaluate_trees(tree_arrays(model, rows[:1]), rows)
    np.testing.assert_allclose(found, said.reshape(80, -1), rtol=1e-9, atol=1e-9)


def picture(size, bright, rng):
    """A disc-like square of a size and brightness on noise."""
    voxels = rng.normal(0, 0.1, (1, 1, 20, 16)).astype(np.float32)
    voxels[0, 0, 5:5 + size, 4:4 + size] += bright
    return {"image": Image.canonical(voxels, Geometry((1, 20, 16), (1.0, 1.0, 1.0)))}


def samples(answer_of, count=40, seed=0):
    rng = np.random.default_rng(seed)
    for place in range(count):
        size = 3 + place % 6
        yield Unit(f"u{place}", (), f"p{place}"), picture(size, 1 + place % 3, rng), answer_of(place, size)


def accuracy(arrays, answer_of):
    hits = []
    for _, inputs, true in samples(answer_of, seed=1):
        hits.append(apply_baseline(arrays, inputs, SPEC).readings[0].decided == true.readings[0].decided)
    return np.mean(hits)


def certain(kind, classes, *places):
    return Answer((Reading("t", kind, classes, tuple(float(place in places) for place in range(len(classes)))),))


@pytest.mark.parametrize(("kind", "answer_of"), [
    (Kind.BINARY, lambda place, size: certain(Kind.BINARY, ("small", "large"), int(size > 5))),
    (Kind.MULTICLASS, lambda place, size: certain(Kind.MULTICLASS, ("s", "m", "l"), (size - 3) // 2)),
    (Kind.ORDINAL, lambda place, size: certain(Kind.ORDINAL, ("s", "m", "l"), (size - 3) // 2)),
    (Kind.MULTILABEL, lambda place, size: certain(Kind.MULTILABEL, ("large", "bright"), *([0] if size > 5 else []),
                                                  *([1] if place % 3 == 2 else [])))])
def test_it_learns_what_sizes_and_intensities_say(kind, answer_of):
    arrays = fit_baseline(samples(answer_of), SPEC, np.random.default_rng(0))
    assert all(array.dtype.kind in "fiu" for array in arrays.values())
    assert accuracy(arrays, answer_of) > 0.9


def test_it_learns_values():
    def answer_of(place, size):
        return Answer((Reading("t", Kind.CONTINUOUS, value=10.0 * size, std=17.0),))

    arrays = fit_baseline(samples(answer_of), SPEC, np.random.default_rng(0))
    errors = [apply_baseline(arrays, inputs, SPEC).readings[0].value - true.readings[0].value
              for _, inputs, true in samples(answer_of, seed=1)]
    assert np.abs(errors).mean() < 5.0  # sizes differ by 10


def test_few_units_do_not_make_rounding_as_large_as_what_varies():
    """Six thumbnails vary along five directions; a sixth one, of rounding, was made as large and decided on new units."""
    def answer_of(place, size):
        return Answer((Reading("t", Kind.CONTINUOUS, value=float(place), std=1.7),))

    arrays = fit_baseline(samples(answer_of, count=6), SPEC, np.random.default_rng(0))
    said = [apply_baseline(arrays, inputs, SPEC).readings[0].value for _, inputs, _ in samples(answer_of, seed=1)]
    assert arrays["std"].min() > 1e-4 and arrays["thumbnail.components"].shape[0] == 6
    assert min(said) > -20 and max(said) < 25  # values from 0 to 5 were taught


def test_the_same_seed_gives_the_same_model():
    def answer_of(place, size):
        return certain(Kind.BINARY, ("small", "large"), int(size > 5))

    first, second = (fit_baseline(samples(answer_of), SPEC, np.random.default_rng(4)) for _ in range(2))
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_truths_that_are_not_known_are_left_out_and_absent_classes_are_impossible():
    def answer_of(place, size):
        if place % 4 == 0:
            return Answer((Reading("t", Kind.MULTICLASS, ("s", "l", "never"), (math.nan,) * 3),))
        return certain(Kind.MULTICLASS, ("s", "l", "never"), int(size > 5))

    arrays = fit_baseline(samples(answer_of), SPEC, np.random.default_rng(0))
    probabilities = apply_baseline(arrays, picture(8, 2, np.random.default_rng(0)), SPEC).readings[0].probabilities
    assert probabilities[1] > 0.8 and probabilities[2] < 1e-5


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_few_units_are_enough(count):
    def answer_of(place, size):
        return certain(Kind.BINARY, ("even", "odd"), place % 2)

    arrays = fit_baseline(samples(answer_of, count), SPEC, np.random.default_rng(0))
    said = apply_baseline(arrays, picture(4, 1, np.random.default_rng(0)), SPEC).readings[0].probabilities
    assert sum(said) == pytest.approx(1.0) and all(0 <= value <= 1 for value in said)


def test_no_unit_at_all_is_an_error():
    with pytest.raises(DatasetError, match="no training case"):
        fit_baseline([], SPEC, np.random.default_rng(0))


def test_images_of_other_channels_are_refused():
    def answer_of(place, size):
        return certain(Kind.BINARY, ("a", "b"), place % 2)

    arrays = fit_baseline(samples(answer_of), SPEC, np.random.default_rng(0))
    two = Image.canonical(np.zeros((2, 1, 20, 16), np.float32), Geometry((1, 20, 16), (1.0, 1.0, 1.0)))
    with pytest.raises(ReadError, match="does not fit these images"):
        apply_baseline(arrays, {"image": two}, SPEC)


def test_features_of_a_box_by_hand():
    voxels = np.zeros((1, 4, 10, 20), np.float32)
    voxels[0, 1:3, 2:7, 5:15] = 2.0
    simple, thumbnail = image_features({"image": Image.canonical(voxels, Geometry((4, 10, 20), (1.0, 1.0, 1.0)))})
    shape = simple[len(QUANTILES) + 2:]
    share = 2 * 5 * 10 / 800
    assert simple[len(QUANTILES)] == pytest.approx(2 * share)  # mean
    assert shape[:4] == pytest.approx([share, 50 / 200, 20 / 80, 10 / 40])  # share, shadows along z, y, x
    assert shape[4:7] == pytest.approx([0.5, 0.45, 0.5])  # centres: (1 + 3) / 2 / 4, (2 + 7) / 2 / 10, (5 + 15) / 2 / 20
    assert thumbnail.shape == (12**3,) and thumbnail.mean() == pytest.approx(0, abs=1e-6)


def test_features_of_an_exam_are_means_over_its_images():
    rng = np.random.default_rng(0)
    first, second = picture(3, 1, rng)["image"], picture(7, 3, rng)["image"]
    simple, _ = image_features({"image": first, "image@1": second})
    each = [image_features({"image": image})[0] for image in (first, second)]
    np.testing.assert_allclose(simple, np.mean(each, axis=0), rtol=1e-5)


def test_a_constant_image_has_features():
    plain = Image.canonical(np.full((1, 1, 5, 5), 3.0, np.float32), Geometry((1, 5, 5), (1.0, 1.0, 1.0)))
    simple, thumbnail = image_features({"image": plain})
    assert np.isfinite(simple).all() and np.isfinite(thumbnail).all()


def test_every_candidate_is_tried_by_its_ranking(monkeypatch):
    def answer_of(place, size):
        return certain(Kind.BINARY, ("small", "large"), int(size > 5))

    candidates = (baseline.Candidate("linear", "simple", 1e-9), baseline.Candidate("trees", "both"))
    monkeypatch.setattr(baseline, "CANDIDATES", candidates)
    arrays = fit_baseline(samples(answer_of), SPEC, np.random.default_rng(0))
    assert b'"model": "trees"' in bytes(arrays["document"])
