from __future__ import annotations

from collections import Counter

import pytest

from autoseg.core.case import Case
from autoseg.core.errors import DatasetError
from autoseg.core.spec import DatasetSpec, GroupingSpec
from autoseg.planning.splits import make_folds, shared_cases
from autoseg.tasks.registration.spec import index_units
from autoseg.tasks.registration.words import examine


def of(cases, grouping=None, **options):
    return index_units(DatasetSpec("d", "registration", (), options=options, grouping=grouping or GroupingSpec()), cases)


def cases(count, patient=lambda i: f"c{i:03d}"):
    return [Case(f"c{i:03d}", patient(i), {}) for i in range(count)]


def test_a_cohort_of_two_hundred_lists_a_thousand_pairs_of_which_a_fold_validates_about_forty():
    units = of(cases(200))
    assert len(units) == 1000 and set(Counter(unit.cases[0].id for unit in units).values()) == {5}
    assert all(unit.id == f"{unit.cases[1].id}_to_{unit.cases[0].id}" and unit.cases[0] != unit.cases[1] for unit in units)
    folds = make_folds(units)
    assert len(folds) == 5 and all(30 <= len(fold.validation) <= 50 for fold in folds)
    assert of(cases(200)[::-1]) == units


def test_a_small_cohort_lists_every_ordered_pair():
    assert len(of(cases(6))) == 30 and len(of(cases(6), pair_count=12)) == 12


def test_within_patients_the_fixed_image_is_named_by_a_pattern_or_comes_first():
    scans = [Case(f"p{i // 3}_t{i % 3}", f"p{i // 3}", {}) for i in range(6)]
    assert [unit.id for unit in of(scans, pairs="within_patient")] == [
        "p0_t1_to_p0_t0", "p0_t2_to_p0_t0", "p1_t1_to_p1_t0", "p1_t2_to_p1_t0"]
    assert [unit.id for unit in of(scans, pairs="within_patient", fixed="_t1$")][:2] == ["p0_t0_to_p0_t1", "p0_t2_to_p0_t1"]


def test_patients_of_images_to_predict_are_in_their_ids():
    scans = [Case(name, name, {}) for name in ("a_1", "a_2", "b_1")]
    assert [unit.id for unit in of(scans, GroupingSpec(pattern="^(.)_"), pairs="within_patient")] == ["a_2_to_a_1"]


def test_an_atlas_meets_every_case_and_folds_are_those_of_the_others():
    units = of(cases(11), pairs="atlas", atlas="c004")
    assert len(units) == 10 and all(unit.cases[1].id == "c004" for unit in units)
    assert [case.id for case in shared_cases(units)] == ["c004"]
    assert all(len(fold.train) == 8 for fold in make_folds(units))
    turned = of(cases(11), pairs="atlas", atlas="c004", atlas_is="fixed")
    assert all(unit.cases[0].id == "c004" and unit.group == unit.cases[1].id for unit in turned)
    with pytest.raises(DatasetError, match="c04"):
        of(cases(11), pairs="atlas", atlas="c04")


def in_folder(folder, *names):
    return [Case(name, name, {"image": (folder / "images" / f"{name}.nii.gz",)}) for name in names]


def test_a_table_above_the_images_lists_the_pairs(tmp_path):
    (tmp_path / "pairs.csv").write_text("fixed;moving\na;b\nc;a\n")
    assert [unit.id for unit in of(in_folder(tmp_path, "a", "b", "c"), pairs="table")] == ["b_to_a", "a_to_c"]


def test_a_table_beside_images_to_predict_decides_whatever_the_rule(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "pairs.csv").write_text("fixed,moving\nb,c\n")
    assert [unit.id for unit in of(in_folder(tmp_path, "a", "b", "c"))] == ["c_to_b"]


@pytest.mark.parametrize(("text", "said"), [("fixed,moving\na,d\n", "row 2.*'d'"), ("fixed,moving\na,a\n", "with itself"),
                                            ("fixed,to\na,b\n", "moving"), ("fixed,moving\na,b\na,b\n", "two pairs")])
def test_a_table_that_names_no_pairs_says_what_is_wrong(tmp_path, text, said):
    (tmp_path / "pairs.csv").write_text(text)
    with pytest.raises(DatasetError, match=said):
        of(in_folder(tmp_path, "a", "b", "c"), pairs="table")


def test_too_few_images_make_no_pair(tmp_path):
    with pytest.raises(DatasetError, match="make no pair"):
        of(cases(1))
    with pytest.raises(DatasetError, match="no table 'pairs.csv'"):
        of(in_folder(tmp_path, "a", "b"), pairs="table")


def test_labels_on_one_side_only_are_reported(tmp_path):
    held = [Case("a", "a", {}, {"label": tmp_path / "a.nii.gz"}), Case("b", "b", {})]
    [failure] = examine(of(held), DatasetSpec("d", "registration", ()))
    assert failure.code == "E_ONE_SIDED" and "b has none" in failure.message
    [failure] = examine(of(cases(2)), DatasetSpec("d", "registration", ()))
    assert failure.code == "W_NO_REFERENCE"
