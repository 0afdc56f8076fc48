from __future__ import annotations

import math

import pytest

from autoseg.core.errors import DatasetError
from autoseg.core.fingerprint import Fingerprint
from autoseg.tasks.classification.balance import count_targets, positive_weight, repeat_factor
from autoseg.tasks.classification.kinds import Kind
from autoseg.tasks.classification.spec import TargetOptions


def counted(cells, patients_with=None, **options):
    target = TargetOptions(**{"column": "x", **options})
    properties = {f"target.x={cell}": count for cell, count in cells.items()}
    return count_targets([target], Fingerprint((), (), (), (), ({},), properties, patients_with=patients_with or {}))[0]


def test_weights_are_the_clipped_root_of_the_odds():
    assert positive_weight(20, 100) == 2.0  # 80 / 20 = 4
    assert positive_weight(80, 100) == 1.0
    assert positive_weight(1, 1000) == 10.0 and positive_weight(0, 10) == 10.0


def test_two_classes():
    found = counted({"0": 75, "1": 25, "": 7})
    assert (found.counts, found.known, found.missing) == ((75, 25), 100, 7)
    assert found.weights == (pytest.approx(math.sqrt(3), abs=1e-3),)
    assert found.bias == (pytest.approx(math.log(25.5 / 75.5) + math.log(found.weights[0]), abs=1e-3),)
    assert found.repeats == ()


def test_several_classes_weigh_by_the_most_frequent():
    found = counted({"a": 400, "b": 100, "c": 4})
    assert found.weights == (1.0, 2.0, 10.0)
    assert sum(found.bias) == pytest.approx(0, abs=2e-3)
    assert found.bias[0] - found.bias[1] == pytest.approx(math.log(400.5 / 100.5) - math.log(2), abs=2e-3)
    # t = 1 / 12; c: sqrt(504 / 12 / 4) = 3.24
    assert found.repeats == (1.0, 1.0, pytest.approx(math.sqrt(504 / 48), abs=1e-3))


def test_several_labels_are_counted_one_by_one():
    found = counted({"A|B": 30, "A": 30, "none": 40}, negative=["none"])
    assert found.meaning.kind == Kind.MULTILABEL and found.counts == (60, 30) and found.known == 100
    assert found.weights == (1.0, pytest.approx(math.sqrt(70 / 30), abs=1e-3))


def test_grades_start_from_the_odds_of_every_threshold():
    found = counted({"1": 50, "2": 30, "3": 20}, kind="ordinal")
    assert found.weights == ()
    assert found.bias == pytest.approx((math.log(50.5 / 50.5), math.log(20.5 / 80.5)), abs=1e-3)


def test_values_start_from_their_mean():
    assert counted({"1.5": 2, "2.5": 2}).bias == (0.0,)


def test_classes_of_200_patients_are_not_repeated():
    assert repeat_factor(199, 100_000, 2, patients=199) == pytest.approx(math.sqrt(0.125 / 0.00199), abs=1e-3)
    assert repeat_factor(200, 100_000, 2, patients=200) == 1.0 and repeat_factor(0, 10, 2, patients=0) == 1.0
    # how often is a share of the units, whether at all a number of patients
    assert repeat_factor(400, 100_000, 2, patients=199) == pytest.approx(math.sqrt(0.125 / 0.004), abs=1e-3)


def test_units_of_one_patient_are_counted_once_beside_the_units():
    found = counted({"a": 4000, "b": 400}, {"known.x": 900, "class.x=a": 850, "class.x=b": 60})
    assert (found.counts, found.patients, found.known_patients) == ((4000, 400), (850, 60), 900)
    assert found.repeats == (1.0, pytest.approx(math.sqrt(0.125 / (400 / 4400)), abs=1e-3))
    assert counted({"a": 4000, "b": 400}).repeats == ()


@pytest.mark.parametrize(("cells", "code"), [({"": 5, "nan": 2}, "E_TARGET_EMPTY"), ({"0": 9}, "E_TARGET_CONSTANT"),
                                             ({"ill": 9}, "E_TARGET_CONSTANT"), ({}, "E_TARGET_EMPTY")])
def test_what_cannot_be_learned_is_an_error(cells, code):
    with pytest.raises(DatasetError) as error:
        counted(cells)
    assert error.value.code == code
