from __future__ import annotations

import pytest
import torch
from nn.fields import noise

from autoseg.nn.siren import Siren, axis_pairs


def siren(dims, **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Siren(dims, (16, 12), frequency=5.0, **options).double()


@pytest.mark.parametrize("dims", [2, 3])
def test_derivatives_are_those_of_automatic_differentiation(dims):
    network, points = siren(dims), noise(4, dims).double()
    values, first, second = network.with_second(points)
    torch.testing.assert_close(values, network(points))
    torch.testing.assert_close(network.with_first(points)[1], first)
    for number, point in enumerate(points):
        torch.testing.assert_close(first[number], torch.autograd.functional.jacobian(lambda p: network(p[None])[0], point))
        for d in range(dims):
            hessian = torch.autograd.functional.hessian(lambda p, d=d: network(p[None])[0, d], point)
            expected = torch.stack([hessian[a, b] for a, b in axis_pairs(dims)])
            torch.testing.assert_close(second[number, d], expected)


def test_weights_are_those_of_the_paper():
    network = siren(3)
    bounds = [float(layer.weight.detach().abs().max()) for layer in network.layers]
    assert bounds[0] == pytest.approx(1 / 3, rel=0.1)
    assert bounds[1] == pytest.approx((6 / 16) ** 0.5 / 5, rel=0.1)
    assert bounds[2] == pytest.approx((6 / 12) ** 0.5 / 5, rel=0.1)


def test_it_may_begin_at_no_displacement():
    assert torch.equal(siren(2, last_scale=0.0)(noise(5, 2).double()), torch.zeros(5, 2, dtype=torch.double))
