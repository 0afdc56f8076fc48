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


def test_average_is_restored_from_its_tensors():
    source, target = WeightAverage(with_value(3.0), 0.5), WeightAverage(with_value(8.0), 0.5)

    target.load({name: tensor.clone() for name, tensor in source.tensors().items()})

    assert float(target.average[0]) == 3.0
