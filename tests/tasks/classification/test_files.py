from __future__ import annotations

import pytest
from tasks.classification.sets import binary, make_spec

from autoseg.core.errors import DatasetError
from autoseg.tasks.classification.files import compare
from autoseg.tasks.classification.output import write_prediction

SPEC = make_spec({"column": "ill", "classes": {"0": "no", "1": "yes"}})


@pytest.fixture
def predictions(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    for name, probability in (("a", 0.9), ("b", 0.2)):
        write_prediction(binary(probability), SPEC, None, folder / name)
    return folder


def table(tmp_path, text):
    (tmp_path / "truth.csv").write_text(text)
    return tmp_path / "truth.csv"


def test_rows_of_a_table_are_compared_by_case(tmp_path, predictions):
    pairs = compare(predictions, table(tmp_path, "case,ill\na.png,1\nb,1\n"), SPEC)
    assert [(pair.unit, pair.group) for pair in pairs] == [("a", "a"), ("b", "b")]
    assert [pair.score()["ill.yes.probability"] for pair in pairs] == [0.9, 0.2]
    assert [pair.score()["ill.truth"] for pair in pairs] == [1.0, 1.0]


def test_cells_are_read_in_the_words_of_the_prediction(tmp_path, predictions):
    # the table knows one class only; the prediction knows two
    pairs = compare(predictions, table(tmp_path, "case,ill\na,0\nb,0\n"), SPEC)
    assert [pair.score()["ill.truth"] for pair in pairs] == [0.0, 0.0]


def test_a_class_never_seen_in_training_is_an_error_of_its_case(tmp_path, predictions):
    pairs = compare(predictions, table(tmp_path, "case,ill\na,1\nb,unsure\n"), SPEC)
    assert pairs[0].score()["ill.truth"] == 1.0
    with pytest.raises(DatasetError, match="case b: 'unsure' in column 'ill' is no class of 'ill', which knows no, yes") as error:
        pairs[1].score()
    assert error.value.code == "E_CLASS_UNKNOWN"


def test_a_row_without_a_prediction_is_an_error_of_its_case(tmp_path, predictions):
    _, _, third = compare(predictions, table(tmp_path, "case,ill\na,1\nb,0\nc,0\n"), SPEC)
    with pytest.raises(DatasetError, match=r"no prediction \(looked for c.json") as error:
        third.score()
    assert error.value.code == "E_MISSING_PREDICTION"


def test_the_official_test_part_is_compared_alone(tmp_path, predictions):
    spec = make_spec({"column": "ill", "classes": {"0": "no", "1": "yes"}}, official_split={"column": "split", "test": ["test"]})
    pairs = compare(predictions, table(tmp_path, "case,ill,split\na,1,train\nb,0,test\n"), spec)
    assert [pair.unit for pair in pairs] == ["b"]


@pytest.mark.parametrize(("text", "message"), [
    ("case,ill\nx,1\n", "none of the 2 predictions"), ("name,ill\na,1\n", "column 'case' is not known"),
    ("case,ill\na,1\na.png,0\n", "row 3 is a second one for 'a'")])
def test_a_table_that_does_not_fit_is_an_error(tmp_path, predictions, text, message):
    with pytest.raises(DatasetError, match=message):
        compare(predictions, table(tmp_path, text), SPEC)


def test_references_are_a_table_or_a_folder(tmp_path, predictions):
    (tmp_path / "truth.json").write_text("{}")
    with pytest.raises(DatasetError, match="neither a table"):
        compare(predictions, tmp_path / "truth.json", SPEC)
