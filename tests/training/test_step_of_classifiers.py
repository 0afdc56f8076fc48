"""Norms that keep statistics of batches: through steps that diverge, averages and checkpoints."""

from __future__ import annotations

import pytest
import torch
from nn.classifiers import KINDS, built, image, small

from autoseg.core.networks import Start
from autoseg.core.plan import Optimization
from autoseg.core.task import Phase
from autoseg.losses.softmax import softmax_cross_entropy
from autoseg.nn.stages import trained_parameters
from autoseg.training.step import DivergedError, Stepper

OPTIMIZATION = Optimization(optimizer="muon", learning_rate=0.01, weight_decay=0.01, iterations=10, iterations_per_epoch=1,
                            momentum=0.95, ema_decay=0.9)
PHASE = Phase("train", lambda network: network.parameters(),
              lambda network, batch: {"total": softmax_cross_entropy(network(batch["image"]), batch["class"], None)})


def batch(seed):
    return {"image": image(4, 1, 16, 16, seed=seed), "class": torch.tensor([0, 1, 2, 1]), "cases": list("abcd")}


def stepper_of(kind, seed=0):
    stepper = Stepper(built(small(kind), seed), [PHASE], OPTIMIZATION, device="cpu")
    stepper.train()
    return stepper


def test_a_batch_that_is_not_finite_leaves_weights_and_statistics_as_they_were():
    stepper = stepper_of("densenet")
    stepper.step(0, batch(0))
    before = {name: tensor.clone() for name, tensor in stepper.tensors().items()}
    broken = batch(1)
    broken["image"][2, 0, 3, 3] = float("nan")

    with pytest.raises(DivergedError, match="what the batch holds of c is not finite"):
        stepper.step(1, broken)

    after = stepper.tensors()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items()) and stepper.is_finite()


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_goes_on_to_the_bit_with_its_statistics_and_their_average(kind):
    straight = stepper_of(kind)
    for iteration in range(4):
        straight.step(iteration, batch(iteration))
    first, second = stepper_of(kind), stepper_of(kind, seed=1)
    for iteration in range(2):
        first.step(iteration, batch(iteration))
    second.load({name: tensor.clone() for name, tensor in first.tensors().items()}, {})
    for iteration in range(2, 4):
        second.step(iteration, batch(iteration))
    found = second.tensors()
    assert all(torch.equal(tensor, found[name]) for name, tensor in straight.tensors().items())


def test_averaged_weights_are_used_with_averaged_statistics():
    stepper = stepper_of("resnet")
    seen = []
    for iteration in range(3):
        stepper.step(iteration, batch(iteration))
        seen.append(stepper.network.encoder[0][1].running_mean.clone())
    with stepper.average.applied():
        torch.testing.assert_close(stepper.network.encoder[0][1].running_mean, torch.stack(seen).mean(0))


def test_training_learns_and_what_is_frozen_stays():
    network = built(small("resnet"))
    start = Start("a.safetensors", "0" * 64, ("encoder.",), "last")
    phase = Phase("train", lambda network: trained_parameters(network, start), PHASE.step)
    stepper = Stepper(network, [phase], OPTIMIZATION, device="cpu")
    stepper.train()
    frozen = {name: tensor.clone() for name, tensor in network.encoder[:2].state_dict().items()}
    losses = [stepper.step(iteration, batch(0))["total"] for iteration in range(8)]
    assert losses[-1] < 0.6 * losses[0]
    with stepper.average.applied():
        assert all(torch.equal(frozen[name], tensor) for name, tensor in network.encoder[:2].state_dict().items())
