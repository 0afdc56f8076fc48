from __future__ import annotations

from dataclasses import replace

import pytest
from pair_cases import planned, shifted_pair, spec

from autoseg.core.plan import unexplained_values
from autoseg.planning.budget import Meter
from autoseg.stages.prepare import prepare_inputs, read_inputs
from autoseg.tasks.registration import recipes
from autoseg.tasks.registration.bracket import Tried, choose_smoothness
from autoseg.tasks.registration.plan import pair_values


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return shifted_pair(tmp_path_factory.mktemp("pair"), steps=(0, 1, 2))


@pytest.fixture
def few_steps(monkeypatch):
    monkeypatch.setattr(recipes, "PAIR_LEVELS", ((2, 4, 15), (1, 2, 15)))
    monkeypatch.setattr(recipes, "PAIR_AFFINE", None)


def chosen(plan, unit, dataset, asked):
    """The weight and its reason for a plan made before, with what its budget remembers; counts how often pilots are read."""
    configuration = plan.configurations["pairs"]
    published = replace(configuration, loss=replace(configuration.loss, terms={"similarity": 1.0, "smoothness": 1.0}))

    def pilots(one):
        asked.append(one)
        return [prepare_inputs(read_inputs(unit, dataset), plan, one)]

    meter = Meter(plan.budget, None, plan)
    weight, reasons = choose_smoothness(published, meter, pair_values(3), pilots, "data")
    return weight, reasons["loss.terms.smoothness"], meter.budget


def test_the_smallest_weight_that_keeps_to_the_bounds_is_planned_and_remembered(pair, few_steps, monkeypatch):
    dataset, asked = spec(use_labels=False), []
    plan = planned(pair, dataset, minutes=10)
    assert unexplained_values(plan) == []
    assert plan.configurations["pairs"].loss.terms["smoothness"] in recipes.BRACKET
    monkeypatch.setattr(recipes, "LARGEST_DEVIATION", 1e9)
    monkeypatch.setattr(recipes, "MOST_FOLDED_PERCENT", 101.0)
    weight, reason, budget = chosen(plan, pair, dataset, asked)
    assert weight == 0.25 and reason.because.startswith("the smallest of 0.25, 1, 4")
    assert chosen(replace(plan, budget=budget), pair, dataset, asked)[0] == 0.25 and len(asked) == 1
    monkeypatch.setattr(recipes, "PAIR_LEVELS", ((2, 4, 15), (1, 2, 20)))  # optimised otherwise: measured anew
    assert chosen(replace(plan, budget=budget), pair, dataset, asked)[0] == 0.25 and len(asked) == 2


def test_a_larger_weight_is_smoother_and_the_largest_is_taken_where_none_keeps(pair, few_steps, monkeypatch):
    dataset = spec(use_labels=False)
    monkeypatch.setattr(recipes, "LARGEST_DEVIATION", 0.0)
    weight, reason, budget = chosen(planned(pair, dataset, minutes=10), pair, dataset, [])
    assert weight == 4.0 and reason.because.startswith("the largest, as none is")
    deviations = [entry.value for entry in budget.findings if entry.name.startswith("data") and "deviation" in entry.name]
    assert len(deviations) == 3 and deviations[0] > deviations[1] > deviations[2]


@pytest.mark.parametrize("method", ["network", "pair"])
def test_the_weight_does_not_depend_on_minutes(pair, few_steps, method):
    with_minutes, without = (planned(pair, spec(method=method), minutes) for minutes in (10, None))
    assert with_minutes.configurations["pairs"].loss.terms == without.configurations["pairs"].loss.terms
    assert "pairs optimised one by one" in without.reasons["configurations.pairs.loss.terms.smoothness"].inputs


def test_the_published_weight_is_planned_where_no_displacement_is_sought_in_the_images(pair):
    assert planned(pair, spec(method="supervised")).configurations["pairs"].loss.terms["smoothness"] == 1.0


def test_bounds_are_on_folds_and_on_how_unevenly_volumes_change():
    assert Tried(1, 0.099, 0.1).keeps and not Tried(1, 0.1, 0.1).keeps and not Tried(1, 0.0, recipes.LARGEST_DEVIATION).keeps


def test_a_step_is_timed_once_for_each_size(pair, few_steps):
    measured = planned(pair, spec(), minutes=10).budget.measured
    assert len({entry.candidate.rpartition(" ")[0] for entry in measured}) == len(measured) > 0  # the last word is a digest
