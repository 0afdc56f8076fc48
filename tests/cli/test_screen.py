"""Progress without a terminal: few lines, and times that can be believed."""

from __future__ import annotations

import pytest

from autoseg.cli import screen
from autoseg.cli.screen import Screen, duration


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets, and a standard error that is no terminal."""
    now = [1000.0]
    monkeypatch.setattr(screen.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(screen.sys.stderr, "isatty", lambda: False)
    return now


def lines_of(capsys, clock, total: int, seconds_per_step: float, first: int = 1) -> list[str]:
    shown = Screen("train", as_json=False)
    for done in range(first, total + 1):
        shown.progress("preprocess", done, total, f"case{done}")
        clock[0] += seconds_per_step
    return capsys.readouterr().err.splitlines()


@pytest.mark.parametrize(("total", "seconds"), [(5000, 0.5), (200_000, 0.2), (1000, 60.0), (30, 3600.0)])
def test_a_long_stage_writes_some_dozens_of_lines_at_most(capsys, clock, total, seconds):
    lines = lines_of(capsys, clock, total, seconds)
    assert 15 <= len(lines) <= screen.LINES_PER_STAGE + 5
    assert lines[-1] == f"preprocess: {total:,}/{total:,} case{total}"


def test_a_quick_stage_writes_only_its_end(capsys, clock):
    assert lines_of(capsys, clock, 300, 0.01) == ["preprocess: 300/300 case300"]


def test_lines_name_the_case_and_the_time_left(capsys, clock):
    # 1000 steps of 6 s: a line every 240 s, the first one after 40 more steps, with 959 steps to go
    assert lines_of(capsys, clock, 1000, 6.0)[0] == "preprocess: 41/1,000, 96 min left case41"


def test_steps_of_an_earlier_run_do_not_make_the_rest_seem_quick(capsys, clock):
    # resumed at step 901 of 1000: the first line after 495 s / 25, then 95 steps of 5 s are left
    assert lines_of(capsys, clock, 1000, 5.0, first=901)[0] == "preprocess: 905/1,000, 8 min left case905"


def test_a_stage_that_comes_again_begins_anew(capsys, clock):
    shown = Screen("train", as_json=False)
    for _ in range(2):
        for done in (1, 2):
            shown.progress("baseline", done, 2, "")
            clock[0] += 20.0
    assert capsys.readouterr().err.splitlines() == ["baseline: 2/2"] * 2


@pytest.mark.parametrize(("seconds", "text"), [
    (0.4, "0 s"), (99.0, "99 s"), (100.0, "2 min"), (5940.0, "99 min"), (6000.0, "1 h 40 min"), (11_100.0, "3 h 05 min"),
    (187_200.0, "2 d 4 h")])
def test_durations_are_written_in_the_units_that_matter(seconds, text):
    assert duration(seconds) == text
