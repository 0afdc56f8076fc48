"""The loss of a target follows from its kind, or from the specification where it suits the kind."""

from __future__ import annotations

import pytest
from pydantic import ValidationError
from tasks.classification.sets import make_spec, make_units

from autoseg.core.errors import DatasetError
from autoseg.tasks.classification.kinds import Kind, Meaning
from autoseg.tasks.classification.objectives import LOSSES, planned_loss
from autoseg.tasks.classification.spec import ClassificationOptions, TargetOptions
from autoseg.tasks.classification.step import loss_terms
from autoseg.tasks.classification.words import examine


def planned(kind, patients=100, **options):
    return planned_loss(TargetOptions(column="t", **options), Meaning("t", kind, ("a", "b", "c")), patients)


@pytest.mark.parametrize(("kind", "loss"), [
    (Kind.BINARY, "binary_cross_entropy"), (Kind.MULTILABEL, "binary_cross_entropy"), (Kind.MULTICLASS, "softmax_cross_entropy"),
    (Kind.ORDINAL, "cumulative_cross_entropy"), (Kind.CONTINUOUS, "squared_error")])
def test_every_kind_has_a_loss(kind, loss):
    assert planned(kind) == loss


def test_several_classes_of_many_patients_are_smoothed_unless_another_loss_is_asked_for():
    assert planned(Kind.MULTICLASS, 1_000) == "softmax_cross_entropy"
    assert planned(Kind.MULTICLASS, 1_001) == "smoothed_cross_entropy"
    assert planned(Kind.MULTICLASS, 1_001, loss="hinge") == "hinge"
    assert planned(Kind.MULTILABEL, loss="focal") == "focal"


def test_a_loss_that_does_not_suit_the_kind_is_refused_with_those_that_do():
    with pytest.raises(DatasetError, match="'t' is ordinal, and its loss 'focal' suits binary and multilabel targets; write one "
                                           "of cumulative_cross_entropy, or") as error:
        planned(Kind.ORDINAL, loss="focal")
    assert error.value.code == "E_TARGET_LOSS"


def test_check_lists_it():
    spec = make_spec({"column": "ill", "loss": "hinge"})
    assert [failure.code for failure in examine(make_units(spec, ill=[0, 1] * 10), spec)] == ["E_TARGET_LOSS"]


def test_a_loss_that_does_not_exist_is_refused():
    with pytest.raises(ValidationError, match="focal"):
        ClassificationOptions(targets=[{"column": "t", "loss": "vocal"}])


def test_every_loss_can_be_trained_with_and_written_in_a_specification():
    assert loss_terms().keys() == LOSSES.keys()
    assert [TargetOptions(column="t", loss=name).loss for name in LOSSES] == list(LOSSES)
