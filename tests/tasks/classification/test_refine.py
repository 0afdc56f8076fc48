from __future__ import annotations

import math

import numpy as np
import pytest
from tasks.classification.sets import binary, make_spec

from autoseg.core.task import Given
from autoseg.tasks.classification.kinds import Kind
from autoseg.tasks.classification.refine import cooled, fit_temperatures, fit_thresholds, refinements
from autoseg.tasks.classification.target import Answer, Reading

SPEC = make_spec("ill")
STEPS = {step.name: step for step in refinements(SPEC)}


def test_the_steps_and_what_judges_them():
    assert {name: step.judged_by for name, step in STEPS.items()} == {
        "average_with_baseline": "", "baseline_alone": "",
        "temperature": "mean.log_score", "thresholds": "mean.balanced_accuracy"}
    by_f1 = {step.name: step.judged_by for step in refinements(make_spec("ill", utility="f1"))}
    assert by_f1["thresholds"] == "mean.f1"


def test_the_average_with_the_baseline_is_that_of_probabilities_by_class():
    said = Answer((Reading("t", Kind.MULTICLASS, ("a", "b", "c"), (0.5, 0.3, 0.2)), Reading("v", Kind.CONTINUOUS, value=2.0)))
    cheap = Answer((Reading("t", Kind.MULTICLASS, ("c", "a"), (0.6, 0.4)), Reading("v", Kind.CONTINUOUS, value=5.0)))
    mean = STEPS["average_with_baseline"].apply(said, SPEC, Given(baseline=cheap))
    assert mean.reading("t").probabilities == pytest.approx((0.45, 0.15, 0.4)) and mean.reading("v").value == 3.5
    alone = STEPS["baseline_alone"].apply(said, SPEC, Given(baseline=cheap))
    assert alone.reading("t").probabilities == (0.4, 0.0, 0.6) and alone.reading("v").value == 5.0


@pytest.mark.parametrize("name", STEPS)
def test_a_step_twice_is_the_step_once(name):
    given = Given({"ill": 2.0, "ill.yes": 0.2}, binary(0.9))
    once = STEPS[name].apply(binary(0.3), SPEC, given)
    assert once != binary(0.3) and once.refined == (name,)
    assert STEPS[name].apply(once, SPEC, given) == once


def test_a_temperature_divides_log_odds():
    assert cooled(binary(0.9).readings[0], 2.0).probabilities == pytest.approx((1 / 4, 3 / 4))  # odds of 9 become 3
    labels = cooled(Reading("t", Kind.MULTILABEL, ("a", "b"), (0.9, 0.5)), 2.0)
    assert labels.probabilities == pytest.approx((0.75, 0.5))
    classes = cooled(Reading("t", Kind.MULTICLASS, ("a", "b", "c"), (0.64, 0.16, 0.2)), 2.0).probabilities
    assert classes[0] / classes[1] == pytest.approx(2.0) and sum(classes) == pytest.approx(1.0)


def test_a_temperature_is_fitted_to_frequencies():
    # said: odds of 9 to 1; true in 3 of 4: odds of 3 to 1, the square root, so the temperature is 2
    pairs = [(binary(0.9), binary(float(place % 4 > 0))) for place in range(40)]
    assert fit_temperatures(pairs, SPEC)["ill"] == pytest.approx(2.0, rel=1e-3)


def test_thresholds_serve_the_utility():
    said, true = (0.1, 0.2, 0.3, 0.4, 0.8), (0.0, 0.0, 1.0, 1.0, 1.0)
    pairs = [(binary(p), binary(t)) for p, t in zip(said, true, strict=True)]
    assert fit_thresholds(pairs, SPEC) == {"ill.yes": pytest.approx(0.25)}
    labels = [(Answer((Reading("t", Kind.MULTILABEL, ("a", "b"), (p, 1 - p)),)),
               Answer((Reading("t", Kind.MULTILABEL, ("a", "b"), (t, 1 - t)),))) for p, t in zip(said, true, strict=True)]
    assert fit_thresholds(labels, SPEC) == {"t.a": pytest.approx(0.25), "t.b": pytest.approx(0.75)}


COSTS = make_spec("ill", utility="cost", costs={"missed": 1.0, "false_alarm": 3.0})


def test_thresholds_serve_the_declared_costs():
    """Above 0.6 lie one ill case (0.7) and none that is well; below, to find 0.5 costs the false alarm of 0.6."""
    said, true = (0.1, 0.5, 0.6, 0.7), (0.0, 1.0, 0.0, 1.0)
    pairs = [(binary(p), binary(t)) for p, t in zip(said, true, strict=True)]
    assert fit_thresholds(pairs, COSTS) == {"ill.yes": pytest.approx(0.65)}  # costs 1; 3 at 0.3
    dear = make_spec("ill", utility="cost", costs={"missed": 4.0, "false_alarm": 3.0})
    assert fit_thresholds(pairs, dear) == {"ill.yes": pytest.approx(0.3)}  # costs 3; 4 at 0.65
    assert {step.name: step.judged_by for step in refinements(COSTS)}["thresholds"] == "mean.utility"


def test_one_class_alone_gives_no_numbers():
    pairs = [(binary(0.4), binary(1.0)), (binary(0.6), binary(math.nan))]
    assert fit_thresholds(pairs, SPEC) == {} and fit_temperatures(pairs, SPEC) == {}
    assert fit_thresholds([], SPEC) == {}


def test_thresholds_are_kept_with_the_prediction():
    cut = STEPS["thresholds"].apply(binary(0.3), SPEC, Given({"ill.yes": 0.25}))
    assert cut.reading("ill").thresholds == (0.25,) and cut.reading("ill").decided == (1,)


def test_values_are_left_as_they_are():
    value = Answer((Reading("v", Kind.CONTINUOUS, value=2.0),))
    for step in ("temperature", "thresholds"):
        assert STEPS[step].apply(value, SPEC, Given({"v": 3.0})).reading("v").value == 2.0
    assert fit_temperatures([(value, value)], SPEC) == {}
    assert np.isfinite(value.reading("v").value)
