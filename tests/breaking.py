"""Faults of the disk at the k-th call of the system, and processes that are killed, for tests of every layer."""

from __future__ import annotations

import errno
import os
import random
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

CALLS = ("open", "write", "fsync", "replace", "rename", "link", "mkdir", "rmdir", "unlink", "truncate", "ftruncate")


class Faults:
    """Counts the calls that change a disk, and breaks the one that is asked for.

    Args:
        at: number of the call that fails; those before it succeed.
        kill: the process dies there, instead of an error of the disk.
    """

    def __init__(self, at: int, *, kill: bool = False) -> None:
        self.at, self.kill = at, kill
        self.count = 0

    @property
    def fired(self) -> bool:
        return self.count > self.at

    def before(self, name: str) -> None:
        self.count += 1
        if self.count - 1 == self.at:
            if self.kill:
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(errno.EIO, f"injected into {name}")

    def patch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Every call of `os` in CALLS and `Path.write_bytes`, which writes half before it fails."""
        def broken(name, call):
            def wrapper(*args, **kwargs):
                self.before(name)
                return call(*args, **kwargs)
            return wrapper

        def write_bytes(path, content):
            with open(path, "wb") as file:
                file.write(content[:len(content) // 2])
                file.flush()
                self.before("write_bytes")
                return file.write(content[len(content) // 2:])

        for name in CALLS:
            monkeypatch.setattr(os, name, broken(name, getattr(os, name)))
        monkeypatch.setattr(Path, "write_bytes", write_bytes)


def fails_at(number: int, action: Callable[[], object], *, kill: bool) -> bool:
    """Runs the action with a fault at one call; True when it fired, False when there are not so many calls."""
    if kill:
        def broken() -> None:
            with pytest.MonkeyPatch.context() as monkeypatch:
                Faults(number, kill=True).patch(monkeypatch)
                action()
        return _was_killed(os.waitpid(_forked(broken), 0)[1])
    faults = Faults(number)
    with pytest.MonkeyPatch.context() as monkeypatch:
        faults.patch(monkeypatch)
        try:
            action()
        except Exception as error:
            if not faults.fired:
                raise AssertionError("failed without a fault") from error
    return faults.fired


def killed_after(seconds: float, action: Callable[[], object]) -> bool:
    """Does the action in a forked process that is killed after some time; True when it was, False when it had ended.

    Raises:
        AssertionError: the action failed.
    """
    child, end = _forked(action), time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return _was_killed(status)
        time.sleep(min(left, 0.002))
    os.kill(child, signal.SIGKILL)  # of no effect where it has ended already
    return _was_killed(os.waitpid(child, 0)[1])


def _forked(action: Callable[[], object]) -> int:
    """Does the action in a forked process, whose number it returns; an error goes to its standard error."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            action()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return child


def _was_killed(status: int) -> bool:
    """True when a child with this status was killed, False when it did what it had to."""
    assert status in (0, signal.SIGKILL), f"ended with status {status}"
    return status == signal.SIGKILL


def kill_until_done(action: Callable[[], object], longest_seconds: float, rng: random.Random) -> int:
    """Kills the action at random times until it once ends undisturbed; how often it was killed.

    After the tenth kill it gets more time each time: how fast a machine is changes with what else it does.
    """
    for kills in range(50):
        if not killed_after(rng.uniform(0, longest_seconds * 1.1 ** max(0, kills - 10)), action):
            return kills
    raise AssertionError("never ends: it hangs, or does not go on from where it was killed")


def contents(folder: Path, *, without: tuple[str, ...] = ()) -> dict[str, bytes]:
    """Bytes of every file below a folder, by relative path; lock files and names in `without` are left out."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name not in (".lock", ".use", *without)}
