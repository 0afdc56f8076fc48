"""Real processes that die, crash, hang and lose their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest

from autoseg.core.errors import PartialError, ReadError, ResourceError
from autoseg.core.progress import silent
from autoseg.core.report import Failure
from autoseg.stages.limits import PATIENCE, SECONDS_PER_VOXEL, SHORTEST_LIMIT_SECONDS, time_limit
from autoseg.stages.parallel import map_cases, naming_slow_cases, one_thread, require_all
from autoseg.stages.workers import CaseWorkers, LostWorkerError, OverdueError, TimeLimit

NAMES = ["a", "b", "c", "d", "e"]
SHORT = TimeLimit(3.0, "three seconds are enough for a test")


def die(name: str) -> str:
    """The name in capitals; the process that gets `c` kills itself."""
    if name == "c":
        os.kill(os.getpid(), signal.SIGKILL)
    return name.upper()


def die_once(folder: str, name: str) -> str:
    """As `die`, but the second process that gets `c` does it, with as few threads as a case alone may have."""
    from threadpoolctl import threadpool_info

    mark = Path(folder) / "died"
    if name == "c" and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    import numpy  # noqa: F401  # so that there is a pool of threads to look at

    return f"{name.upper()}{max(pool['num_threads'] for pool in threadpool_info())}"


def crash(name: str) -> str:
    if name == "c":
        os.kill(os.getpid(), signal.SIGSEGV)
    return name.upper()


def hang(name: str) -> str:
    """As a decoder in an endless loop, which no signal that Python handles would end."""
    if name == "c":
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT])
        time.sleep(600)
    return name.upper()


def refuse(name: str) -> str:
    if name == "c":
        raise ReadError("c is broken", code="E_TEST", hint="mend it")
    if name == "d":
        raise ResourceError("the disk is full")
    return name.upper()


def starve(name: str) -> str:
    if name == "c":
        raise MemoryError("8 EiB")
    return name.upper()


def own_process(_: object) -> int:
    return os.getpid()


def mapped(function, names=NAMES, *, count=2, limit=None, seen=None):
    note = silent if seen is None else (lambda stage, done, total, detail="": seen.append((done, detail)))
    with CaseWorkers(count, limit=limit, preload=["autoseg.stages.parallel"]) as pool:
        return map_cases(function, names, names, stage="test", executor=pool, progress=note)


def test_a_case_whose_worker_is_killed_twice_is_named_and_all_others_finish():
    seen = []
    results, failures = mapped(die, seen=seen)
    assert results == ["A", "B", "D", "E"]
    assert [(failure.unit, failure.code) for failure in failures] == [("c", "E_WORKER_DIED")]
    assert "was killed, which usually means that memory ran out again, alone and with one thread" in failures[0].message
    assert seen[-1] == (5, "c") and [done for done, _ in seen] == [1, 2, 2, 3, 4, 5]


def test_a_case_that_is_killed_once_is_done_alone_with_one_thread(tmp_path, caplog):
    from functools import partial

    results, failures = mapped(partial(die_once, str(tmp_path)))
    assert failures == [] and [result[0] for result in results] == ["A", "B", "C", "D", "E"]
    assert results[2] == "C1"
    assert "case c: the process that worked on it was killed" in caplog.text and "tried again alone" in caplog.text


def test_a_case_alone_has_one_thread_where_others_have_two():
    import numpy  # noqa: F401  # so that there is a pool of threads
    from threadpoolctl import threadpool_info, threadpool_limits

    def most_threads(_: object) -> int:
        return max(pool["num_threads"] for pool in threadpool_info())

    with threadpool_limits(2):
        assert (most_threads(None), one_thread(most_threads, None), most_threads(None)) == (2, 1, 2)


def test_a_crash_says_which_signal_and_costs_only_its_case():
    results, [failure] = mapped(crash)
    assert results == ["A", "B", "D", "E"] and failure.unit == "c" and "SIGSEGV" in failure.message


def test_a_case_that_hangs_is_ended_after_its_limit_and_not_tried_again():
    began = time.monotonic()
    results, [failure] = mapped(hang, limit=SHORT)
    assert results == ["A", "B", "D", "E"]
    assert (failure.unit, failure.code) == ("c", "E_CASE_TIMEOUT")
    assert failure.message.startswith("it took longer than 3 s") and "three seconds are enough for a test" in failure.message
    assert time.monotonic() - began < 30


def test_no_process_is_left_when_the_block_ends():
    with CaseWorkers(2, limit=SHORT) as pool:
        numbers = {pool.submit(own_process, None).result() for _ in range(4)}
        hanging = pool.submit(hang, "c")
        assert isinstance(hanging.exception(), OverdueError)
        again = pool.submit(own_process, None).result()
    assert os.getpid() not in numbers
    for number in (*numbers, again):
        with pytest.raises(ProcessLookupError):
            os.kill(number, 0)


def test_an_interrupt_does_not_wait_for_the_cases_under_way():
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt), CaseWorkers(1) as pool:
        pool.submit(own_process, None).result()
        hanging = pool.submit(hang, "c")
        time.sleep(0.3)
        raise KeyboardInterrupt
    assert time.monotonic() - began < 30 and isinstance(hanging.exception(), LostWorkerError)


def test_an_interrupt_while_processes_are_started_ends_all_cases(monkeypatch):
    """The first process of a command waits for the server of forks, which takes seconds on a busy machine."""
    def slow_start(process):
        time.sleep(0.5)
        start(process)

    start = ForkServerProcess.start
    monkeypatch.setattr(ForkServerProcess, "start", slow_start)
    with pytest.raises(KeyboardInterrupt), CaseWorkers(2) as pool:
        cases = [pool.submit(hang, "c") for _ in range(6)]
        time.sleep(0.1)
        raise KeyboardInterrupt
    assert all(isinstance(case.exception(), LostWorkerError) for case in cases[:2])
    assert all(case.cancelled() for case in cases[2:])


def test_a_refused_case_keeps_its_code_and_a_full_disk_stops_all_of_them():
    results, [failure] = mapped(refuse, ["a", "b", "c"])
    assert results == ["A", "B"] and failure == Failure("c", "E_TEST", "c is broken")
    with pytest.raises(ResourceError, match="the disk is full"):
        mapped(refuse)


def test_memory_that_does_not_suffice_is_a_failure_of_its_case_with_and_without_processes():
    for results, [failure] in (mapped(starve), map_cases(starve, NAMES, NAMES, stage="t", executor=None, progress=silent)):
        assert results == ["A", "B", "D", "E"]
        assert (failure.unit, failure.code) == ("c", "E_MEMORY") and "8 EiB" in failure.message


def test_an_error_of_ours_brings_the_traceback_of_its_process():
    with CaseWorkers(1) as pool:
        error = pool.submit(divmod, 1, 0).exception()
    assert isinstance(error, ZeroDivisionError) and "In a worker process" in error.__notes__[0]


def test_cases_that_failed_for_memory_or_time_are_partial_and_broken_files_are_not():
    lost, late = Failure("x", "E_WORKER_DIED", "it died"), Failure("y", "E_CASE_TIMEOUT", "it took long")
    with pytest.raises(PartialError, match=r"2 case\(s\) failed; what was done for all others is kept") as caught:
        require_all([lost, late], "measuring")
    assert caught.value.exit_code == 4 and "  x: it died [E_WORKER_DIED]" in str(caught.value)
    with pytest.raises(Exception, match="cannot be used") as caught:
        require_all([lost, Failure("z", "E_READ", "torn")], "measuring")
    assert caught.value.exit_code == 3 and caught.value.code == "E_READ"


def test_a_limit_grows_with_the_largest_case_and_says_where_it_comes_from():
    voxels = 4 * SHORTEST_LIMIT_SECONDS / (PATIENCE * SECONDS_PER_VOXEL)
    assert time_limit(0, 1).seconds == SHORTEST_LIMIT_SECONDS and "the shortest limit" in time_limit(0, 1).because
    assert time_limit(voxels, 2).seconds == pytest.approx(8 * SHORTEST_LIMIT_SECONDS)
    assert f"{PATIENCE} times" in time_limit(voxels, 2).because and "AUTOSEG_CASE_MINUTES" in time_limit(voxels, 2).because


def test_a_case_that_is_slow_in_this_process_is_named_while_it_is_under_way(caplog):
    before = threading.active_count()
    with naming_slow_cases(0.5, advice="wait") as begin:
        assert threading.active_count() == before + 1
        for place in range(60):
            begin(f"quick{place}")
            time.sleep(0.01)
        begin("case7")
        for _ in range(600):
            if caplog.records:
                break
            time.sleep(0.05)
        begin("case8")
    assert [record.getMessage().split(" has been")[0] for record in caplog.records] == ["case case7"]
    assert threading.active_count() == before


def test_workers_end_with_the_process_that_started_them(tmp_path):
    child = subprocess.Popen([sys.executable, __file__], stdout=subprocess.PIPE, text=True,
                             env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])})
    worker = int(child.stdout.readline())
    os.kill(worker, 0)
    child.kill()
    child.wait()
    for _ in range(600):
        if not alive(worker):
            break
        time.sleep(0.05)
    assert not alive(worker)


def alive(number: int) -> bool:
    """Whether a process is there and no mere entry in the table of processes that nobody has asked about."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # the latter where it ends between opening and reading
        return False


def limited_memory(limit_bytes: int):
    """Folder of a new memory cgroup (version 1 or 2) without swap below our own, or None where none can be made."""
    for root, limit, swap in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes", ("memory.memsw.limit_in_bytes", limit_bytes)),
                              ("/sys/fs/cgroup", "memory.max", ("memory.swap.max", 0))):
        folder = Path(root) / f"autoseg-test-{os.getpid()}"
        try:
            folder.mkdir()
            (folder / limit).write_text(str(limit_bytes))
        except OSError:
            if folder.is_dir():
                folder.rmdir()
            continue
        with suppress(OSError):  # a kernel without swap has no such file
            (folder / swap[0]).write_text(str(swap[1]))
        return folder
    return None


def fill_memory(folder: str, name: str) -> str:
    """Moves its process into the cgroup; `c` takes more memory than that has."""
    (Path(folder) / "cgroup.procs").write_text(str(os.getpid()))
    if name == "c":
        held = [bytearray(os.urandom(2**20)) for _ in range(400)]
        return str(len(held))
    return name.upper()


def test_the_systems_own_killer_of_processes_costs_only_the_case_that_took_the_memory():
    from functools import partial

    folder = limited_memory(128 * 2**20)
    if folder is None:
        pytest.skip("no memory cgroup can be made here (needs root and a writable /sys/fs/cgroup)")
    try:
        results, [failure] = mapped(partial(fill_memory, str(folder)))
    finally:
        for _ in range(100):  # the kernel takes a moment to see that its last process has ended
            with suppress(OSError):
                folder.rmdir()
                break
            time.sleep(0.1)
    assert results == ["A", "B", "D", "E"]
    assert (failure.unit, failure.code) == ("c", "E_WORKER_DIED") and "memory ran out" in failure.message


def test_a_lost_worker_is_an_error_of_one_call_and_a_new_process_takes_its_place():
    with CaseWorkers(1) as pool:
        futures = [pool.submit(die, name) for name in ("a", "c", "b")]
        assert futures[0].result() == "A" and futures[2].result() == "B"
        assert isinstance(futures[1].exception(), LostWorkerError)


if __name__ == "__main__":
    with CaseWorkers(1) as pool:
        print(pool.submit(own_process, None).result(), flush=True)
        pool.submit(time.sleep, 600).result()
