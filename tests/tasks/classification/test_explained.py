"""Which output speaks for what was said, and with what probability."""

from __future__ import annotations

import math

import pytest
import torch
from tasks.classification.configurations import make_configuration

from autoseg.core.errors import UsageError
from autoseg.tasks.classification.explained import probabilities_for, require_known, what_was_said
from autoseg.tasks.classification.heads import heads_of
from autoseg.tasks.classification.kinds import Kind
from autoseg.tasks.classification.target import Answer, Reading

CONFIGURATION = make_configuration(
    ("ill", Kind.BINARY, ("no", "yes")), ("signs", Kind.MULTILABEL, ("x", "y", "z")), ("type", Kind.MULTICLASS, ("a", "b", "c")),
    ("grade", Kind.ORDINAL, ("low", "mid", "high")), ("size", Kind.CONTINUOUS, ()), weights={"ill": (4.0,)})
HEADS = heads_of(CONFIGURATION)  # outputs 0; 1 to 3; 4 to 6; 7 and 8; 9


def answer(ill=0.7, signs=(0.9, 0.2, 0.6), grade=(0.2, 0.3, 0.5)):
    return Answer((Reading("ill", Kind.BINARY, ("no", "yes"), (1 - ill, ill)),
                   Reading("signs", Kind.MULTILABEL, ("x", "y", "z"), signs),
                   Reading("type", Kind.MULTICLASS, ("a", "b", "c"), (0.2, 0.5, 0.3)),
                   Reading("grade", Kind.ORDINAL, ("low", "mid", "high"), grade), Reading("size", Kind.CONTINUOUS, value=7.0)))


def found(given, *asked):
    return [(said.text, said.output, said.against, said.probability) for said in what_was_said(given, HEADS, *asked)]


def test_what_was_decided_of_every_target_is_explained():
    assert found(answer())[:-1] == [
        ("ill: yes", 0, False, 0.7), ("signs: x", 1, False, 0.9), ("signs: z", 3, False, 0.6), ("type: b", 5, False, 0.5),
        ("grade: high or higher", 8, False, 0.5)]
    assert found(answer())[-1][:3] == ("size: value", 9, False) and math.isnan(found(answer())[-1][3])


def test_the_first_of_two_classes_and_the_lowest_grade_speak_against_their_output():
    said = found(answer(ill=0.25, grade=(0.6, 0.3, 0.1)))
    assert said[0] == ("ill: no", 0, True, 0.75) and said[4] == ("grade: low, none higher", 7, True, 0.6)


def test_without_any_label_the_most_probable_one_is_explained():
    assert found(answer(signs=(0.1, 0.4, 0.3)), "signs") == [("signs: y", 2, False, 0.4)]


def test_a_target_and_a_class_may_be_asked_for():
    assert found(answer(), "type", "c") == [("type: c", 6, False, 0.3)]
    assert found(answer(), None, "no") == [("ill: no", 0, True, pytest.approx(0.3))]


@pytest.mark.parametrize(("asked", "message"), [
    (("il", None), "target 'il' is not known.*Did you mean 'ill'"),
    (("ill", "x"), "class of target 'ill' 'x' is not known; known are no, yes"),
    ((None, "w"), "class 'w' is not known; known are"), (("size", "big"), "known are value")])
def test_unknown_names_are_refused(asked, message):
    with pytest.raises(UsageError, match=message):
        require_known(HEADS, *asked)


def test_names_that_are_known_pass():
    for asked in ((None, None), ("ill", "no"), (None, "z"), ("size", "value")):
        require_known(HEADS, *asked)


def test_probabilities_are_those_of_what_was_said():
    logits = torch.zeros(2, 10)
    logits[0, 0], logits[0, 5], logits[0, 7], logits[0, 8] = math.log(12), math.log(2), math.log(3), -math.log(3)
    shares = {said.text: probabilities_for(said)(logits) for said in what_was_said(answer(), HEADS) if said.place >= 0}
    assert shares["ill: yes"][0].tolist() == pytest.approx([0.75] * 10)  # odds of 12, of which the weight of the loss makes 3
    assert shares["type: b"][:, 0].tolist() == pytest.approx([0.5, 1 / 3])
    assert shares["grade: high or higher"][:, 0].tolist() == pytest.approx([0.25, 0.5])
    first = what_was_said(answer(ill=0.1, grade=(0.5, 0.3, 0.2)), HEADS)
    assert probabilities_for(first[0])(logits)[:, 0].tolist() == pytest.approx([0.25, 0.8])
    assert probabilities_for(first[4])(logits)[:, 0].tolist() == pytest.approx([0.25, 0.5])
    assert probabilities_for(first[5]) is None
