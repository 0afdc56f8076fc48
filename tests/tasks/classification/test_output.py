from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from tasks.classification.configurations import make_configuration
from tasks.classification.sets import binary, make_spec
from torch import nn

from autoseg.core.errors import ReadError
from autoseg.core.task import Context
from autoseg.tasks.classification.heads import Head
from autoseg.tasks.classification.kinds import Kind
from autoseg.tasks.classification.output import (
    infer,
    probabilities_of,
    read_prediction,
    reading_of,
    restore,
    row,
    write_prediction,
)
from autoseg.tasks.classification.target import Answer, Reading

SPEC = make_spec("ill")


class Sums(nn.Module):
    """Two logits: the sum of the image, and the sum of its left half."""

    def __init__(self, factor=1.0):
        super().__init__()
        self.factor = factor

    def forward(self, image):
        half = image.shape[-1] // 2
        return self.factor * torch.stack([image.flatten(1).sum(1), image[..., :half].flatten(1).sum(1)], dim=1)


CONFIGURATION = make_configuration(("signs", Kind.MULTILABEL, ("x", "y")), size=(1, 2, 4))


def picture(*values):
    return np.array(values, np.float32).reshape(1, 1, 2, 4)


def test_logits_are_means_over_members():
    found = infer([Sums(1.0), Sums(3.0)], {"image": picture(*range(8))}, CONFIGURATION, Context())
    np.testing.assert_allclose(found, [2 * 28, 2 * (0 + 1 + 4 + 5)])


def test_logits_are_means_over_the_images_of_an_exam():
    inputs = {"image": picture(*range(8)), "image@1": picture(*[1] * 8), "image@2": picture(*[0] * 8)}
    np.testing.assert_allclose(infer([Sums()], inputs, CONFIGURATION, Context()), [(28 + 8) / 3, (10 + 4) / 3], rtol=1e-6)


def test_mirroring_averages_all_flips():
    # the left half sums to 10, mirrored left to right to 18; flipping rows changes no sum
    np.testing.assert_allclose(infer([Sums()], {"image": picture(*range(8))}, CONFIGURATION, Context(mirror=True)), [28, 14])


def test_several_roles_are_channels():
    class Channels(nn.Module):
        def forward(self, image):
            return image.sum((2, 3))

    inputs = {"a": picture(*[1] * 8), "b": picture(*[2] * 8)}
    np.testing.assert_allclose(infer([Channels()], inputs, CONFIGURATION, Context()), [8, 16])


def test_probabilities_of_every_kind():
    logit = math.log(3.0)  # a probability of 3/4
    assert probabilities_of(Kind.BINARY, np.array([logit])) == pytest.approx((0.25, 0.75))
    assert probabilities_of(Kind.MULTILABEL, np.array([logit, -logit])) == pytest.approx((0.75, 0.25))
    assert probabilities_of(Kind.MULTICLASS, np.log([1.0, 2.0, 5.0])) == pytest.approx((1 / 8, 2 / 8, 5 / 8))
    assert probabilities_of(Kind.ORDINAL, np.array([logit, -logit])) == pytest.approx((0.25, 0.5, 0.25))


def test_grades_whose_thresholds_cross_have_no_negative_probability():
    assert probabilities_of(Kind.ORDINAL, np.array([-1.0, 1.0]))[1] == 0.0


def test_weights_of_the_loss_are_taken_back():
    # with a weight of 4 a loss is smallest at odds of 4 p / (1 - p); logit 0 then means odds of 1 to 4
    head = Head("ill", Kind.BINARY, ("no", "yes"), range(1), range(1), weights=(4.0,))
    assert reading_of(head, np.array([0.0])).probabilities == pytest.approx((0.8, 0.2))
    several = Head("t", Kind.MULTICLASS, ("a", "b"), range(2), range(1), weights=(1.0, 3.0))
    assert reading_of(several, np.array([0.0, 0.0])).probabilities == pytest.approx((0.75, 0.25))


def test_values_come_back_in_their_own_unit():
    configuration = make_configuration(("ill", Kind.BINARY, ("no", "yes")), ("size", Kind.CONTINUOUS, ()), mean=10.0, std=2.0)
    answer = restore(np.array([0.0, 1.5], np.float32), None, configuration, Context())
    assert answer.reading("size").value == 13.0 and answer.reading("ill").probabilities == (0.5, 0.5)


ANSWER = Answer((
    *binary(0.3, thresholds=(0.2,), logits=(-0.85,)).readings,
    Reading("signs", Kind.MULTILABEL, ("x", "y"), (0.9, 0.1), logits=(2.2, -2.2)),
    Reading("grade", Kind.ORDINAL, ("1", "2", "3"), (0.2, 0.5, 0.3)), Reading("size", Kind.CONTINUOUS, value=13.0, std=2.0)),
    refined=("thresholds",))


def test_a_prediction_comes_back_from_its_file(tmp_path):
    path, = write_prediction(ANSWER, SPEC, None, tmp_path / "unit.1")
    assert path == tmp_path / "unit.1.json"
    assert read_prediction(path, SPEC) == read_prediction(tmp_path / "unit.1", SPEC) == ANSWER
    written = json.loads(path.read_text())["targets"]
    assert (written["ill"]["decided"], written["signs"]["decided"], written["grade"]["decided"]) == ("yes", ["x"], "2")


@pytest.mark.parametrize("text", ['{"format": 1}', '{"format": 9, "refined": [], "targets": {}}', "[]",
                                  '{"format": 1, "refined": [], "targets": {"a": {"kind": "guess", "logits": []}}}',
                                  '{"format": 1, "refined": [], "targets": {"a": {"kind": "binary", "logits": [], '
                                  '"probabilities": {"x": 2, "y": -1}}}}'])
def test_a_file_that_is_no_prediction_is_refused(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ReadError):
        read_prediction(tmp_path / "a.json", SPEC)


def test_a_row_says_what_was_decided():
    assert row(ANSWER, SPEC) == {
        "ill": "yes", "ill.yes.probability": 0.3, "ill.threshold": 0.2, "signs": "x", "signs.x.probability": 0.9,
        "signs.y.probability": 0.1, "grade": "2", "grade.1.probability": 0.2, "grade.2.probability": 0.5,
        "grade.3.probability": 0.3, "size": 13.0}
