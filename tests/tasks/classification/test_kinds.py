from __future__ import annotations

from dataclasses import replace

import pytest

from autoseg.core.errors import DatasetError
from autoseg.tasks.classification.kinds import Kind, meanings_in, read_cell, understand, with_meanings
from autoseg.tasks.classification.spec import TargetOptions


def understood(cells, **options):
    counts = dict.fromkeys(cells, 10) if not isinstance(cells, dict) else cells
    return understand(TargetOptions(**{"column": "finding", **options}), counts)


@pytest.mark.parametrize(("cells", "options", "kind", "classes"), [
    (["0", "1"], {}, Kind.BINARY, ("0", "1")),
    (["1.0", "0.0", ""], {}, Kind.BINARY, ("0", "1")),
    (["1", "0", "-1"], {}, Kind.BINARY, ("0", "1")),
    (["malignant", "benign"], {}, Kind.BINARY, ("benign", "malignant")),
    (["ill", "well"], {"negative": ["well"]}, Kind.BINARY, ("well", "ill")),
    (["0", "1", "2"], {}, Kind.MULTICLASS, ("0", "1", "2")),
    (["10", "9", "2"], {}, Kind.MULTICLASS, ("2", "9", "10")),
    (["0", "1", "2"], {"column": "KL"}, Kind.ORDINAL, ("0", "1", "2")),
    (["1", "2", "3"], {"column": "tumour_grade"}, Kind.ORDINAL, ("1", "2", "3")),
    (["low", "high", "mid"], {"order": ["low", "mid", "high"]}, Kind.ORDINAL, ("low", "mid", "high")),
    (["1.5", "2.5", "3"], {}, Kind.CONTINUOUS, ()),
    (["A|B", "B", "No Finding"], {"negative": ["No Finding"], "fewest": 1}, Kind.MULTILABEL, ("A", "B")),
    (["3", "4"], {"classes": {3: "small", 4: "large"}}, Kind.BINARY, ("small", "large")),
    (["b", "a", "c"], {"classes": ["c", "b", "a"]}, Kind.MULTICLASS, ("c", "b", "a")),
])
def test_cells_decide_what_a_target_is(cells, options, kind, classes):
    meaning = understood(cells, **options)
    assert (meaning.kind, meaning.classes) == (kind, classes)


def test_more_whole_numbers_than_twenty_and_the_root_of_the_cases_are_values():
    ages = {str(age): 10 for age in range(20, 41)}
    assert understood(ages).kind == Kind.CONTINUOUS
    assert understood({age: 30 for age in ages}).kind == Kind.MULTICLASS  # 630 cases, whose root is 25


def test_a_value_has_the_mean_and_deviation_of_its_cells():
    meaning = understood({"1.5": 1, "2.5": 2, "5.5": 1})
    assert (meaning.mean, meaning.std) == pytest.approx((3.0, 1.5))  # deviations 1.5, 0.5, 0.5, 2.5: (2.25+0.5+6.25)/4 = 2.25


def test_rare_labels_are_left_out_unless_they_are_listed():
    cells = {"A|B": 9, "A": 5, "": 3}
    assert understood(cells).classes == ("A",)
    assert understood(cells, classes=["A", "B"]).classes == ("A", "B")


def test_texts_of_too_many_kinds_are_no_classes():
    with pytest.raises(DatasetError, match="30 different texts in 30 cases") as error:
        understood({f"note {number}": 1 for number in range(30)})
    assert error.value.code == "E_TARGET_TEXT"


def test_a_binary_target_has_two_classes():
    with pytest.raises(DatasetError, match="to be binary, and column 'finding' has the classes a, b, c"):
        understood(["a", "b", "c"], kind="binary")


@pytest.mark.parametrize(("cell", "said"), [("1", (0.0, 1.0)), ("0.0", (1.0, 0.0)), ("", None), ("NaN", None), ("-1", None),
                                            (None, None), (" 1 ", (0.0, 1.0))])
def test_a_cell_of_two_classes(cell, said):
    target = TargetOptions(column="x")
    assert read_cell(cell, target, understand(target, {"0": 3, "1": 3, "-1": 1})) == said


def test_a_cell_of_several_labels():
    target = TargetOptions(column="x", negative=("none",), classes={"A": "a", "B": "b"}, kind="multilabel")
    meaning = understand(target, {"A": 1})
    assert read_cell("B|A", target, meaning) == (1.0, 1.0)
    assert read_cell("none", target, meaning) == (0.0, 0.0)
    with pytest.raises(DatasetError, match="'C' in column 'x' is no class"):
        read_cell("A|C", target, meaning)


def test_an_empty_cell_can_be_a_class_where_the_specification_says_so():
    classes = {"0.0": "absent", "": "absent", "1.0": "present"}
    target = TargetOptions(column="x", kind="binary", missing=("-1.0",), classes=classes)
    meaning = understand(target, {"": 5, "1.0": 2, "-1.0": 1})
    assert meaning.classes == ("absent", "present")
    assert [read_cell(cell, target, meaning) for cell in ("", "1", "-1.0")] == [(1.0, 0.0), (0.0, 1.0), None]


def test_a_cell_that_is_no_class_is_an_error():
    target = TargetOptions(column="x", classes={"a": "a", "b": "b"})
    with pytest.raises(DatasetError, match="'c' in column 'x' is no class of 'x', which knows a, b") as error:
        read_cell("c", target, understand(target, {"a": 1, "b": 1}))
    assert error.value.code == "E_CLASS_UNKNOWN"


def test_cases_carry_what_their_columns_mean():
    meaning = understood({"1.5": 1, "2.5": 1})
    # but not why: counts of other cases are no part of a case
    assert meanings_in(with_meanings({"finding": "1.5"}, [meaning])) == (replace(meaning, because=""),)
    assert meanings_in({"finding": "1.5"}) == ()
