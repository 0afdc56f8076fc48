"""Runs a command in a cold process and measures seconds, processor seconds and peak memory of its whole process tree."""

from __future__ import annotations

import contextlib
import datetime
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import psutil

from autoseg.core.errors import AutosegError
from benchmarks.ledger import REPOSITORY

# Between two looks at the tree: short enough to see workers come and go. One look takes 4 ms of a core (measured).
SECONDS_BETWEEN_LOOKS = 0.05
# Shared memory takes the kernel 1 to 13 ms per process to tell apart (measured), which must not slow the command down.
SHARE_OF_TIME_FOR_MEMORY = 0.05
LINES_OF_LOG_IN_ERROR = 20


class CommandFailedError(RuntimeError):
    """A measured command ended with an exit status other than 0."""


@dataclass(frozen=True)
class Usage:
    """What one run of a command took, children included.

    Attributes:
        wall_seconds: from start of the process to its end.
        cpu_seconds: user and system time of all processes of the tree.
        peak_bytes: largest sum of resident memory over the tree. On Linux a page that n processes share counts as 1/n in
            each (PSS), since forked workers share nearly all; elsewhere it counts in full in each.
        load_before: average number of runnable processes in the minute before (1-minute load of the machine).
    """

    wall_seconds: float
    cpu_seconds: float
    peak_bytes: int
    load_before: float


def measure(command: Sequence[str], *, log: Path, environment: Mapping[str, str] | None = None,
            folder: Path | None = None) -> Usage:
    """Usage of one run of `command`; its output goes to `log`.

    Args:
        environment: variables on top of those of this process.
        folder: working folder of the command.
    Raises:
        CommandFailedError: the exit status is not 0; the message ends with the last lines of the log.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    load = os.getloadavg()[0]
    before = _children_cpu_seconds()
    with log.open("wb") as output:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                                   cwd=folder, env={**os.environ, **(environment or {})}, start_new_session=True)
        watch = _TreeWatch(process.pid)
        try:
            status = process.wait()
            seconds = time.perf_counter() - started
        finally:
            watch.stop()
            _end_group(process)
    if status != 0:
        tail = log.read_text(errors="replace").splitlines()[-LINES_OF_LOG_IN_ERROR:]
        raise CommandFailedError(f"exit status {status}: {' '.join(command)}\nlog {log} ends with\n" + "\n".join(tail))
    # A worker whose parent does not wait for it is missing from the first number, one that lived between two looks from
    # the second.
    cpu = max(_children_cpu_seconds() - before, watch.cpu_seconds())
    return Usage(round(seconds, 3), round(cpu, 3), watch.peak_bytes, round(load, 2))


def median(usages: Sequence[Usage]) -> Usage:
    """Median of each quantity on its own; the memory is the largest, for it is a peak."""
    return Usage(statistics.median(usage.wall_seconds for usage in usages),
                 statistics.median(usage.cpu_seconds for usage in usages),
                 max(usage.peak_bytes for usage in usages),
                 statistics.median(usage.load_before for usage in usages))


def run_autoseg(arguments: Sequence[str]) -> None:
    """A command of autoseg, which shows what it says.

    Raises:
        SystemExit: it failed.
    """
    command = [sys.executable, "-m", "autoseg.cli", *arguments]
    status = subprocess.run(command, cwd=REPOSITORY, check=False).returncode
    if status:
        raise SystemExit(f"exit status {status}: {' '.join(command)}")


def describe_machine() -> dict[str, str]:
    """Processor, usable cores, memory and today's date, as text."""
    from autoseg.training.device import detect_device

    device = detect_device("cpu")
    memory = psutil.virtual_memory().total / 2**30
    logical = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"processor": device.name, "cores": f"{logical} logical, {device.threads} physical", "memory": f"{memory:.0f} GiB",
            "date": datetime.date.today().isoformat()}


def begin() -> None:
    """Before a benchmark's work: SIGTERM ends it as an exception does, so that it leaves no running command behind, and what
    autoseg or a command refuses is told in its own words, without a traceback."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    sys.excepthook = _tell


def _tell(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
    if not isinstance(error, AutosegError | CommandFailedError):
        sys.__excepthook__(kind, error, where)
        return
    print(f"error: {error}", file=sys.stderr)
    if isinstance(error, AutosegError) and error.hint:
        print(f"  next: {error.hint}", file=sys.stderr)


class _TreeWatch:
    """Looks at a process and its descendants until told to stop."""

    def __init__(self, pid: int) -> None:
        self.peak_bytes = 0
        self._cpu_seconds: dict[tuple[int, float], float] = {}
        self._next_reading = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, args=(pid,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def cpu_seconds(self) -> float:
        """Sum over all processes ever seen of what each had used when it was last seen."""
        return sum(self._cpu_seconds.values())

    def _watch(self, pid: int) -> None:
        try:
            root = psutil.Process(pid)
        except psutil.NoSuchProcess:
            return
        while not self._stop.is_set():
            self._look(root)
            self._stop.wait(SECONDS_BETWEEN_LOOKS)

    def _look(self, root: psutil.Process) -> None:
        try:
            tree = [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        for process in tree:
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                self._cpu_seconds[process.pid, process.create_time()] = times.user + times.system
        # The shares are never more than the full sum, so a full sum below the peak needs no reading.
        started = time.perf_counter()
        if started >= self._next_reading and sum(map(_resident_bytes, tree)) > self.peak_bytes:
            self.peak_bytes = max(self.peak_bytes, sum(map(_share_bytes, tree)))
            ended = time.perf_counter()
            self._next_reading = ended + (ended - started) / SHARE_OF_TIME_FOR_MEMORY


def _resident_bytes(process: psutil.Process) -> int:
    try:
        return process.memory_info().rss
    except psutil.Error:
        return 0


def _share_bytes(process: psutil.Process) -> int:
    """Resident memory of a process, its part of shared pages only; all of them where the system does not say."""
    try:
        lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return _resident_bytes(process)
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def _children_cpu_seconds() -> float:
    times = os.times()
    return times.children_user + times.children_system


def _end_group(process: subprocess.Popen) -> None:
    """Ends what is left of the command's own session, also when this program is interrupted."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    finally:
        process.wait()
