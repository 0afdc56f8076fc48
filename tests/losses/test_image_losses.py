"""Every loss of whole images: against loops, against its own differences, with missing truths and with extreme logits."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from losses.image_losses import (
    naive_binary,
    naive_cumulative,
    naive_focal,
    naive_hinges,
    naive_softmax,
    naive_squared,
)
from sklearn.metrics import hinge_loss

from autoseg.losses.binary import weighted_binary_cross_entropy
from autoseg.losses.focal import focal_loss
from autoseg.losses.hinge import crammer_singer, weston_watkins
from autoseg.losses.ordinal import cumulative_cross_entropy
from autoseg.losses.regression import squared_error
from autoseg.losses.softmax import softmax_cross_entropy

NAN = float("nan")
LOGITS = [[0.3, -2.0, 1.7], [4.0, 0.1, -0.6], [-1.2, 0.9, 0.4], [0.0, 2.5, -3.0], [1.1, 1.3, -0.2]]
TRUTHS = [[1.0, 0.0, 1.0], [NAN, 1.0, 0.0], [0.0, NAN, NAN], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
VALUES = [[2.5, 0.0, -1.0], [NAN, 3.0, 0.5], [0.25, NAN, NAN], [-4.0, 1.0, 0.0], [0.0, 7.0, 1.0]]
CLASSES = [2, 0, -1, 1, 1]
GRADES = [3, 0, -1, 1, 2]
WEIGHTS = [2.0, 0.5, 3.0]

BY_VALUES = {
    "binary": (partial(weighted_binary_cross_entropy, positive_weights=torch.tensor(WEIGHTS)),
               partial(naive_binary, weights=WEIGHTS), TRUTHS),
    "focal": (partial(focal_loss, gamma=2.0, alpha=0.25), partial(naive_focal, gamma=2.0, alpha=0.25), TRUTHS),
    "focal_root": (partial(focal_loss, gamma=0.5, alpha=0.6), partial(naive_focal, gamma=0.5, alpha=0.6), TRUTHS),
    "squared": (squared_error, naive_squared, VALUES),
}
BY_CLASS = {
    "softmax": (partial(softmax_cross_entropy, class_weights=None), partial(naive_softmax, weights=[1.0] * 3, smoothing=0.0),
                CLASSES),
    "weighted_softmax": (partial(softmax_cross_entropy, class_weights=torch.tensor(WEIGHTS), label_smoothing=0.1),
                         partial(naive_softmax, weights=WEIGHTS, smoothing=0.1), CLASSES),
    "crammer_singer": (crammer_singer, partial(naive_hinges, gather=max, squared=False), CLASSES),
    "squared_hinge": (partial(crammer_singer, squared=True), partial(naive_hinges, gather=max, squared=True), CLASSES),
    "weston_watkins": (weston_watkins, partial(naive_hinges, gather=sum, squared=False), CLASSES),
    "squared_sum": (partial(weston_watkins, squared=True), partial(naive_hinges, gather=sum, squared=True), CLASSES),
    "cumulative": (cumulative_cross_entropy, naive_cumulative, GRADES),
}
ALL = BY_VALUES | BY_CLASS


@pytest.mark.parametrize("name", ALL)
def test_a_loss_is_that_of_loops_and_missing_truths_do_not_count(name):
    loss, naive, truths = ALL[name]
    assert float(loss(torch.tensor(LOGITS), torch.tensor(truths))) == pytest.approx(naive(LOGITS, truths), rel=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_gradients_are_those_of_differences(name):
    loss, naive, truths = ALL[name]
    logits = torch.tensor(LOGITS, requires_grad=True)
    loss(logits, torch.tensor(truths)).backward()
    for row in range(len(LOGITS)):
        for column in range(3):
            ahead, behind = [list(r) for r in LOGITS], [list(r) for r in LOGITS]
            ahead[row][column] += 1e-4
            behind[row][column] -= 1e-4
            slope = (naive(ahead, truths) - naive(behind, truths)) / 2e-4
            assert float(logits.grad[row, column]) == pytest.approx(slope, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_where_all_is_missing_the_loss_is_0_with_a_gradient_of_0(name):
    loss = ALL[name][0]
    truths = torch.full((5, 3), NAN) if name in BY_VALUES else torch.full((5,), -1)
    logits = torch.tensor(LOGITS, requires_grad=True)
    value = loss(logits, truths)
    value.backward()
    assert value.item() == 0 and torch.equal(logits.grad, torch.zeros(5, 3))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("scale", [1e4, 1e-30])
def test_extreme_logits_give_finite_losses_and_gradients(name, scale):
    loss, _, truths = ALL[name]
    logits = (torch.tensor(LOGITS) * scale).requires_grad_()
    value = loss(logits, torch.tensor(truths))
    value.backward()
    assert math.isfinite(value.item()) and bool(torch.isfinite(logits.grad).all())


@pytest.mark.parametrize("name", ALL)
def test_logits_of_half_precision_are_taken_as_float32(name):
    loss, _, truths = ALL[name]
    halves = torch.tensor(LOGITS).bfloat16()
    value = loss(halves, torch.tensor(truths))
    assert value.dtype == torch.float32 and value == loss(halves.float(), torch.tensor(truths))


def test_a_missing_truth_has_no_gradient_even_beside_extreme_logits():
    logits = torch.tensor([[3e38, 1.0]], requires_grad=True)
    weighted_binary_cross_entropy(logits, torch.tensor([[NAN, 1.0]]), torch.ones(2)).backward()
    assert logits.grad[0, 0] == 0 and logits.grad[0, 1] != 0


def test_crammer_singer_is_the_hinge_of_scikit_learn():
    known = [row for row, label in zip(LOGITS, CLASSES, strict=True) if label >= 0]
    labels = [label for label in CLASSES if label >= 0]
    assert float(crammer_singer(torch.tensor(LOGITS), torch.tensor(CLASSES))) == pytest.approx(
        hinge_loss(labels, known, labels=[0, 1, 2]))


def test_hinge_by_hand():
    """The other logits lack 1 + 1.5 - 2 = 0.5 and 1 + 0 - 2 < 0: one violation; for class 2, 3 and 2.5."""
    logits = torch.tensor([[2.0, 1.5, 0.0], [2.0, 1.5, 0.0]])
    classes = torch.tensor([0, 2])
    assert crammer_singer(logits, classes) == pytest.approx((0.5 + 3) / 2)
    assert weston_watkins(logits, classes) == pytest.approx((0.5 + 5.5) / 2)


def test_focal_loss_without_focus_is_half_the_cross_entropy():
    logits, truths = torch.tensor(LOGITS), torch.tensor(TRUTHS)
    assert focal_loss(logits, truths, 0.0, 0.5) == pytest.approx(
        0.5 * weighted_binary_cross_entropy(logits, truths, torch.ones(3)).item())


def test_the_weight_of_a_class_counts_in_a_batch_of_that_class_alone():
    logits, classes = torch.tensor(LOGITS[:2]), torch.tensor([2, 2])
    plain = softmax_cross_entropy(logits, classes, None)
    assert softmax_cross_entropy(logits, classes, torch.tensor(WEIGHTS)) == pytest.approx(3 * plain.item())
