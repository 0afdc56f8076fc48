from __future__ import annotations

import errno
import json
import logging
import os
import re
import signal
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from autoseg.core.errors import LockedError, ResourceError
from autoseg.io.lock import locked, reading, rewriting


@contextmanager
def other_process(folder: Path, kind: str, verb: str):
    """A process that holds the folder by one of the locks; its number is given."""
    script = (f"import time; from pathlib import Path; from autoseg.io.lock import {kind}\n"
              f"with {kind}(Path({str(folder)!r}), {verb!r}):\n"
              "    print('held', flush=True); time.sleep(60)")
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=env)
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_the_second_process_is_refused_with_host_process_and_start_of_the_first(tmp_path):
    with other_process(tmp_path, "locked", "train") as first:
        with pytest.raises(LockedError) as refused, locked(tmp_path, "train"):
            pass
        assert refused.value.exit_code == 7
        assert re.search(rf"'autoseg train' on host {os.uname().nodename}, process {first.pid}, "
                         r"started \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", str(refused.value))


def test_the_lock_of_a_killed_process_is_taken_over_with_a_note_and_its_leftovers_go(tmp_path, caplog):
    with other_process(tmp_path, "locked", "preprocess") as first:
        first.send_signal(signal.SIGKILL)
        first.wait()
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / ".a.json.0123abcd.part").write_text("half")
    with locked(tmp_path, "preprocess"):
        assert json.loads((tmp_path / ".lock.json").read_text())["process"] == os.getpid()
    assert f"taking over {tmp_path} from 'autoseg preprocess'" in caplog.text
    assert f"process {first.pid}" in caplog.text and "did not end cleanly" in caplog.text
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [".lock"]


def test_after_a_clean_end_nothing_is_said(tmp_path, caplog):
    for _ in range(2):
        with locked(tmp_path, "plan"):
            pass
    assert caplog.text == ""


def test_who_waits_names_the_holder_and_goes_on_when_it_has_ended(tmp_path, caplog, monkeypatch):
    with other_process(tmp_path, "locked", "select") as first:

        def end_the_first(record: logging.LogRecord) -> bool:
            if "waiting" in record.getMessage():
                first.kill()
            return True

        monkeypatch.setattr(caplog.handler, "filters", [end_the_first])
        with locked(tmp_path, "select", wait=True):
            assert json.loads((tmp_path / ".lock.json").read_text())["process"] == os.getpid()
    assert f"'autoseg select' on host {os.uname().nodename}, process {first.pid}" in caplog.messages[0]
    assert caplog.messages[0].endswith("waiting for its end") and caplog.messages[1].startswith("taking over")


def test_nobody_waits_without_kernel_locks_for_one_that_may_have_died_on_another_host(tmp_path, monkeypatch):
    def missing(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", missing)
    with locked(tmp_path, "select"), pytest.raises(LockedError, match="'autoseg select'"), \
            locked(tmp_path, "select", wait=True):
        pass


@pytest.mark.parametrize("moment", [0, 2**31, 2**33])
def test_no_clock_frees_or_keeps_a_lock(tmp_path, moment):
    with other_process(tmp_path, "locked", "train"):
        for path in (tmp_path / ".lock", tmp_path / ".lock.json"):
            os.utime(path, (moment, moment))
        with pytest.raises(LockedError, match="'autoseg train'"), locked(tmp_path, "train"):
            pass


@pytest.mark.parametrize("note", ["", "{", "[]", '{"verb": "train"}', "3"])
def test_an_unreadable_note_does_not_hide_the_lock(tmp_path, note):
    with locked(tmp_path, "train"):
        (tmp_path / ".lock.json").write_text(note)
        with pytest.raises(LockedError, match="in use by another autoseg process"), locked(tmp_path, "train"):
            pass


def test_many_may_read_and_none_may_rewrite_meanwhile(tmp_path):
    with other_process(tmp_path, "reading", "train") as first, ExitStack() as held:
        for _ in range(3):
            held.enter_context(reading(tmp_path, "select"))
        with pytest.raises(LockedError) as refused, rewriting(tmp_path, "preprocess"):
            pass
        assert f"process {first.pid}" in str(refused.value) and str(refused.value).count("'autoseg select'") == 3
    with rewriting(tmp_path, "preprocess"), pytest.raises(LockedError, match="'autoseg preprocess'"), \
            reading(tmp_path, "train"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [".use"]


def test_a_killed_reader_does_not_hinder_and_is_not_named(tmp_path):
    with other_process(tmp_path, "reading", "train") as killed:
        killed.kill()
        killed.wait()
        assert len(list(tmp_path.glob(".use.*.json"))) == 1
        with reading(tmp_path, "select"), pytest.raises(LockedError) as refused, rewriting(tmp_path, "preprocess"):
            pass
        assert f"process {killed.pid}" not in str(refused.value)
        with rewriting(tmp_path, "preprocess"):
            assert len(list(tmp_path.glob(".use.*.json"))) == 1


def test_a_folder_that_does_not_exist_is_not_made_by_a_reader(tmp_path):
    with reading(tmp_path / "none", "train"):
        pass
    assert not (tmp_path / "none").exists()


def test_a_file_in_the_place_of_the_folder_is_no_lock_of_another(tmp_path):
    (tmp_path / "a").write_text("file")
    for hold in (locked, rewriting):
        with pytest.raises((ResourceError, OSError)) as failed, hold(tmp_path / "a", "train"):
            pass
        assert not isinstance(failed.value, LockedError)
