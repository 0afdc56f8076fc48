from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.model_selection import KFold

from autoseg.core.case import Unit
from autoseg.core.errors import DatasetError
from autoseg.planning.splits import make_folds


def units(count, group=lambda i: f"p{i}", stratum=lambda i: None):
    return [Unit(f"case_{i:03d}", (), group(i), stratum(i)) for i in range(count)]


@pytest.mark.parametrize("count", [5, 11, 200])
def test_folds_of_single_patients_are_those_of_nnunet(count):
    ids = np.array([f"case_{i:03d}" for i in range(count)])
    expected = [(tuple(ids[train]), tuple(ids[validation]))
                for train, validation in KFold(5, shuffle=True, random_state=12345).split(ids)]
    assert [(fold.train, fold.validation) for fold in make_folds(units(count))] == expected


def test_the_order_in_which_units_come_does_not_matter():
    assert make_folds(units(23)[::-1]) == make_folds(units(23))


@pytest.mark.parametrize("made", [
    units(40, group=lambda i: f"p{i // 3}"),
    units(40, group=lambda i: f"p{i // 3}", stratum=lambda i: "ab"[i // 3 % 2]),
    units(40, stratum=lambda i: "ab"[i % 2]),
    units(12, stratum=lambda i: str(i % 6)),  # no stratum reaches every fold
    units(30, stratum=lambda i: "rare" if i == 0 else "usual"),
])
def test_validation_parts_divide_the_units_and_no_patient_is_on_both_sides(made):
    group = {unit.id: unit.group for unit in made}
    folds = make_folds(made)
    assert len(folds) == 5
    assert sorted(i for fold in folds for i in fold.validation) == sorted(group)
    for fold in folds:
        assert fold.validation
        assert set(fold.train) | set(fold.validation) == set(group)
        assert not {group[i] for i in fold.train} & {group[i] for i in fold.validation}


def test_each_stratum_is_spread_evenly_over_the_folds():
    folds = make_folds(units(50, stratum=lambda i: "rare" if i % 5 == 0 else "usual"))
    assert [sum(int(i[-3:]) % 5 == 0 for i in fold.validation) for fold in folds] == [2, 2, 2, 2, 2]


def test_a_rare_stratum_warns_nobody():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_folds(units(30, stratum=lambda i: "rare" if i == 0 else "usual"))


def test_fewer_patients_than_folds_leave_one_patient_out_each():
    folds = make_folds(units(7, group=lambda i: "abc"[i % 3]))
    assert sorted(fold.validation for fold in folds) == [
        ("case_000", "case_003", "case_006"), ("case_001", "case_004"), ("case_002", "case_005")]


def test_one_patient_cannot_be_cross_validated():
    with pytest.raises(DatasetError, match="3 case.* of 1.*-f all"):
        make_folds(units(3, group=lambda i: "p"))
