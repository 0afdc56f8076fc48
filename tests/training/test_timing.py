from __future__ import annotations

import pytest
from torch import nn

from autoseg.core.plan import Optimization
from autoseg.core.task import Phase
from autoseg.training import timing
from autoseg.training.timing import seconds_per_step


def test_median_leaves_out_the_warm_up_and_counts_drawing(monkeypatch):
    durations = iter([50.0, 3.0, 1.0, 9.0])
    drawn = []

    class Hands:
        def seconds(self) -> float:
            return next(durations)

    monkeypatch.setattr(timing, "Stopwatch", Hands)
    optimization = Optimization(
        optimizer="sgd", learning_rate=0.1, weight_decay=0.0, iterations=9, iterations_per_epoch=1)
    phase = Phase("main", lambda network: network.parameters(), lambda network, batch: {"total": network.weight.sum()})

    median = seconds_per_step(nn.Linear(2, 2), [phase], lambda i: drawn.append(i) or {}, optimization, "cpu")

    assert median == pytest.approx(3.0)
    assert drawn == [0, 1, 2, 3]
