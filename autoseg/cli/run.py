"""What every verb needs: its screen, the root folder, the budget of this machine, an executor and a stop signal."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from autoseg.cli.screen import OneLine, Screen

if TYPE_CHECKING:
    from autoseg.core.budget import Budget
    from autoseg.core.plan import Configuration
    from autoseg.stages.workers import TimeLimit
    from autoseg.workspace import Workspace

_screens: list[Screen] = []
_received: list[int] = []

# Ctrl-C; what schedulers send before they kill; a terminal that was closed.
END_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# A worker process takes about 1.5 s to start (imports); below this many bytes of images one process is done sooner.
BYTES_WORTH_WORKERS = 400 * 2**20


def current_screen() -> Screen | None:
    """The screen of the command that runs."""
    return _screens[-1] if _screens else None


def received_signals() -> list[int]:
    """Signals that came while a command listened for them."""
    return list(_received)


def forget() -> None:
    """Leaves no screen of an earlier command in this process."""
    _screens.clear()


def start(command: str, as_json: bool, root: Path | None = None, output: Path | None = None) -> Screen:
    """The screen of a new command; log messages go to standard error.

    A command that writes something is logged in `root`, or where that is missing in `output`.

    Threads that wait give their core away: on a machine that others use too, spinning made a step of two threads take
    2 to 18 s instead of 1.4 s, and costs 3 % where nobody else computes (EPYC, 2 cores, torch 2.13, 2026-11-21).
    """
    from autoseg.training.device import prepare_allocator

    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read by OpenMP when torch is imported, which comes later
    prepare_allocator()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine("%(levelname)s %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    _screens.append(Screen(command, as_json, root=root, output=output))
    return _screens[-1]


def root_folder(root: Path | None) -> Path:
    """`--root`, else AUTOSEG_HOME, else ./autoseg_home."""
    return (root or Path(os.environ.get("AUTOSEG_HOME") or "autoseg_home")).resolve()


def open_dataset(screen: Screen, root: Path | None, dataset: str | None, data: Path | None,
                 task: str | None = None) -> Workspace:
    """The workspace of `-d`, or of the dataset that was planned last."""
    from dataclasses import replace

    from autoseg.cli.audit import origin
    from autoseg.core.errors import UsageError
    from autoseg.io.values import read_json
    from autoseg.workspace import open_workspace

    folder = root_folder(root)
    if dataset is None:
        last = folder / "last.json"
        if not last.exists():
            raise UsageError(f"no dataset has been planned below {folder}, and -d was not given",
                             hint="autoseg plan_and_preprocess -d NAME -i FOLDER (autoseg datasets lists the names)")
        dataset = str(read_json(last)["dataset"])
    return replace(open_workspace(folder, dataset, data, screen.progress, task), origin=origin())


def last_plan(workspace: Workspace) -> str:
    """Name of the plan that was made last for this dataset."""
    from autoseg.io.values import read_json

    path = workspace.layout.folder / "last.json"
    return str(read_json(path)["plan"]) if path.exists() else "default"


def default_bundle(screen: Screen, root: Path | None, dataset: str | None, plan: str | None, task: str | None) -> Path:
    """Folder of the dataset's bundle for the plan made last."""
    workspace = open_dataset(screen, root_folder(root), dataset, None, task)
    return workspace.layout.bundle(plan or last_plan(workspace))


def make_budget(target: str | None, memory: str | None, minutes: float | None) -> Budget:
    """The budget from the command line and this machine: default is the GPU with 8 GB, else CPU and half the memory."""
    from autoseg.core.budget import Budget
    from autoseg.training.device import detect_device

    device = detect_device(target or "auto")
    default = 8 * 10**9 if device.kind == "cuda" else device.memory_bytes // 2
    return Budget(device.kind, parse_bytes(memory) if memory else default, minutes, device.supports_bf16,
                  device.threads, device.name)


def parse_bytes(text: str) -> int:
    """Bytes of `8GB`, `512 MB` or `8GiB`: powers of ten, and of two with an i (IEC 80000-13).

    Raises:
        UsageError: no number with one of these units.
    """
    import re

    from autoseg.core.errors import UsageError

    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT])(i?)B?\s*", text, re.IGNORECASE)
    if not match:
        raise UsageError(f"memory {text!r} is not understood; write for example 8GB or 512MB")
    power = "KMGT".index(match[2].upper()) + 1
    return int(float(match[1]) * (1024 if match[3] else 1000) ** power)


@contextmanager
def workers(jobs: int | None, workspace: Workspace, configurations: Sequence[Configuration] = ()) -> Iterator[Executor | None]:
    """Processes for stages over cases; None where one process is done sooner than others have started.

    Args:
        jobs: as the user says; 1: in this process.
        configurations: those that cases are prepared for; none while they are only measured.
    """
    count = jobs if jobs is not None else default_jobs(workspace, configurations)
    if jobs == 1 or count == 0:
        yield None
        return
    from autoseg.stages.workers import CaseWorkers

    with CaseWorkers(count, limit=case_limit(workspace, configurations), preload=["autoseg.stages.preprocess"]) as pool:
        yield pool


def default_jobs(workspace: Workspace, configurations: Sequence[Configuration] = ()) -> int:
    """One process per core, as many as memory holds of the largest case; 0, none but this one, where there is little to read."""
    from autoseg.io.npz import stored_bytes
    from autoseg.stages.limits import count_workers, largest_case_bytes
    from autoseg.training.device import detect_device

    paths = [path for unit in workspace.units for case in unit.cases for group in case.inputs.values() for path in group]
    if sum(map(stored_bytes, paths)) < BYTES_WORTH_WORKERS:
        return 0
    device = detect_device("cpu")
    return count_workers(device.threads, device.memory_bytes,
                         largest_case_bytes(workspace.units, workspace.spec, configurations))


def case_limit(workspace: Workspace, configurations: Sequence[Configuration] = ()) -> TimeLimit:
    """How long one case may take: AUTOSEG_CASE_MINUTES, else by the size of the largest.

    Raises:
        UsageError: the variable is set to something that is no number of minutes.
    """
    from autoseg.core.errors import AutosegError, UsageError
    from autoseg.stages.limits import channel_count, largest_case_voxels, time_limit
    from autoseg.stages.workers import TimeLimit

    asked = os.environ.get("AUTOSEG_CASE_MINUTES")
    if asked is not None:
        try:
            minutes = float(asked)
        except ValueError:
            minutes = 0.0
        if not 0 < minutes < float("inf"):
            raise UsageError(f"AUTOSEG_CASE_MINUTES is {asked!r}; a number of minutes above 0 is expected")
        return TimeLimit(60 * minutes, f"AUTOSEG_CASE_MINUTES says {minutes:g} min")
    try:
        voxels = largest_case_voxels(workspace.units, configurations)
    except AutosegError:  # of a folder with problems the units are not known
        voxels = 0.0
    return time_limit(voxels, channel_count(workspace.spec))


@contextmanager
def stop_signal() -> Iterator[Callable[[], bool]]:
    """A function that says whether a signal to end has come; the second one ends the command at once."""
    with _handling(_note_once):
        yield lambda: bool(_received)


@contextmanager
def ending_by_signal() -> Iterator[None]:
    """Inside the block a signal to end is a KeyboardInterrupt, so that temporary files, locks and processes are cleared."""
    _received.clear()
    with _handling(_interrupt):
        yield


@contextmanager
def _handling(handler: Callable[[int, object], None]) -> Iterator[None]:
    """Signals go to `handler`, but for those that are ignored (`nohup` does so) and outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    earlier = {number: signal.getsignal(number) for number in END_SIGNALS}
    earlier = {number: before for number, before in earlier.items() if before is not signal.SIG_IGN}
    for number in earlier:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, before in earlier.items():
            signal.signal(number, before)


def _note_once(number: int, frame: object) -> None:
    _received.append(number)
    signal.signal(number, _interrupt)


def _interrupt(number: int, frame: object) -> None:
    _received.append(number)
    raise KeyboardInterrupt
