from __future__ import annotations

import pytest

from autoseg.core.case import Unit
from autoseg.core.errors import DatasetError
from autoseg.io.values import read_value, write_value
from autoseg.planning.splits import Fold, together
from autoseg.stages.folds import Splits, dataset_folds

UNITS = [Unit(name, (), name) for name in "abcdefghij"]


def sides(folds, names):
    """How many of the names each fold validates."""
    return {len(set(names) & set(fold.validation)) for fold in folds}


def test_copies_join_their_patients_and_chains_of_them():
    units = [Unit("a1", (), "a"), Unit("a2", (), "a"), Unit("b1", (), "b"), Unit("c1", (), "c"), Unit("d1", (), "d")]
    joined = together(units, [("c1", "b1"), ("a2", "c1"), ("d1", "gone")])
    assert [unit.group for unit in joined] == ["a", "a", "a", "a", "d"]
    assert [unit.id for unit in joined] == [unit.id for unit in units]


def test_folds_that_divide_copies_are_made_anew_unless_somebody_edited_them(tmp_path):
    path = tmp_path / "splits.json"
    before = dataset_folds(path, UNITS, ())
    copies = [tuple(fold.validation[0] for fold in before[:3])]
    after = dataset_folds(path, UNITS, copies)
    assert sides(before, copies[0]) == {0, 1} and sides(after, copies[0]) == {0, 3}
    assert dataset_folds(path, UNITS, copies) == after
    edited = Splits((Fold(tuple("bcdefghij"), ("a",)),), "")
    write_value(path, edited)
    assert dataset_folds(path, UNITS, [("a", "b")]) == edited.folds


def test_folds_that_divide_a_patient_are_made_anew_where_the_grouping_was_changed(tmp_path):
    path = tmp_path / "splits.json"
    before = dataset_folds(path, UNITS, ())
    names = tuple(fold.validation[0] for fold in before[:3])
    grouped = [Unit(unit.id, (), "p" if unit.id in names else unit.id) for unit in UNITS]
    after = dataset_folds(path, grouped, ())
    assert sides(before, names) == {0, 1} and sides(after, names) == {0, 3}
    assert dataset_folds(path, grouped, ()) == after


def test_edited_folds_that_lack_a_case_have_a_code(tmp_path):
    path = tmp_path / "splits.json"
    write_value(path, Splits((Fold(("a",), ("b",)),), ""))
    with pytest.raises(DatasetError, match="hold each case once") as caught:
        dataset_folds(path, UNITS, ())
    assert caught.value.code == "E_FOLDS"


def test_copies_of_one_image_only_leave_no_fold(tmp_path):
    assert dataset_folds(tmp_path / "splits.json", UNITS[:2], [("a", "b")]) == ()
    assert read_value(tmp_path / "splits.json", Splits).is_generated
