from __future__ import annotations

import pytest
import torch
from nn.fields import noise, smooth_field
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional

from autoseg.core.errors import IncompatibleError
from autoseg.core.networks import Registrar
from autoseg.losses.local_correlation import local_correlation_loss
from autoseg.losses.smoothness import diffusion_energy
from autoseg.nn.build import build_network
from autoseg.nn.registrar import deformation, inverse_displacement, moments
from autoseg.nn.warp import compose, warp
from autoseg.planning.memory import parameter_count
from autoseg.stages.feasible import least_parameters


def registrar(dims=3, **changes):
    values = {"in_channels": 1, "features": (4, 6, 8), "strides": ((1,) * dims, (2,) * dims, (2,) * dims),
              "kernel_sizes": ((3,) * dims,) * 3, "convs_encoder": (1, 1, 1), "convs_decoder": (1, 1), "integration_steps": 5,
              "affine_features": (4, 6)} | changes
    return Registrar("voxelmorph", dims, **values)


def built(described, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_network(described)


def images(dims, batch=2, channels=1):
    shape = (8, 12, 16)[:dims]
    return noise(batch, channels, *shape), noise(batch, channels, *shape, seed=1)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("convs_decoder", [(1, 1), (2,)])
def test_it_begins_near_the_identity_on_the_planned_grids(dims, convs_decoder):
    network = built(registrar(dims, in_channels=2, convs_decoder=convs_decoder))
    fixed, moving = images(dims, channels=2)
    found = network(fixed, moving)
    shrink = 2 ** (2 - len(convs_decoder))
    assert found.displacement.shape == (2, dims, *fixed.shape[2:])
    assert found.velocity.shape == (2, dims, *(size // shrink for size in fixed.shape[2:]))
    assert 0 < float(found.displacement.detach().abs().max()) < 0.05
    torch.testing.assert_close(found.affine, torch.eye(dims, dims + 1).expand(2, -1, -1), atol=0.01, rtol=0)


def test_without_an_affine_part_the_matrix_is_the_identity():
    network = built(registrar(affine_features=()))
    assert network.affine is None
    assert torch.equal(network(*images(3)).affine, torch.eye(3, 4).expand(2, -1, -1))


def test_each_pair_is_answered_as_if_it_was_alone():
    network = built(registrar(norm="instance")).eval()
    fixed, moving = images(3)
    with torch.no_grad():
        together, alone = network(fixed, moving), network(fixed[1:], moving[1:])
    torch.testing.assert_close(together.displacement[1:], alone.displacement, atol=1e-6, rtol=0)


@pytest.mark.parametrize("affine_features", [(), (4, 6)])
def test_a_second_pass_corrects_the_first_by_what_it_sees_after_it(affine_features):
    once, twice = (built(registrar(affine_features=affine_features, passes=passes)) for passes in (1, 2))
    for network in (once, twice):
        torch.nn.init.normal_(network.velocity.weight, std=0.05, generator=torch.Generator().manual_seed(0))
    fixed, moving = images(3)
    with torch.no_grad():
        first, found = once(fixed, moving), twice(fixed, moving)
        once.affine = None
        second = once(fixed, warp(moving, first.displacement))
    assert float(second.velocity.abs().max()) > 0.1
    torch.testing.assert_close(found.velocity, first.velocity + second.velocity)
    exact = deformation(found.velocity, first.affine, 5, fixed.shape[2:])
    torch.testing.assert_close(found.displacement, exact.displacement)


def test_an_answer_both_ways_is_the_mean_of_both_and_another_pair_the_other_way_round():
    plain, both = (built(registrar(affine_features=(), both_ways=way)) for way in (False, True))
    for network in (plain, both):
        torch.nn.init.normal_(network.velocity.weight, std=0.05, generator=torch.Generator().manual_seed(0))
    fixed, moving = images(3)
    with torch.no_grad():
        assert torch.equal(both(fixed, moving).velocity, plain(fixed, moving).velocity)  # in training it looks one way
        there, back = plain(fixed, moving).velocity, plain(moving, fixed).velocity
        found, turned = both.eval()(fixed, moving).velocity, both(moving, fixed).velocity
    assert float((there + back).abs().max()) > 0.01
    torch.testing.assert_close(found, (there - back) / 2, atol=1e-6, rtol=0)
    torch.testing.assert_close(turned, -found, atol=1e-6, rtol=0)


def test_it_looks_more_often_when_it_answers():
    network, thrice = built(registrar(passes=2, answer_passes=3)), built(registrar(passes=3))
    for one in (network, thrice):
        torch.nn.init.normal_(one.velocity.weight, std=0.05, generator=torch.Generator().manual_seed(0))
    pair = images(3)
    with torch.no_grad():
        assert not torch.equal(network(*pair).velocity, thrice(*pair).velocity)
        assert torch.equal(network.eval()(*pair).velocity, thrice.eval()(*pair).velocity)


def test_the_same_seed_gives_the_same_answer():
    pair = images(3)
    first, second = (built(registrar(), seed=3)(*pair).displacement for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("changes", [{}, {"affine_features": ()}, {"norm": "instance"}, {"convs_decoder": (2,)},
                                     {"convs_encoder": (2, 1, 3)}, {"in_channels": 2}, {"passes": 3}])
@pytest.mark.parametrize("dims", [2, 3])
def test_the_planner_knows_the_number_of_weights(dims, changes):
    described = registrar(dims, **changes)
    network = built(described)
    assert parameter_count(described) == sum(weights.numel() for weights in network.parameters())
    assert 0 < least_parameters(described) < parameter_count(described)


def test_both_ways_undo_each_other():
    velocity = smooth_field(3, amplitude=1.5, shape=(20, 22, 24))
    matrix = torch.eye(3, 4)[None] + 0.03 * noise(1, 3, 4, seed=5)
    found = deformation(velocity, matrix, 6, (20, 22, 24))
    there_and_back = compose(found.displacement, inverse_displacement(found, 6))
    inner = there_and_back[:, :, 3:-3, 3:-3, 3:-3]
    assert float(found.displacement.abs().max()) > 1
    assert float(inner.abs().max()) < 0.1  # voxels


def test_bfloat16_keeps_positions_exact():
    network = built(registrar())
    fixed, moving = images(3)
    with torch.autocast("cpu", torch.bfloat16):
        found = network(fixed, moving)
    assert found.displacement.dtype == torch.float32
    exact = deformation(found.velocity, found.affine, 5, fixed.shape[2:])
    assert torch.equal(found.displacement, exact.displacement)


def test_moments_know_where_something_is():
    features = torch.zeros(1, 1, 5, 9)
    features[0, 0, 4, 2] = 45.0
    assert moments(features)[0].tolist() == pytest.approx([1.0, 1.0, -0.5])


def test_it_learns_a_shift():
    described = registrar(2, features=(8, 8), strides=((1, 1), (2, 2)), kernel_sizes=((3, 3),) * 2, convs_encoder=(1, 1),
                          convs_decoder=(1,), affine_features=(8, 8))
    network = built(described)
    rows, columns = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    blob = torch.exp(-((rows - 7) ** 2 + (columns - 7) ** 2) / 12)[None, None]
    moved = torch.exp(-((rows - 9) ** 2 + (columns - 6) ** 2) / 12)[None, None]
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    before = functional.mse_loss(moved, blob)
    for _ in range(100):
        loss = functional.mse_loss(warp(moved, network(blob, moved).displacement), blob)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.05 * float(before)


def test_sizes_that_strides_do_not_divide_are_told():
    network = built(registrar())
    with pytest.raises(IncompatibleError, match=r"images of \(8, 12, 18\) voxels.*multiple of \(4, 4, 4\)"):
        network(noise(1, 1, 8, 12, 18), noise(1, 1, 8, 12, 18))
    with pytest.raises(IncompatibleError, match="both must be sampled on one grid"):
        network(noise(1, 1, 8, 12, 16), noise(1, 1, 8, 12, 20))


def test_a_decoder_finer_than_the_encoder_is_refused():
    with pytest.raises(IncompatibleError, match="decoder of one stage"):
        built(registrar(convs_decoder=(1, 1, 1)))


def test_memory_can_be_predicted_without_numbers_and_leaves_none_behind():
    """A grid that was kept from a run on tensors without content would break the next real one."""
    with FakeTensorMode():
        network = build_network(registrar())
        found = network(torch.zeros(2, 1, 8, 12, 16), torch.zeros(2, 1, 8, 12, 16))
        loss = local_correlation_loss(found.displacement, found.displacement) + diffusion_energy(found.velocity, (1.0, 1.0, 1.0))
        loss.backward()
    real = built(registrar())(*images(3))
    assert torch.isfinite(local_correlation_loss(real.displacement, real.displacement.flip(2)))
