"""Batches, network and step of the joint task."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from autoseg.core.case import Unit
from autoseg.tasks import load_task
from autoseg.tasks.joint.network import WEIGHTS
from autoseg.tasks.joint.parts import configuration_of

DENSE, WHOLE = load_task("segmentation"), load_task("classification")


def drawn(toy, seed=0):
    return toy.task.draw_batch(toy.workspace.units, toy.store, toy.configuration, np.random.default_rng(seed))


def built(toy):
    torch.manual_seed(0)
    return toy.task.build_network(toy.configuration).train()


def test_patches_are_those_of_the_segmentation_and_know_the_class_of_their_case(toy):
    alone = DENSE.draw_batch(toy.workspace.units, toy.store, configuration_of(DENSE, toy.configuration), np.random.default_rng(0))
    batch = drawn(toy)
    assert torch.equal(batch["image"], alone["image"]) and batch["cases"] == alone["cases"]
    ill = {unit.id: float(unit.cases[0].values["ill"]) for unit in toy.workspace.units}
    assert batch["truths"][:, 0].tolist() == [ill[name] for name in batch["cases"]]


def test_the_loss_is_the_weighted_sum_of_both_tasks_own_losses(toy):
    network, batch = built(toy), drawn(toy)
    s = network.get_submodule(WEIGHTS).log_variances
    s.data.copy_(torch.tensor([0.7, -1.2]))
    logits, vector = network(batch["image"])
    [dense], [whole] = (task.phases(configuration_of(task, toy.configuration)) for task in (DENSE, WHOLE))
    first = dense.step(lambda image: logits, batch)
    second = whole.step(lambda image: vector, batch)
    losses = toy.task.phases(toy.configuration)[0].step(network, batch)
    expected = np.exp(-0.7) * first["total"].item() + 0.7 + np.exp(1.2) * second["total"].item() - 1.2
    assert losses["total"].item() == pytest.approx(expected, rel=1e-5)
    assert losses["segmentation.dice"].item() == pytest.approx(first["dice"].item())
    assert losses["classification.binary_cross_entropy"].item() == pytest.approx(second["total"].item())
    assert losses["classification.log_variance"].item() == pytest.approx(-1.2)


def test_both_losses_move_the_encoder_and_their_weights(toy):
    network, batch = built(toy), drawn(toy)
    phase, = toy.task.phases(toy.configuration)
    losses = phase.step(network, batch)
    kernel = next(network.encoder[-1].parameters())
    for name in ("segmentation.dice", "classification.binary_cross_entropy"):
        gradient, = torch.autograd.grad(losses[name], kernel, retain_graph=True)
        assert gradient.abs().sum() > 0
    losses["total"].backward()
    assert (network.get_submodule(WEIGHTS).log_variances.grad != 0).all()
    assert len(list(phase.parameters(network))) == len(list(network.parameters()))


def test_a_case_without_a_class_is_drawn_and_moves_the_segmentation_only(toy):
    network, batch = built(toy), drawn(toy)
    batch["truths"] = torch.full_like(batch["truths"], torch.nan)
    losses = toy.task.phases(toy.configuration)[0].step(network, batch)
    losses["total"].backward()
    assert losses["classification.binary_cross_entropy"].item() == 0 and torch.isfinite(losses["total"])
    assert all((parameter.grad is None or not parameter.grad.any()) for parameter in network.image_head.parameters())
    assert next(network.encoder[-1].parameters()).grad.abs().sum() > 0


def test_the_learned_weights_are_stored_with_the_network_and_take_no_part_in_prediction(toy):
    network = built(toy).eval()
    voxels = torch.zeros(1, 1, *toy.configuration.patch_size)
    before = network(voxels)
    network.get_submodule(WEIGHTS).log_variances.data.fill_(5.0)
    assert torch.equal(network(voxels), before) and f"{WEIGHTS}.log_variances" in network.state_dict()


def test_a_missing_diagnosis_is_stored_as_unknown(toy):
    unit = toy.workspace.units[0]
    case = replace(unit.cases[0], values=unit.cases[0].values | {"ill": ""})
    target = toy.task.read_target(Unit(unit.id, (case,), unit.group), toy.workspace.spec)
    arrays = toy.task.prepare_target(target, toy.store.record(case.id), toy.configuration)
    assert np.isnan(arrays["truths"]).all() and arrays["label"].any()
