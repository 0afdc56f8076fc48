from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from tasks.classification.configurations import make_configuration
from torch import nn

from autoseg.core.errors import IncompatibleError, UsageError
from autoseg.core.networks import Start
from autoseg.core.plan import Loss
from autoseg.tasks.classification.kinds import Kind
from autoseg.tasks.classification.network import build_network
from autoseg.tasks.classification.step import phases


class Says(nn.Module):
    def __init__(self, logits):
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, image):
        return self.logits


def losses(configuration, logits, truths):
    phase, = phases(configuration)
    return {name: float(loss) for name, loss in phase.step(Says(logits), {"image": None, "truths": torch.tensor(truths)}).items()}


def test_the_loss_is_the_sum_over_kinds_of_targets():
    configuration = make_configuration(
        ("ill", Kind.BINARY, ("no", "yes")), ("type", Kind.MULTICLASS, ("a", "b")), ("grade", Kind.ORDINAL, ("1", "2", "3")),
        ("size", Kind.CONTINUOUS, ()), weights={"ill": (3.0,)})
    found = losses(configuration, [[0.0, 0.0, 0.0, 0.0, 0.0, 2.0]], [[1.0, 1.0, 2.0, 0.5]])
    expected = {"binary_cross_entropy": 3 * math.log(2), "softmax_cross_entropy": math.log(2),
                "cumulative_cross_entropy": 2 * math.log(2), "squared_error": 2.25}
    assert found == pytest.approx(expected | {"total": sum(expected.values())})


def test_binary_targets_and_labels_share_a_term():
    configuration = make_configuration(("ill", Kind.BINARY, ("no", "yes")), ("signs", Kind.MULTILABEL, ("a", "b")),
                                       weights={"signs": (1.0, 5.0)})
    found = losses(configuration, [[0.0, 0.0, 0.0]], [[1.0, 0.0, 1.0]])
    assert found["binary_cross_entropy"] == pytest.approx((1 + 1 + 5) * math.log(2) / 3)


def test_what_is_not_known_costs_nothing():
    configuration = make_configuration(("ill", Kind.BINARY, ("no", "yes")), ("type", Kind.MULTICLASS, ("a", "b")))
    found = losses(configuration, [[0.0, 5.0, 0.0], [3.0, 0.0, 0.0]], [[1.0, -1.0], [math.nan, 0.0]])
    assert found["binary_cross_entropy"] == pytest.approx(math.log(2))
    assert found["softmax_cross_entropy"] == pytest.approx(math.log(2))


def test_a_term_that_does_not_exist_is_refused():
    configuration = make_configuration(("ill", Kind.BINARY, ("no", "yes")))
    with pytest.raises(UsageError, match="loss term 'dice' is not known"):
        phases(type(configuration)(**{**vars(configuration), "loss": Loss({"dice": 1.0})}))


@pytest.mark.parametrize("term", ["focal", "hinge", "squared_hinge", "smoothed_cross_entropy"])
def test_other_losses_of_the_field_can_be_planned(term):
    kind = Kind.BINARY if term == "focal" else Kind.MULTICLASS
    configuration = make_configuration(("ill", kind, ("no", "yes")))
    configuration = type(configuration)(**{**vars(configuration), "loss": Loss({term: 2.0})})
    found = losses(configuration, [[0.3] if term == "focal" else [0.3, -0.2]], [[1.0]])
    assert found[term] > 0 and found["total"] == pytest.approx(2 * found[term])


def test_targets_of_one_kind_may_have_losses_of_their_own():
    targets = ("ill", Kind.BINARY, ("no", "yes")), ("old", Kind.BINARY, ("no", "yes"))
    configuration = make_configuration(*targets)
    values = {**configuration.task_values, "ill.loss": "focal", "old.loss": "binary_cross_entropy"}
    terms = Loss({"focal": 1.0, "binary_cross_entropy": 1.0})
    configuration = replace(configuration, task_values=values, loss=terms)
    found = losses(configuration, [[0.0, 2.0]], [[1.0, 0.0]])
    assert found["focal"] == pytest.approx(0.25 * 0.5**2 * math.log(2))  # alpha (1 - q)**2 log q at q = 1 / 2
    assert found["binary_cross_entropy"] == pytest.approx(math.log(1 + math.exp(2)))
    assert found["total"] == pytest.approx(found["focal"] + found["binary_cross_entropy"])


def test_a_plan_whose_terms_leave_a_target_out_is_refused():
    configuration = make_configuration(("ill", Kind.BINARY, ("no", "yes")))
    values = {**configuration.task_values, "ill.loss": "binary_cross_entropy"}
    with pytest.raises(IncompatibleError, match="target 'ill' is learned with 'binary_cross_entropy', and the terms of the loss "
                                                "are focal; write the loss of a target in the specification"):
        phases(replace(configuration, task_values=values, loss=Loss({"focal": 1.0})))


@pytest.mark.parametrize(("trained", "stages"), [("all", {0, 1, 2, 3}), ("last", {2, 3}), ("fresh", {3})])
def test_weights_that_training_starts_from_move_as_planned(trained, stages):
    start = Start("other.safetensors", "0" * 64, ("encoder.",), trained, 0.5 if trained == "all" else 1.0)
    configuration = make_configuration(("ill", Kind.BINARY, ("no", "yes")), start=start)
    network = build_network(configuration)
    phase, = phases(configuration)
    moved = {id(parameter) for parameter in phase.parameters(network)}
    stage = {id(p): int(name.split(".")[1]) if name.startswith("encoder.") else 3 for name, p in network.named_parameters()}
    assert {stage[key] for key in moved} == stages
    rates = {stage[id(p)]: rate for p, rate in zip(phase.parameters(network), phase.rates(network), strict=True)}
    assert rates == {place: (0.5 if trained == "all" else 1.0) ** (3 - place) for place in stages}
