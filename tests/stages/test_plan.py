from __future__ import annotations

import math
from dataclasses import replace

import pytest

from autoseg.core.budget import Budget
from autoseg.core.task import PlanRequest
from autoseg.io.store import Store
from autoseg.planning.costs import pass_count
from autoseg.stages import plan as stage
from autoseg.stages import rehearse
from autoseg.stages.plan import PILOTS, Enough, make_probe, run_plan
from autoseg.stages.rehearse import prepare_pilots, time_cases

BUDGET = Budget("cpu", 4 * 2**30)


def probe_of(toy, folder, budget=BUDGET):
    folder.mkdir()
    return make_probe(toy.task, toy.workspace.spec, toy.workspace.units, toy.workspace.fingerprint, PlanRequest(), budget, folder)


def pilots_of(toy, folder, count=3):
    return prepare_pilots(toy.task, toy.workspace.spec, toy.plan, toy.configuration, toy.workspace.units[:count], folder,
                          enough_seconds=math.inf)


def test_a_case_is_tried_with_all_its_windows_but_few_runs_of_the_network(toy, tmp_path):
    """Windows of half the case, so that a case has many."""
    patch = tuple(size // 8 * 4 for size in toy.configuration.patch_size)
    rules = replace(toy.configuration.inference, tiles_per_batch=2, mirror=True, mirror_axes=(0, 2))
    configuration = replace(toy.configuration, patch_size=patch, inference=rules)
    pilots = pilots_of(toy, tmp_path / "store")
    times = time_cases(toy.task, toy.workspace.spec, toy.plan, configuration, pilots, tmp_path / "out",
                       enough_seconds=0.3)
    assert times.shape == pilots.store.record(pilots.middle.cases[0].id).model_shape
    assert times.windows == pass_count(configuration, times.shape) > 4 * 8
    assert times.prepared_voxels == pytest.approx(sum(pilots.voxels(unit) for unit in pilots.units[1:]) / 2)
    assert times.prepare_seconds == pytest.approx(sum(taken for _, taken in pilots.timed) / 2)
    assert times.window_seconds > 0 and times.predict_seconds > 0 and times.validate_seconds > 0


def test_the_middle_pilot_has_the_median_number_of_voxels(toy, tmp_path):
    pilots = pilots_of(toy, tmp_path)
    assert pilots.voxels(pilots.middle) == sorted(pilots.voxels(unit) for unit in pilots.units)[1]
    assert pilots.voxels(pilots.middle) == math.prod(pilots.store.shape(pilots.middle.cases[0].id, "image")[1:])


def test_few_pilots_are_prepared_where_one_takes_long(toy, tmp_path):
    pilots = prepare_pilots(toy.task, toy.workspace.spec, toy.plan, toy.configuration, toy.workspace.units[:2], tmp_path,
                            enough_seconds=0.0, others=toy.workspace.units[2:], least_seconds=100.0)
    assert pilots.units == (toy.workspace.units[0],) and [unit for unit, _ in pilots.timed] == [toy.workspace.units[0]]


def test_small_pilots_are_timed_with_others_until_milliseconds_became_seconds(toy, tmp_path, monkeypatch):
    """A unit is said to take 10, 20, 30, ... ms: six of them are the first to take more than 0.2 s; the first does not count."""
    def seconds_of(actions, device, *, enough_seconds=math.inf):
        measured = []
        for action in actions:
            if sum(measured) > enough_seconds:
                break
            action()
            measured.append(0.01 * len(Store(tmp_path).cases()))
        return measured

    monkeypatch.setattr(rehearse, "seconds_of", seconds_of)
    first, second, *others = toy.workspace.units
    pilots = prepare_pilots(toy.task, toy.workspace.spec, toy.plan, toy.configuration, [first, second], tmp_path,
                            enough_seconds=math.inf, others=others, least_seconds=0.2)
    assert pilots.units == (first, second)
    assert [unit for unit, _ in pilots.timed] == [second, *others[:4]]
    assert [seconds for _, seconds in pilots.timed] == pytest.approx([0.02, 0.03, 0.04, 0.05, 0.06])


@pytest.mark.parametrize(("minutes", "least"), [(None, 0.0), (5.0, 1.0)])
def test_plans_with_minutes_time_other_units_for_a_second(toy, tmp_path, monkeypatch, minutes, least):
    asked = {}

    def prepare(*given, **options):
        asked.update(options, units=given[4])
        return prepare_pilots(*given, **options)

    monkeypatch.setattr(rehearse, "prepare_pilots", prepare)
    probe_of(toy, tmp_path / "pilots", replace(BUDGET, minutes=minutes)).case_seconds(toy.plan, toy.configuration)
    assert asked["least_seconds"] == least
    assert sorted(unit.id for unit in (*asked["units"], *asked["others"])) == sorted(unit.id for unit in toy.workspace.units)
    assert len(asked["units"]) == stage.PILOT_UNITS < len(toy.workspace.units)


def test_pilots_are_spread_over_a_dataset_and_the_others_are_mixed():
    chosen, others = stage.pilot_units(range(100))
    assert chosen == [0, 33, 66, 99]
    assert sorted(others) == sorted({*range(100)} - {*chosen}) and others != sorted(others)
    assert 35 < sum(others[:20]) / 20 < 65
    assert stage.pilot_units(range(3)) == ([0, 1, 2], [])


def test_the_engine_that_predicts_is_tried_and_the_reference_is_scored(toy, tmp_path, monkeypatch):
    """Scoring what a fresh network answers would take another time than scoring a good prediction."""
    asked, scored = [], []

    def in_use(network, rules, device):
        asked.append((rules, device))
        return network.eval()

    def score(prediction, target, spec, image):
        scored.append(prediction is target)
        return toy.task.score(prediction, target, spec, image)

    monkeypatch.setattr(rehearse, "in_use", in_use)
    time_cases(replace(toy.task, score=score), toy.workspace.spec, toy.plan, toy.configuration,
               pilots_of(toy, tmp_path / "store", count=1), tmp_path / "out", enough_seconds=0.0)
    assert asked == [(toy.configuration.inference, "cpu")]
    assert scored == [True]


def test_candidates_of_a_grid_share_their_pilots(toy, tmp_path, monkeypatch):
    prepared = []

    def prepare(*asked, **options):
        prepared.append(asked[3].name)
        return prepare_pilots(*asked, **options)

    monkeypatch.setattr(rehearse, "prepare_pilots", prepare)
    probe = probe_of(toy, tmp_path / "pilots")
    wider = replace(toy.configuration, batch_size=3)
    coarser = replace(toy.configuration, spacing_mm=(2.0, 2.0, 2.0))
    assert probe.seconds(toy.plan, toy.configuration) > 0 and probe.seconds(toy.plan, wider) > 0
    assert probe.case_seconds(toy.plan, toy.configuration).prepare_seconds > 0
    assert len(prepared) == 1
    probe.seconds(toy.plan, coarser)
    assert len(prepared) == 2


@pytest.mark.parametrize(("minutes", "fewest", "most"), [(None, 2, 2), (5.0, 1 + stage.PROBE_STEPS, 1 + stage.MOST_PROBE_STEPS)])
def test_a_plan_without_minutes_takes_fewer_steps_where_they_take_long(toy, tmp_path, monkeypatch, minutes, fewest, most):
    monkeypatch.setattr(stage, "QUICK", Enough(0.0, 0.0, 0.0, 0.0, 0.0))
    drawn = []

    def draw_batch(*asked):
        drawn.append(1)
        return toy.task.draw_batch(*asked)

    counting = replace(toy, workspace=_with_task(toy.workspace, replace(toy.task, draw_batch=draw_batch)))
    probe_of(counting, tmp_path / "pilots", replace(BUDGET, minutes=minutes)).seconds(toy.plan, toy.configuration)
    assert fewest <= len(drawn) <= most


@pytest.mark.parametrize(("minutes", "seconds"), [(None, 0.0), (5.0, 4.0)])
def test_steps_that_minutes_are_divided_by_are_timed_for_longer(toy, tmp_path, monkeypatch, minutes, seconds):
    asked = {}
    monkeypatch.setattr("autoseg.training.timing.seconds_per_step", lambda *_, **options: asked.update(options) or 1.0)
    assert probe_of(toy, tmp_path / "pilots", replace(BUDGET, minutes=minutes)).seconds(toy.plan, toy.configuration) == 1.0
    assert asked["least_seconds"] == seconds and asked["steps"] <= asked["most"]


def _with_task(workspace, task):
    changed = replace(workspace)
    changed.__dict__["task"] = task  # it is a cached property
    return changed


def test_planning_leaves_measurements_and_no_pilots_behind(toy, tmp_path):
    made = run_plan(toy.task, toy.workspace.spec, toy.workspace.units, toy.workspace.fingerprint, BUDGET,
                    PlanRequest("quick", configurations=("3d_fullres",)), tmp_path, keep_memory=False)
    assert made.budget.case_times and made.budget.measured
    assert made.configurations["3d_fullres"].predicted_seconds.training > 0
    assert not list(tmp_path.glob(f"{PILOTS}*"))
