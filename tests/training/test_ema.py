from __future__ import annotations

import pytest
import torch
from torch import nn

from autoseg.training.ema import WeightAverage


def with_value(value: float) -> nn.Linear:
    network = nn.Linear(1, 1, bias=False)
    set_value(network, value)
    return network


def set_value(network: nn.Linear, value: float) -> None:
    with torch.no_grad():
        network.weight.fill_(value)


def test_first_steps_are_a_plain_mean_and_the_initial_weights_leave_no_trace():
    network = with_value(1000.0)
    average = WeightAverage(network, 0.9)

    for step, value in enumerate((2.0, 4.0, 9.0), start=1):
        set_value(network, value)
        average.update(step)

    assert float(average.average[0]) == pytest.approx(5.0)


def test_later_steps_weigh_one_minus_decay():
    network = with_value(0.0)
    average = WeightAverage(network, 0.9)
    set_value(network, 1.0)
    average.update(1)
    set_value(network, 3.0)

    average.update(500)

    assert float(average.average[0]) == pytest.approx(0.9 * 1.0 + 0.1 * 3.0)


def test_averaged_weights_are_in_the_network_inside_the_context_only():
    network = with_value(1.0)
    average = WeightAverage(network, 0.5)
    set_value(network, 7.0)

    with pytest.raises(RuntimeError, match="inside"), average.applied():
        assert network.weight.item() == 1.0
        raise RuntimeError("inside")

    assert network.weight.item() == 7.0 and float(average.average[0]) == 1.0


def test_running_statistics_are_averaged_and_their_counts_are_not():
    network = nn.BatchNorm1d(1)
    average = WeightAverage(network, 0.9)
    for step, mean in enumerate((2.0, 4.0, 9.0), start=1):
        network.running_mean.fill_(mean)
        network.num_batches_tracked.fill_(step)
        average.update(step)

    with average.applied():
        assert network.running_mean.item() == pytest.approx(5.0) and network.num_batches_tracked == 3
    assert network.running_mean.item() == 9.0


def test_a_network_without_statistics_is_averaged_under_the_names_it_always_had():
    """Checkpoints name averaged tensors by their position among the parameters."""
    network = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    names = list(WeightAverage(network, 0.9).tensors())
    assert names[:4] == list(WeightAverage(nn.Sequential(nn.Linear(2, 3), nn.Linear(2, 3)), 0.9).tensors())
    assert names == [f"{index:05d}" for index in range(6)]


def test_average_is_restored_from_its_tensors():
    source, target = WeightAverage(with_value(3.0), 0.5), WeightAverage(with_value(8.0), 0.5)

    target.load({name: tensor.clone() for name, tensor in source.tensors().items()})

    assert float(target.average[0]) == 3.0
