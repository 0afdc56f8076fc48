"""Bad folders of a classification as the commands see them: exit code, message, and nothing left behind."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from autoseg.cli.app import run

SPEC = """
name: ToyPictures
task: classification
inputs: [{role: image, channels: [X-ray]}]
layouts: [{name: toy, inputs: {image: ["images/{case}.png"]}}]
grouping: {table: labels.csv}
options: {targets: [{column: ill}, {column: size}]}
"""
ROWS = [f"c{number:02},{number % 2},{20 + 1.5 * number},{'train' if number % 5 else 'test'},p{number}" for number in range(20)]
HEAD = "case,ill,size,part,patient"


def write(path, pixels):
    Image.fromarray(pixels).save(path)


@pytest.fixture
def folder(tmp_path):
    """Twenty grey pictures with a table."""
    (tmp_path / "images").mkdir()
    for number in range(20):
        pixels = np.random.default_rng(number).integers(0, 256, (26, 22), np.uint8)
        write(tmp_path / "images" / f"c{number:02}.png", pixels)
    table(tmp_path, ROWS)
    (tmp_path / "spec.yaml").write_text(SPEC)
    return tmp_path


def table(folder, rows):
    (folder / "labels.csv").write_text("\n".join([HEAD, *rows]) + "\n")


def say(folder, more):
    (folder / "spec.yaml").write_text(SPEC.replace("options: {", f"options: {{{more}, "))


def checked(folder, capsys):
    """Exit code of `check`, and problems and warnings as (case, code, message)."""
    capsys.readouterr()
    code = run(["check", *common(folder)])
    document = json.loads(capsys.readouterr().out)
    found = [[(entry["case"], entry["code"], entry["message"]) for entry in document[name]] for name in ("problems", "warnings")]
    return code, *found


def planned(folder, capsys):
    """Exit code of `plan_and_preprocess`, and its JSON document."""
    capsys.readouterr()
    code = run(["plan_and_preprocess", *common(folder), "--target", "cpu", "--memory", "4GB", "-c", "resnet_small"])
    return code, json.loads(capsys.readouterr().out)


def common(folder):
    return ["-d", str(folder / "spec.yaml"), "-i", str(folder), "--root", str(folder / "home"), "--json"]


def assert_not_planned(folder, capsys, *words):
    code, document = planned(folder, capsys)
    assert code == 3 and all(word in document["error"]["message"] for word in words), document
    assert not list((folder / "home").glob("*/plans/*/plan.json")) and not list((folder / "home").glob("*/store/*/c*"))


def test_a_row_without_a_file_is_a_warning_and_the_others_are_planned(folder, capsys):
    table(folder, [*ROWS, "c99,1,33.5,train,p99"])
    code, problems, warnings = checked(folder, capsys)
    assert (code, problems) == (0, []) and [(case, code) for case, code, _ in warnings] == [("labels.csv", "W_NO_FILE")]
    assert "1 row of" in warnings[0][2] and "c99" in warnings[0][2]
    assert planned(folder, capsys)[0] == 0
    stored = {path.name.split(".")[0] for path in (folder / "home").glob("*/store/*/c*")}
    assert stored == {row.split(",")[0] for row in ROWS}


def test_a_file_without_a_row_stops_with_its_name(folder, capsys):
    table(folder, ROWS[:-1])
    code, [(case, problem, message)], _ = checked(folder, capsys)
    assert (code, case, problem) == (3, "c19", "E_NOT_IN_TABLE") and "labels.csv" in message and "exclude the case" in message
    assert_not_planned(folder, capsys, "c19", "labels.csv")


def test_a_colour_picture_among_grey_ones_stops_with_its_name(folder, capsys):
    pixels = np.random.default_rng(0).integers(0, 256, (26, 22, 3), np.uint8)
    write(folder / "images" / "c03.png", pixels)
    code, [(case, problem, message)], _ = checked(folder, capsys)
    assert (code, case, problem) == (3, "c03", "E_CHANNELS")
    assert "3 channels found, 1 expected" in message and "colour: luminance" in message
    assert_not_planned(folder, capsys, "c03", "3 channels found")


def test_a_grey_picture_that_was_saved_in_colours_is_read_and_said(folder, capsys):
    grey = np.random.default_rng(3).integers(0, 256, (26, 22, 1), np.uint8)
    write(folder / "images" / "c03.png", np.repeat(grey, 3, axis=2))
    code, problems, warnings = checked(folder, capsys)
    assert (code, problems) == (0, []) and [(case, code) for case, code, _ in warnings] == [("c03", "W_GREY")]


def test_a_picture_of_one_value_is_a_warning(folder, capsys):
    write(folder / "images" / "c03.png", np.full((26, 22), 7, np.uint8))
    code, problems, warnings = checked(folder, capsys)
    assert (code, problems) == (0, []) and [(case, code) for case, code, _ in warnings] == [("c03", "W_CONSTANT")]


def test_a_target_whose_cells_are_all_missing_stops(folder, capsys):
    table(folder, [",".join([row.split(",")[0], "nan", *row.split(",")[2:]]) for row in ROWS])
    code, problems, _ = checked(folder, capsys)
    assert code == 3 and [(case, code) for case, code, _ in problems] == [("target ill", "E_TARGET_EMPTY")]
    assert_not_planned(folder, capsys, "ill", "missing")


def test_a_class_of_one_patient_is_a_warning(folder, capsys):
    table(folder, [",".join([cells[0], "odd" if number == 4 else "abc"[number % 2], *cells[2:]])
                   for number, cells in enumerate(row.split(",") for row in ROWS)])
    code, problems, warnings = checked(folder, capsys)
    assert (code, problems) == (0, []) and "W_CLASS_ONCE" in [code for _, code, _ in warnings]


def test_a_given_split_that_divides_a_patient_stops(folder, capsys):
    say(folder, "official_split: {column: part, test: [test]}")
    (folder / "spec.yaml").write_text((folder / "spec.yaml").read_text().replace(
        "{table: labels.csv}", "{table: labels.csv, group_column: patient}"))
    assert checked(folder, capsys)[:2] == (0, [])
    table(folder, [row.replace(",p1", ",p0") if row.endswith(",p1") else row for row in ROWS])
    capsys.readouterr()
    assert run(["check", *common(folder)]) == 3
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "E_SPLIT_PATIENT" and "p0" in error["message"]
    assert_not_planned(folder, capsys, "p0", "both sides")
