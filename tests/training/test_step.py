from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from autoseg.core.errors import IncompatibleError
from autoseg.core.plan import Optimization
from autoseg.core.task import Phase
from autoseg.training.step import DivergedError, Stepper, arrange

SGD = Optimization(optimizer="sgd", learning_rate=0.1, weight_decay=0.01, iterations=10, iterations_per_epoch=1,
                   momentum=0.9, gradient_clip_norm=None)
ADAMW = replace(SGD, optimizer="adamw")


def line(weight: float, bias: float = 0.0) -> nn.Linear:
    network = nn.Linear(1, 1)
    with torch.no_grad():
        network.weight.fill_(weight)
        network.bias.fill_(bias)
    return network


def slope_phase(name: str = "main") -> Phase:
    """Loss = weight * batch['slope']: the gradient of the weight is the slope, that of the bias 0."""
    return Phase(name, lambda network: network.parameters(), lambda network, batch: {
        "total": (network.weight.sum() + 0 * network.bias.sum()) * batch["slope"], "slope": batch["slope"]})


def batch(slope: float) -> dict:
    return {"slope": torch.tensor(slope), "cases": ["case_a", "case_b"]}


def conv_phase() -> Phase:
    return Phase("main", lambda network: network.parameters(),
                 lambda network, images: {"total": network(images["image"]).square().mean()})


def test_nesterov_step_with_decay_is_the_one_worked_out_by_hand():
    network = line(2.0)
    stepper = Stepper(network, [slope_phase()], replace(SGD, poly_power=0.0), device="cpu")

    losses = stepper.step(0, batch(3.0))

    # gradient 3 + 0.01 * 2; first momentum buffer = gradient; Nesterov adds 0.9 of it: 2 - 0.1 * 1.9 * 3.02
    assert network.weight.item() == pytest.approx(2 - 0.1 * 1.9 * 3.02)
    assert losses == {"total": 6.0, "slope": 3.0}


def test_first_adamw_step_is_the_rate_and_biases_do_not_decay():
    network = line(2.0, bias=5.0)

    Stepper(network, [slope_phase()], replace(ADAMW, poly_power=0.0), device="cpu").step(0, batch(3.0))

    assert network.weight.item() == pytest.approx(2 * (1 - 0.1 * 0.01) - 0.1, abs=1e-6)
    assert network.bias.item() == 5.0


def test_rate_follows_the_schedule_of_the_iteration():
    network = line(0.0)
    plain = replace(SGD, momentum=0.0, nesterov=False, weight_decay=0.0, poly_power=1.0)

    Stepper(network, [slope_phase()], plain, device="cpu").step(5, batch(1.0))

    assert network.weight.item() == pytest.approx(-0.05)


def test_gradient_is_clipped_to_the_planned_norm():
    network = line(0.0)
    clipped = replace(SGD, momentum=0.0, nesterov=False, weight_decay=0.0, gradient_clip_norm=2.0)

    Stepper(network, [slope_phase()], clipped, device="cpu").step(0, batch(500.0))

    assert network.weight.item() == pytest.approx(-0.2, rel=1e-5)


def test_each_phase_moves_only_its_own_parameters_and_names_its_losses():
    network = line(1.0, bias=1.0)
    phases = [
        Phase("generator", lambda n: [n.weight], lambda n, b: {"total": n.weight.sum() * n.bias.sum()}),
        Phase("critic", lambda n: [n.bias], lambda n, b: {"total": n.bias.sum() * 10, "gap": n.weight.detach().sum()})]
    plain = replace(SGD, momentum=0.0, nesterov=False, weight_decay=0.0)

    losses = Stepper(network, phases, plain, device="cpu").step(0, {})

    assert network.weight.item() == pytest.approx(0.9)
    assert network.bias.item() == pytest.approx(0.0, abs=1e-6)
    assert losses == pytest.approx({"generator.total": 1.0, "critic.total": 10.0, "critic.gap": 0.9})


@pytest.mark.parametrize("slope", [math.nan, math.inf])
def test_loss_that_is_not_finite_stops_with_iteration_losses_and_cases_and_leaves_the_weights(slope):
    network = line(2.0)
    stepper = Stepper(network, [slope_phase()], SGD, device="cpu")

    with pytest.raises(DivergedError, match=r"iteration 7.*total = (nan|inf).*case_a, case_b"):
        stepper.step(7, batch(slope))
    assert network.weight.item() == 2.0


def test_gradient_that_is_not_finite_stops_before_the_weights_are_spoiled():
    network = line(0.0)
    phase = Phase("main", lambda n: n.parameters(), lambda n, b: {"total": n.weight.abs().sqrt().sum()})

    with pytest.raises(DivergedError, match="the gradient is not finite"):
        Stepper(network, [phase], SGD, device="cpu").step(0, {})
    assert network.weight.item() == 0.0


@pytest.mark.parametrize("optimization", [SGD, ADAMW])
def test_channels_last_kernels_learn_the_same_as_contiguous_ones(optimization):
    torch.manual_seed(0)
    contiguous = nn.Sequential(nn.Conv3d(2, 3, (1, 2, 3)), nn.Conv3d(3, 2, 2))
    last = copy.deepcopy(contiguous)
    image = {"image": torch.randn(2, 2, 4, 5, 6)}
    plain = Stepper(contiguous, [conv_phase()], optimization, device="cpu")
    other = Stepper(last, [conv_phase()], replace(optimization, memory_format="channels_last"), device="cpu")

    for iteration in range(5):
        plain.step(iteration, image)
        other.step(iteration, image)

    assert last[0].weight.is_contiguous(memory_format=torch.channels_last_3d)
    for ours, theirs in zip(last.parameters(), contiguous.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_arranging_covers_two_and_three_dimensions():
    flat, solid = arrange(nn.Conv2d(2, 3, 3), "channels_last"), arrange(nn.Conv3d(2, 3, 3), "channels_last")

    assert flat.weight.is_contiguous(memory_format=torch.channels_last)
    assert solid.weight.is_contiguous(memory_format=torch.channels_last_3d)
    assert arrange(solid, "contiguous").weight.is_contiguous()


@pytest.mark.parametrize("optimization", [
    SGD, ADAMW, replace(ADAMW, memory_format="channels_last", ema_decay=0.9)])
def test_restored_state_goes_on_to_the_bit(optimization):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv3d(2, 3, (1, 2, 3)), nn.Dropout(0.5), nn.Conv3d(3, 2, 2))
    stepper = Stepper(network, [conv_phase()], optimization, device="cpu")
    images = [{"image": torch.randn(2, 2, 4, 5, 6)} for _ in range(6)]
    for iteration in range(3):
        stepper.step(iteration, images[iteration])
    saved = {name: tensor.detach().clone() for name, tensor in stepper.tensors().items()}
    for iteration in range(3, 6):
        stepper.step(iteration, images[iteration])

    torch.manual_seed(99)
    fresh = nn.Sequential(nn.Conv3d(2, 3, (1, 2, 3)), nn.Dropout(0.5), nn.Conv3d(3, 2, 2))
    restored = Stepper(fresh, [conv_phase()], optimization, device="cpu")
    restored.load(saved, {})
    for iteration in range(3, 6):
        restored.step(iteration, images[iteration])

    expected = stepper.tensors()
    assert restored.tensors().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in restored.tensors().items())


def test_state_of_another_network_is_refused():
    stepper = Stepper(nn.Conv3d(1, 1, 1), [conv_phase()], SGD, device="cpu")

    with pytest.raises(IncompatibleError, match="another network"):
        Stepper(nn.Conv3d(1, 2, 1), [conv_phase()], SGD, device="cpu").load(stepper.tensors(), {})


def test_half_precision_without_cuda_is_refused():
    with pytest.raises(IncompatibleError, match="fp16"):
        Stepper(line(1.0), [slope_phase()], replace(SGD, precision="fp16"), device="cpu")


def test_bfloat16_runs_products_in_bfloat16_and_keeps_weights_in_float32():
    network, kinds = nn.Linear(4, 4), []

    def step(network, batch):
        out = network(batch["x"])
        kinds.append(out.dtype)
        return {"total": out.float().sum()}

    phase = Phase("main", lambda n: n.parameters(), step)
    Stepper(network, [phase], replace(SGD, precision="bf16"), device="cpu").step(0, {"x": torch.ones(2, 4)})

    assert kinds == [torch.bfloat16] and network.weight.dtype == torch.float32


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_cuda_learns_about_the_same_as_the_cpu(precision):
    torch.manual_seed(0)
    on_cpu = nn.Sequential(nn.Conv3d(2, 3, (1, 2, 3)), nn.Conv3d(3, 2, 2))
    on_cuda = copy.deepcopy(on_cpu)
    image = {"image": torch.randn(2, 2, 4, 5, 6)}
    cpu = Stepper(on_cpu, [conv_phase()], SGD, device="cpu")
    planned = replace(SGD, precision=precision, memory_format="channels_last")
    cuda = Stepper(on_cuda, [conv_phase()], planned, device="cuda")

    for iteration in range(5):
        expected, found = cpu.step(iteration, image), cuda.step(iteration, image)

    assert found["total"] == pytest.approx(expected["total"], rel=1e-4 if precision == "fp32" else 0.05)


class TwoLayers(nn.Module):
    """A layer, an average that only training moves, and another layer."""

    def __init__(self):
        super().__init__()
        self.first, self.scale, self.last = nn.Conv3d(1, 2, (1, 2, 3)), nn.BatchNorm3d(2), nn.Conv3d(2, 1, 1)

    def forward(self, image):
        return self.last(self.scale(self.first(image)))


def two_layers(seed=0):
    torch.manual_seed(seed)
    return TwoLayers()


MUON = replace(ADAMW, optimizer="muon")
IMAGES = [{"image": torch.randn(2, 1, 4, 5, 6, generator=torch.Generator().manual_seed(number))} for number in range(6)]


def phase_of(parts, rates=None):
    """A phase that moves the parameters whose names begin with one of `parts`."""
    def moved(network):
        return [p for name, p in network.named_parameters() if name.startswith(parts)]

    return Phase("main", moved, lambda n, b: {"total": n(b["image"]).square().mean()}, rates)


def trained_by(phase, optimization, steps=4):
    network = two_layers()
    stepper = Stepper(network, [phase], optimization, device="cpu")
    stepper.train()
    for iteration in range(steps):
        stepper.step(iteration, IMAGES[iteration])
    return network, stepper


ALL = ("first", "scale", "last")


def half_of_the_first_layer(network):
    return [0.5 if name.startswith("first") else 1.0 for name, _ in network.named_parameters()]


@pytest.mark.parametrize("optimization", [SGD, ADAMW, MUON])
def test_rates_of_one_change_no_bit(optimization):
    plain, _ = trained_by(phase_of(ALL), optimization)
    rated, _ = trained_by(phase_of(ALL, lambda network: [1.0] * len(list(network.parameters()))), optimization)
    assert all(torch.equal(*pair) for pair in zip(plain.state_dict().values(), rated.state_dict().values(), strict=True))


@pytest.mark.parametrize("optimization", [SGD, ADAMW, MUON])
def test_a_rate_scales_the_first_move_of_its_parameters_alone(optimization):
    before, optimization = two_layers(), replace(optimization, weight_decay=0.0)
    plain, _ = trained_by(phase_of(ALL), optimization, steps=1)
    rated, _ = trained_by(phase_of(ALL, half_of_the_first_layer), optimization, steps=1)
    for name, start in before.named_parameters():
        whole, part = (dict(network.named_parameters())[name].detach() - start.detach() for network in (plain, rated))
        torch.testing.assert_close(part, whole * (0.5 if name.startswith("first") else 1.0), atol=1e-7, rtol=1e-4)
        assert name == "first.bias" or float(whole.abs().max()) > 0  # a bias before an average over the batch has no gradient


@pytest.mark.parametrize("optimization", [SGD, ADAMW, replace(MUON, ema_decay=0.9)])
def test_restored_state_with_rates_goes_on_to_the_bit(optimization):
    _, stepper = trained_by(phase_of(ALL, half_of_the_first_layer), optimization, steps=3)
    saved = {name: tensor.detach().clone() for name, tensor in stepper.tensors().items()}
    fresh = Stepper(two_layers(seed=9), [phase_of(ALL, half_of_the_first_layer)], optimization, device="cpu")
    fresh.load(saved, {})
    fresh.train()
    for iteration in range(3, 6):
        for one in (stepper, fresh):
            one.step(iteration, IMAGES[iteration])
    expected = stepper.tensors()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in fresh.tensors().items())


@pytest.mark.parametrize("optimization", [SGD, replace(ADAMW, ema_decay=0.9), MUON])
def test_what_no_phase_moves_gets_no_gradient_and_stays_with_its_averages(optimization):
    before = two_layers().state_dict()
    network, stepper = trained_by(phase_of(("last",)), optimization)
    after = network.state_dict()
    kept = [name for name in before if not name.startswith("last")]
    assert "scale.running_mean" in kept and all(torch.equal(before[name], after[name]) for name in kept)
    assert not torch.equal(before["last.weight"], after["last.weight"])
    assert network.first.weight.grad is None and not network.first.weight.requires_grad
    if stepper.average is not None:
        stepper.average.swap()
        assert all(torch.equal(before[name], network.state_dict()[name]) for name in kept)


def test_rates_are_one_for_each_parameter():
    with pytest.raises(ValueError, match="shorter"):
        Stepper(two_layers(), [phase_of(ALL, lambda network: [1.0])], SGD, device="cpu")
