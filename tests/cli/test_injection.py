"""Names that would be obeyed by a terminal, a log, a page or a spreadsheet."""

from __future__ import annotations

import ast
import json
import logging
from pathlib import Path

import pytest
from toy_tasks.datasets import SPECS, write_cases

from autoseg.cli.app import run
from autoseg.cli.screen import OneLine, Screen
from autoseg.core.errors import DatasetError

ROOT = Path(__file__).resolve().parents[2]
HOSTILE = "x\x1b]0;owned\x07\x1b[2J\rINFO all is well"


def test_what_is_said_cannot_move_the_cursor(capsys):
    screen = Screen("check", as_json=False)
    screen.say(f"case {HOSTILE}\nsecond line")
    screen.progress("check", 1, 1, HOSTILE)
    captured = capsys.readouterr()
    assert captured.out.splitlines() == ["case x\\x1b]0;owned\\x07\\x1b[2J\\rINFO all is well", "second line"]
    assert "\x1b" not in captured.err and "\r" not in captured.err


def test_a_message_of_the_log_is_one_line():
    record = logging.LogRecord("a", logging.WARNING, "f", 1, "%s is odd", (f"a\nERROR {HOSTILE}",), None)
    assert OneLine("%(levelname)s %(message)s").format(record) == (
        "WARNING a\\nERROR x\\x1b]0;owned\\x07\\x1b[2J\\rINFO all is well is odd")


def test_refusals_are_printable_and_json_keeps_them(tmp_path, capsys):
    folder = tmp_path / "odd\x1b[31m"
    assert run(["check", "-d", str(folder), "-i", str(folder), "--root", str(tmp_path / "home"), "--json"]) == 2
    captured = capsys.readouterr()
    assert "\x1b" not in captured.err and "\x1b" not in captured.out
    assert json.loads(captured.out)["error"]["code"] == "E_USAGE"


def test_names_that_are_not_utf8_do_not_break_the_screen(tmp_path, capsys):
    tmp_path.joinpath("spec.yaml").write_text(SPECS["segmentation"])
    write_cases(tmp_path, "segmentation")
    try:
        (tmp_path / "images" / "bad\udcff\x1b[31m.nii.gz").touch()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    arguments = ["check", "-d", str(tmp_path / "spec.yaml"), "-i", str(tmp_path), "--root", str(tmp_path / "home")]
    assert run(arguments) == 3
    text = capsys.readouterr().out
    assert "bad\\udcff\\x1b[31m" in text and "[E_FILE_NAME]" in text and "\x1b" not in text
    assert run([*arguments, "--json"]) == 3
    [problem] = json.loads(capsys.readouterr().out)["problems"]
    assert set(problem) == {"case", "code", "message"} and problem["code"] == "E_FILE_NAME"


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "=HYPERLINK(1)", "é"])
def test_names_without_control_characters_may_be_anything_and_are_shown_as_they_are(tmp_path, capsys, name):
    tmp_path.joinpath("spec.yaml").write_text(SPECS["segmentation"].replace("bright: 7", f'"{name}": 7'))
    write_cases(tmp_path, "segmentation")
    assert run(["check", "-d", str(tmp_path / "spec.yaml"), "-i", str(tmp_path), "--root", str(tmp_path / "home")]) == 0
    assert f"7 {name}" in capsys.readouterr().out


def test_one_module_writes_csv():
    """Cells that begin with = + - @ run in spreadsheets; `io.spreadsheet` escapes them, and nothing else writes tables."""
    writers = [path.name for path in (ROOT / "autoseg").rglob("*.py")
               for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
               if isinstance(node, ast.Attribute) and node.attr in ("writer", "DictWriter", "to_csv")]
    assert writers == ["spreadsheet.py"]


def test_errors_keep_their_lines(capsys):
    from autoseg.cli import app

    app._tell(str(DatasetError("two cases:\n  a: bad\n  b\x1b: bad")), "E_CASES", None, 3)
    assert capsys.readouterr().err == "autoseg: two cases:\n  a: bad\n  b\\x1b: bad\n"
