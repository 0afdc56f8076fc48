"""What the user sees: progress on standard error, results on standard output, as text or as one JSON document."""

from __future__ import annotations

import json
import logging
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autoseg.core.text import printable, printable_lines

SCHEMA = "autoseg.result/1"
# Without a terminal a line now and then is enough for a log; more would bury the rest: at most so many for a stage, and
# none within so many seconds of the one before.
LINES_PER_STAGE = 25
SECONDS_BETWEEN_LINES = 15.0


@dataclass
class Course:
    """How a stage goes: from which step on it was watched, since when, and when its last line was written."""

    first_done: int
    started: float
    last_line: float

    def seconds_left(self, done: int, total: int, now: float) -> float | None:
        """At the speed since the stage was first seen, so that steps of an earlier run do not count; None: not known yet."""
        if done <= self.first_done:
            return None
        return (now - self.started) / (done - self.first_done) * (total - done)


@dataclass
class Screen:
    """Shows progress and holds what a command reports until it ends.

    Attributes:
        command: the verb.
        as_json: one JSON document on standard output and nothing else there.
        root, output: folders of which the first that is there gets a line in its log when the command ends; none for what writes
            nothing. The output may be anybody's folder until something is written there.
        made: files that vouch for what was written, by stage; the log holds their digests.
        error: code of the error that the command ended with.
    """

    command: str
    as_json: bool
    started: float = field(default_factory=time.monotonic)
    result: dict[str, Any] = field(default_factory=dict)
    root: Path | None = None
    output: Path | None = None
    made: dict[str, Path] = field(default_factory=dict)
    error: str | None = None
    _bar: Any = None
    _tasks: dict[str, Any] = field(default_factory=dict)
    _courses: dict[str, Course] = field(default_factory=dict)

    def progress(self, stage: str, done: int, total: int, detail: str = "") -> None:
        """A bar with the time left on a terminal, plain lines otherwise."""
        detail = printable(detail)
        if sys.stderr.isatty():
            self._show_bar(stage, done, total, detail)
        else:
            self._show_line(stage, done, total, detail)

    def say(self, text: str) -> None:
        """A line of the result, for people; nothing with `--json`."""
        self.close()
        if not self.as_json:
            print(fit_for_screen(text))

    def seconds(self) -> float:
        """Since the command began."""
        return time.monotonic() - self.started

    def finish(self, status: str = "ok", exit_code: int = 0, **more: Any) -> None:
        """Ends the command: the JSON document, where one was asked for."""
        self.close()
        if self.as_json:
            from autoseg.io.values import to_plain

            document = {"schema": SCHEMA, "command": self.command, "status": status, "exit_code": exit_code,
                        "seconds": round(self.seconds(), 3), "versions": versions(),
                        **self.result, **more}
            print(json.dumps(to_plain(document), indent=1, allow_nan=False))

    def close(self) -> None:
        """Takes the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar, self._tasks = None, {}

    def _show_bar(self, stage: str, done: int, total: int, detail: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        if self._bar is None:
            self._bar = Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
                                 TimeRemainingColumn(), TextColumn("{task.fields[detail]}"),
                                 console=Console(stderr=True))
            self._bar.start()
        if stage not in self._tasks:
            self._tasks[stage] = self._bar.add_task(stage, total=total, detail="")
        self._bar.update(self._tasks[stage], completed=done, detail=detail)

    def _show_line(self, stage: str, done: int, total: int, detail: str) -> None:
        now = time.monotonic()
        course = self._courses.setdefault(stage, Course(done, now, now))
        left = course.seconds_left(done, total, now)
        whole = now - course.started + (left or 0.0)
        if done < total and now - course.last_line < max(SECONDS_BETWEEN_LINES, whole / LINES_PER_STAGE):
            return
        course.last_line = now
        if done >= total:
            del self._courses[stage]  # a stage that comes again begins anew
        eta = "" if done >= total or left is None else f", {duration(left)} left"
        print(f"{stage}: {done:,}/{total:,}{eta} {detail}".rstrip(), file=sys.stderr, flush=True)


def fit_for_screen(text: str) -> str:
    """`text` without anything that could colour, move or rewrite a terminal, or that its encoding lacks; lines stay lines."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return printable_lines(text).encode(encoding, "backslashreplace").decode(encoding)


class OneLine(logging.Formatter):
    """Log messages whose names cannot begin a new line, which could be taken for a message of its own."""

    def format(self, record: logging.LogRecord) -> str:
        return fit_for_screen(printable(super().format(record)) if record.exc_info is None else super().format(record))


def duration(seconds: float) -> str:
    """A time to wait in the two units that matter: 45 s, 12 min, 3 h 05 min, 2 d 4 h."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def versions() -> dict[str, str]:
    """Versions of autoseg and of what decides its numbers."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": sys.version.split()[0]}
    for package in ("autoseg", "torch", "numpy", "scipy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def table(header: list[str], rows: list[list[str]]) -> str:
    """Columns aligned for a terminal; the first column to the left, the others to the right."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]

    def line(row: list[str]) -> str:
        first, *others = row
        return "  ".join([first.ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(others, widths[1:], strict=True))])

    return "\n".join([line(header), "  ".join("-" * width for width in widths), *(line(row) for row in rows)])
