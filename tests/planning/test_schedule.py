from __future__ import annotations

import pytest

from autoseg.core.budget import Budget
from autoseg.planning import recipes
from autoseg.planning.recipes import CPU, CUDA, NNUNET
from autoseg.planning.schedule import (
    average_decay,
    epoch_length,
    fixed_reason,
    iterations_for_dataset,
    iterations_within,
    plan_optimization,
)


def optimization(recipe, iterations):
    return plan_optimization(recipe, iterations, precision="fp32", memory_format="contiguous")


def test_minutes_are_divided_by_the_seconds_of_a_step():
    assert iterations_within(5, 0.75) == 400
    assert iterations_within(5, 0.7) == 428


def test_a_run_never_has_fewer_steps_than_a_warm_up_needs():
    assert iterations_within(1, 60) == 20


def test_every_voxel_is_drawn_a_hundred_times_without_minutes():
    assert iterations_for_dataset(1e6, 20_000, "cpu") == 5_000


def test_length_by_dataset_stays_within_the_limits_of_the_target():
    assert iterations_for_dataset(1e4, 1_000, "cpu") == 2_500
    assert iterations_for_dataset(1e9, 1_000, "cpu") == 20_000
    assert iterations_for_dataset(1e4, 1_000, "cuda") == 10_000
    assert iterations_for_dataset(1e12, 1_000, "cuda") == 250_000


@pytest.mark.parametrize(("recipe", "optimizer"), [(CPU, "muon"), (CUDA, "adamw")])
def test_short_runs_warm_up_over_a_twentieth_and_step_every_iteration(recipe, optimizer):
    planned = optimization(recipe, 1_001)
    assert (planned.optimizer, planned.warmup_iterations, planned.schedule_steps_per_epoch) == (optimizer, 51, False)


def test_weights_are_averaged_over_a_share_of_the_run_and_at_least_ten_steps():
    assert average_decay(CPU, 5_000) == pytest.approx(1 - 1 / (5_000 * CPU.ema_share))
    assert average_decay(CPU, 20) == pytest.approx(0.9)


def test_long_runs_on_cuda_take_nnunets_sgd_and_short_ones_adamw():
    assert optimization(CUDA, recipes.LONG_RUN - 1).optimizer == "adamw"
    planned = optimization(CUDA, recipes.LONG_RUN)
    assert (planned.optimizer, planned.momentum, planned.ema_decay, planned.warmup_iterations) == ("sgd", 0.99, None, 0)


def test_nnunets_optimisation_is_its_own():
    planned = optimization(NNUNET, recipes.NNUNET_ITERATIONS)
    assert (planned.optimizer, planned.learning_rate, planned.weight_decay, planned.momentum, planned.nesterov) == (
        "sgd", 1e-2, 3e-5, 0.99, True)
    assert (planned.iterations, planned.iterations_per_epoch, planned.poly_power, planned.schedule_steps_per_epoch) == (
        250_000, 250, 0.9, True)
    assert (planned.gradient_clip_norm, planned.warmup_iterations, planned.ema_decay) == (12.0, 0, None)


def test_epochs_are_a_twentieth_of_a_run_at_most_250_steps_and_at_least_one():
    assert [epoch_length(n) for n in (10, 400, 250_000)] == [1, 20, 250]


def test_minutes_that_nnunet_ignores_are_named_in_the_reason():
    assert "20 minutes" in fixed_reason(Budget("cpu", 8 * 10**9, 20))["optimization.iterations"].inputs
