"""The log of commands: every line follows from the one before, and what was changed shows."""

from __future__ import annotations

import json
import subprocess
import sys
from hashlib import sha256

import pytest

from autoseg.core.errors import ResourceError
from autoseg.io.audit import BEGINNING, LOG, append_entry, read_chain

# Waits a little between reading the last line and writing the next, where another process could come between; for its turn
# as long as the other one may take for all its lines on a slow disk.
WRITER = """
import sys, time; from pathlib import Path; from autoseg.io import audit
read = audit._last_line
audit._last_line = lambda file: (read(file), time.sleep(0.005))[0]
audit._PATIENCE_SECONDS = 200
folder = Path(sys.argv[1]); (folder / sys.argv[2]).touch()
while len(list(folder.glob("ready*"))) < 2: time.sleep(0.001)
for number in range(25): audit.append_entry(folder, {"who": sys.argv[2], "number": number})
"""


@pytest.fixture
def log(tmp_path):
    """A log of five lines, the third longer than what is read of a file at once."""
    for number in range(5):
        append_entry(tmp_path, {"command": f"autoseg number {number}" + "x" * (9000 if number == 2 else 0)})
    return tmp_path / LOG


def test_every_line_holds_the_digest_of_the_line_before(log):
    lines = log.read_bytes().split(b"\n")[:-1]
    expected = [BEGINNING, *(sha256(line).hexdigest() for line in lines[:-1])]
    assert [json.loads(line)["previous"] for line in lines] == expected
    chain = read_chain(log)
    assert (chain.lines, chain.head, chain.problems) == (5, sha256(lines[-1]).hexdigest(), ())


@pytest.mark.parametrize(("change", "place"), [
    (lambda lines: lines.__setitem__(1, lines[1].replace(b"number 1", b"number 7")), 3),
    (lambda lines: lines.pop(1), 2),
    (lambda lines: lines.insert(2, lines[1]), 3),
    (lambda lines: lines.__setitem__(slice(1, 3), [lines[2], lines[1]]), 2),
    (lambda lines: lines.pop(0), 1),
    (lambda lines: lines.__setitem__(3, b"[]\n"), 4),
    (lambda lines: lines.__setitem__(3, b"\xff\n"), 4),
], ids=["changed", "removed", "doubled", "swapped", "beginning removed", "no entry", "no text"])
def test_a_changed_log_names_the_line(log, change, place):
    lines = log.read_bytes().splitlines(keepends=True)
    change(lines)
    log.write_bytes(b"".join(lines))
    assert f"line {place} " in read_chain(log).problems[0]


def test_lines_cut_off_at_the_end_show_in_the_last_digest_only(log):
    head = read_chain(log).head
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:-1]))
    chain = read_chain(log)
    assert chain.problems == () and chain.head != head


def test_a_line_that_a_power_cut_tore_stays_and_the_next_one_follows_from_it(log):
    log.write_bytes(log.read_bytes()[:-20])
    append_entry(log.parent, {"command": "autoseg after the cut"})
    chain = read_chain(log)
    assert chain.lines == 6 and chain.problems == ("line 5 is no entry of a log (cut off while it was written, or changed)",)


def test_processes_that_write_together_take_turns(tmp_path):
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), f"ready{number}"]) for number in range(2)]
    assert [writer.wait(timeout=250) for writer in writers] == [0, 0]
    chain = read_chain(tmp_path / LOG)
    assert chain.lines == 50 and chain.problems == ()


def test_a_newline_or_an_escape_in_a_command_stays_one_line_of_plain_text(tmp_path):
    append_entry(tmp_path, {"command": "autoseg \n{\"previous\": 1}\x1b[2Jé"})
    content = (tmp_path / LOG).read_bytes()
    assert content.count(b"\n") == 1 and b"\x1b" not in content and content.isascii()


def test_a_log_that_cannot_be_written_is_an_error_that_names_it(tmp_path):
    (tmp_path / LOG).mkdir()
    with pytest.raises((ResourceError, IsADirectoryError)):
        append_entry(tmp_path, {})
