from __future__ import annotations

import pytest

from autoseg.core.case import Case, Unit
from autoseg.core.errors import DatasetError
from autoseg.io.values import read_value, write_value
from autoseg.planning.splits import Fold, together
from autoseg.stages.folds import Splits, dataset_folds

UNITS = [Unit(name, (Case(name, name, {}),), name) for name in "abcdefghij"]


def pairs(patients, *, atlas=None):
    """Ordered pairs of the cases of these patients, or each of them with the atlas."""
    moving = patients if atlas is None else [atlas]
    return [Unit(f"{b}_to_{a}", (Case(a, a, {}), Case(b, b, {})), a) for a in patients for b in moving if a != b]


def patients_in(names):
    return {patient for name in names for patient in name.split("_to_")}


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


def test_folds_of_pairs_are_made_of_the_patients_of_their_cases(tmp_path):
    units = pairs("abcdefghij")
    folds = dataset_folds(tmp_path / "splits.json", units, ())
    assert len(folds) == 5
    for fold in folds:
        held_out = patients_in(fold.validation)
        assert len(held_out) == 2 and not held_out & patients_in(fold.train)
        assert len(fold.validation) == 2 and len(fold.train) == 8 * 7  # all pairs within each side, none across
    assert set.union(*(patients_in(fold.validation) for fold in folds)) == set("abcdefghij")
    assert dataset_folds(tmp_path / "splits.json", units, ()) == folds


def test_pairs_of_few_patients_have_as_many_folds_as_have_pairs_on_both_sides(tmp_path):
    folds = dataset_folds(tmp_path / "four.json", pairs("abcd"), ())
    assert sorted(len(fold.train) + len(fold.validation) for fold in folds) == [4, 4]
    assert dataset_folds(tmp_path / "three.json", pairs("abc"), ()) == ()


def test_an_atlas_that_is_in_every_pair_divides_none(tmp_path):
    units = pairs("abcdefghij", atlas="z")
    folds = dataset_folds(tmp_path / "splits.json", units, ())
    assert sorted(name for fold in folds for name in fold.validation) == sorted(unit.id for unit in units)
    assert all(len(fold.train) + len(fold.validation) == len(units) for fold in folds)


def test_copies_of_an_image_keep_its_pairs_on_one_side(tmp_path):
    path, units = tmp_path / "splits.json", pairs("abcdefghij")
    before = dataset_folds(path, units, ())
    copies = [tuple(sorted(patients_in(before[0].validation))[:1] + sorted(patients_in(before[1].validation))[:1])]
    after = dataset_folds(path, units, copies)
    assert before != after
    for fold in after:
        sides = [set(copies[0]) & patients_in(part) for part in (fold.train, fold.validation)]
        assert not all(sides)


def test_edited_folds_of_pairs_may_leave_out_only_pairs_on_both_sides(tmp_path):
    path, units = tmp_path / "splits.json", pairs("abcd")
    whole = Fold(("a_to_b", "b_to_a"), ("c_to_d", "d_to_c"))
    write_value(path, Splits((whole,), ""))
    assert dataset_folds(path, units, ()) == (whole,)
    write_value(path, Splits((Fold(whole.train, ("c_to_d",)),), ""))
    with pytest.raises(DatasetError, match="neither where its patients are on both sides"):
        dataset_folds(path, units, ())
