from __future__ import annotations

import pytest
import torch
from torch import nn

from autoseg.core.plan import Optimization
from autoseg.core.task import Phase
from autoseg.training import timing
from autoseg.training.timing import RememberedNetwork, seconds_of, seconds_per_step

OPTIMIZATION = Optimization(optimizer="sgd", learning_rate=0.1, weight_decay=0.0, iterations=9, iterations_per_epoch=1)
PHASE = Phase("main", lambda network: network.parameters(), lambda network, batch: {"total": network.weight.sum()})


@pytest.fixture
def hands(monkeypatch):
    """Sets what the stopwatches will say, one after the other."""
    def turn(*seconds: float) -> None:
        durations = iter(seconds)

        class Hands:
            def seconds(self) -> float:
                return next(durations)

        monkeypatch.setattr(timing, "Stopwatch", Hands)

    return turn


def test_median_leaves_out_the_warm_up_and_counts_drawing(hands):
    drawn = []
    hands(3.0, 1.0, 9.0)
    median = seconds_per_step(nn.Linear(2, 2), [PHASE], lambda i: drawn.append(i) or {}, OPTIMIZATION, "cpu")
    assert median == pytest.approx(3.0)
    assert drawn == [0, 1, 2, 3]


@pytest.mark.parametrize(("durations", "expected"), [
    ((0.5, 0.4, 0.2), 0.4),                       # three took a second together
    ((0.25, 0.25, 0.25, 0.1, 0.1, 0.1), 0.175),  # less: more steps, until they do
    ((0.1, 0.1, 0.1, 0.2, 0.2, 0.2, 0.2), 0.2),   # no more than the most
], ids=["enough", "more", "most"])
def test_short_steps_are_measured_more_often(hands, durations, expected):
    drawn = []
    hands(*durations)
    seconds = seconds_per_step(nn.Linear(2, 2), [PHASE], lambda i: drawn.append(i) or {}, OPTIMIZATION, "cpu",
                               steps=3, most=7, least_seconds=1.0)
    assert seconds == pytest.approx(expected)
    assert len(drawn) == 1 + len(durations)


@pytest.mark.parametrize(("durations", "expected"), [
    ((5.0,), 5.0),            # so long that one has to do
    ((1.0, 1.5), 1.25),
    ((0.2, 0.4, 0.3), 0.3),   # all three
])
def test_no_step_begins_after_enough_seconds(hands, durations, expected):
    drawn = []
    hands(*durations)
    seconds = seconds_per_step(nn.Linear(2, 2), [PHASE], lambda i: drawn.append(i) or {}, OPTIMIZATION, "cpu",
                               enough_seconds=2.0)
    assert seconds == pytest.approx(expected)
    assert len(drawn) == 1 + len(durations)


def test_actions_are_timed_in_turn_and_none_begins_after_enough_seconds(hands):
    done = []
    hands(0.9, 0.5, 7.0)
    measured = seconds_of([lambda: done.append(len(done))] * 5, "cpu", enough_seconds=1.0)
    assert (measured, done) == ([0.9, 0.5], [0, 1])


def test_a_remembered_network_runs_a_few_times_for_each_shape_and_notes_what_it_would_have_taken(hands):
    asked = []

    class Double(nn.Module):
        def forward(self, windows):
            asked.append(tuple(windows.shape))
            return windows * 2

    # two runs on the first batch of two and all that this call took; a run on the next, and the call; the third is remembered
    hands(5.0, 0.6, 20.0, 0.8, 0.9, 0.1, 9.0, 0.4, 9.5)
    network = RememberedNetwork(Double(), "cpu", tries=2)
    first = network(torch.ones(2, 1, 4))
    first += 100  # whoever asked may change the answer
    again = network(torch.full((2, 1, 4), 7.0))
    assert again.tolist() == torch.full((2, 1, 4), 14.0).tolist()
    remembered = network(torch.full((2, 1, 4), 9.0))
    assert remembered.tolist() == again.tolist()
    assert (asked, network.windows) == ([(2, 1, 4)] * 3, 6)
    assert network.network_seconds == pytest.approx(3 * 0.7) and network.aside_seconds == pytest.approx(21.0)
    network(torch.ones(1, 1, 4))
    assert (asked[3:], network.windows) == ([(1, 1, 4)] * 2, 7)
    assert network.network_seconds == pytest.approx(3 * 0.7 + 0.4) and network.aside_seconds == pytest.approx(30.5)
    assert network.start_seconds == pytest.approx(4.4 + 8.6)


def test_a_remembered_network_answers_with_maps_too(hands):
    class Mapped(nn.Module):
        def answer_with_maps(self, images):
            return images.sum((2, 3)), images

    hands(3.0, 0.8, 9.0, 0.5, 9.0)
    network = RememberedNetwork(Mapped(), "cpu")
    logits, maps = network.answer_with_maps(torch.ones(1, 1, 2, 2))
    logits += 1
    maps += 1
    logits, maps = network.answer_with_maps(torch.ones(1, 1, 2, 2))
    assert (logits.tolist(), maps.tolist()) == ([[4.0]], [[[[1.0, 1.0], [1.0, 1.0]]]])
    assert (network.windows, network.start_seconds) == (2, 2.2) and network.network_seconds == pytest.approx(2 * 0.65)
