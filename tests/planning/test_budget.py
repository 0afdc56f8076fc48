from __future__ import annotations

from dataclasses import replace

import pytest

from autoseg.core.budget import Budget, CaseTime, StepTime
from autoseg.core.errors import ResourceError
from autoseg.core.plan import Plan
from autoseg.core.task import Probe
from autoseg.planning.budget import Meter, candidate_key, case_key, climb, fastest
from autoseg.planning.recipes import CPU
from autoseg.planning.spacing import Grid
from autoseg.planning.unet import Blueprint, Limits, Wanted, plan_unet

BLUEPRINT = Blueprint("3d_fullres", Grid((0, 1, 2), (3.0, 2.0, 1.0), (20, 50, 35), 20, 200), Wanted(1, 3, {"dice": 1.0}), CPU,
                      Limits(1.0, 2**20))
CONFIGURATION = plan_unet(BLUEPRINT)
BUDGET = Budget("cpu", 8 * 10**9)


def refuse(*asked):
    raise AssertionError("asked again")


def meter(budget, seconds=refuse, peak_bytes=refuse, case_seconds=refuse):
    draft = Plan("default", "Toy", "segmentation", (0, 1, 2), (), {}, budget, {})
    return Meter(budget, Probe(seconds, peak_bytes, case_seconds), draft)


def test_key_ignores_length_and_prediction_but_not_what_costs_time():
    key = candidate_key(CONFIGURATION)
    longer = replace(CONFIGURATION, optimization=replace(CONFIGURATION.optimization, iterations=5_000))
    assert candidate_key(longer) == key
    assert candidate_key(replace(CONFIGURATION, inference=replace(CONFIGURATION.inference, tile_step=0.7))) == key
    slower = [
        replace(CONFIGURATION, batch_size=3),
        replace(CONFIGURATION, network=replace(CONFIGURATION.network, deep_supervision=True)),
        replace(CONFIGURATION, optimization=replace(CONFIGURATION.optimization, precision="bf16")),
        replace(CONFIGURATION, optimization=replace(CONFIGURATION.optimization, memory_format="channels_last")),
        replace(CONFIGURATION, augmentation=replace(CONFIGURATION.augmentation, blur_probability=0.2)),
    ]
    assert len({candidate_key(each) for each in [CONFIGURATION, *slower]}) == 6


def test_a_candidate_is_timed_once_and_remembered():
    timed = []
    watch = meter(BUDGET, lambda plan, configuration: timed.append(configuration) or 0.5)
    assert [watch.seconds(CONFIGURATION), watch.seconds(CONFIGURATION)] == [0.5, 0.5]
    assert timed == [CONFIGURATION]
    assert watch.budget.measured == (StepTime(candidate_key(CONFIGURATION), 0.5),)


def test_a_known_time_is_looked_up():
    known = replace(BUDGET, measured=(StepTime(candidate_key(CONFIGURATION), 0.25),))
    assert meter(known, refuse).seconds(CONFIGURATION) == 0.25


def test_memory_is_predicted_once_and_remembered_for_these_windows():
    asked = []
    watch = meter(BUDGET, peak_bytes=lambda configuration: asked.append(configuration) or (300, 100))
    other_windows = replace(CONFIGURATION, inference=replace(CONFIGURATION.inference, tiles_per_batch=7))
    found = [watch.footprint(c).forward_bytes for c in (CONFIGURATION, CONFIGURATION, other_windows)]
    assert (found, asked) == ([100, 100, 100], [CONFIGURATION, other_windows])
    assert meter(watch.budget).footprint(CONFIGURATION).training_bytes == 300


def test_case_times_are_measured_once_and_remembered():
    watch = meter(BUDGET, case_seconds=lambda plan, configuration: CaseTime("", 2.0, 0.5, 8.0, (2.0, 2.0, 2.0), 1.0, 3.0, 4.0))
    assert watch.case_time(CONFIGURATION).window_seconds == 0.5
    assert meter(watch.budget).case_time(CONFIGURATION).prepare_seconds == 2.0


def test_another_way_to_predict_is_another_case_time():
    keys = {case_key(replace(CONFIGURATION, inference=replace(CONFIGURATION.inference, **change))) for change in (
        {}, {"tile_step": 0.7}, {"mirror_axes": (0, 1), "mirror": True}, {"mirror_axes": (0,), "mirror": True},
        {"tiles_per_batch": 9})}
    assert len(keys) == 5
    unused = replace(CONFIGURATION, inference=replace(CONFIGURATION.inference, mirror_axes=(0, 1), mirror=False))
    assert case_key(unused) == case_key(CONFIGURATION)


def test_case_times_of_files_of_before_are_measured_anew():
    """They say nothing about what a case takes beside its windows."""
    before = replace(BUDGET, case_times=(CaseTime(case_key(CONFIGURATION), 2.0, 0.5),))
    watch = meter(before, case_seconds=lambda plan, configuration: CaseTime("", 3.0, 0.5, 8.0, (2.0, 2.0, 2.0), 1.0))
    assert watch.case_time(CONFIGURATION).prepare_seconds == 3.0
    assert meter(watch.budget).case_time(CONFIGURATION).prepare_seconds == 3.0


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_an_impossible_time_is_refused(seconds):
    with pytest.raises(ResourceError, match="expected a positive number"):
        meter(BUDGET, lambda plan, configuration: seconds).seconds(CONFIGURATION)


def test_the_fastest_candidate_wins_and_the_first_of_equals():
    others = [replace(CONFIGURATION, batch_size=batch) for batch in (5, 4, 3)]
    times = {5: 0.9, 4: 0.4, 3: 0.4}
    assert fastest(others, meter(BUDGET, lambda plan, configuration: times[configuration.batch_size])) == 1


@pytest.mark.parametrize(("iterations", "expected"), [
    ([9000, 5000, 600, 80, 20], 2),        # the start allows enough to stay, too few to grow
    ([900, 500, 499, 80, 20], 1),          # down to the first that allows 500
    ([100, 80, 60, 40, 20], 0),            # nothing does: the cheapest
    ([9000, 5000, 4000, 2000, 1600], 4),   # up to the dearest
    ([9000, 5000, 4000, 2000, 1499], 3),   # up while the next allows 1500
    ([9000, 5000, 1500, 1500, 1500], 2),   # 1500 here leaves nothing for a dearer one
])
def test_climb_from_rung_two(iterations, expected):
    assert climb(5, 2, iterations.__getitem__) == expected


def test_dearer_rungs_are_not_even_timed_when_the_start_allows_few_steps():
    asked = []
    climb(5, 2, lambda rung: asked.append(rung) or 600)
    assert set(asked) == {2}
