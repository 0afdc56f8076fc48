from __future__ import annotations

from dataclasses import replace

import pytest

from autoseg.core.plan import Optimization
from autoseg.training.schedule import learning_rate

NNUNET = Optimization(
    optimizer="sgd", learning_rate=1e-2, weight_decay=3e-5, iterations=250_000, iterations_per_epoch=250)


@pytest.mark.parametrize(("epoch", "expected"), [
    (0, 1e-2), (1, 1e-2 * 0.999**0.9), (500, 1e-2 * 0.5**0.9), (999, 1e-2 * 0.001**0.9)])
def test_nnunets_rate_at_the_first_and_last_iteration_of_an_epoch(epoch, expected):
    assert learning_rate(epoch * 250, NNUNET) == pytest.approx(expected, rel=1e-12)
    assert learning_rate(epoch * 250 + 249, NNUNET) == pytest.approx(expected, rel=1e-12)


def test_half_of_nnunets_training_is_at_5359_millionths():
    assert learning_rate(125_000, NNUNET) == pytest.approx(0.005359, abs=1e-6)


def test_stepping_every_iteration_falls_within_the_epoch():
    smooth = replace(NNUNET, schedule_steps_per_epoch=False, iterations=100, poly_power=1.0)

    assert [learning_rate(i, smooth) for i in (0, 1, 50, 99)] == pytest.approx([1e-2, 0.99e-2, 0.5e-2, 0.01e-2])


def test_warm_up_rises_linearly_and_the_decay_starts_where_it_ends():
    warm = replace(NNUNET, learning_rate=1.0, schedule_steps_per_epoch=False, iterations=14, warmup_iterations=4,
                   poly_power=1.0)

    assert [learning_rate(i, warm) for i in range(7)] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 0.9, 0.8])
    assert learning_rate(13, warm) == pytest.approx(0.1)


def test_warm_up_that_ends_inside_an_epoch_is_followed_by_the_full_rate_until_the_next_epoch():
    warm = replace(NNUNET, learning_rate=1.0, iterations=34, iterations_per_epoch=10, warmup_iterations=4,
                   poly_power=1.0)

    rates = [learning_rate(i, warm) for i in (4, 9, 10, 19, 20)]

    assert rates == pytest.approx([1.0, 1.0, 24 / 30, 24 / 30, 14 / 30])
