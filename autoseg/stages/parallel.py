"""One function over many cases: in order, in parallel where an executor is given, every error with its case."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

from threadpoolctl import threadpool_limits

from autoseg.core.errors import AutosegError, DatasetError, PartialError, ResourceError
from autoseg.core.progress import Progress
from autoseg.core.report import Failure
from autoseg.stages.limits import SHORTEST_LIMIT_SECONDS
from autoseg.stages.workers import LostWorkerError, OverdueError

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

MEMORY_CODE = "E_MEMORY"
# What says nothing about a case's files: with more memory, or on a faster disk, the same case may do.
CIRCUMSTANCES = frozenset({MEMORY_CODE, LostWorkerError.default_code, OverdueError.default_code})
# How often in the time after which a slow case is named somebody looks.
LOOKS = 10
NO_LIMIT_HERE = "stop it and name the case under 'exclude', or repeat the command with --jobs 2, where cases have a time limit"


def map_cases(function: Callable[[Item], Result], items: Sequence[Item], names: Sequence[str], *, stage: str,
              executor: Executor | None, progress: Progress) -> tuple[list[Result], list[Failure]]:
    """Results of `function` over `items` in their order, and the items that were refused or failed.

    A case whose process died, or for which memory did not suffice, is tried once more when all others are done, alone and
    with one thread.

    Args:
        executor: anything with `submit` (local processes, a cluster's client); None: in this process.
    Raises:
        ResourceError: the disk is full or cannot be written to, which every other case would meet too; or a pool gave all
            its cases up because one process died, with the cases that were under way.
    """
    if executor is None:
        with naming_slow_cases() as begin:
            def here(place: int, call: Callable[[Item], Result]) -> Result:
                begin(names[place])
                return call(items[place])

            with_one_thread = partial(one_thread, function)
            return _collect(partial(here, call=function), partial(here, call=with_one_thread), names, stage, progress)
    futures = [executor.submit(function, item) for item in items]
    try:
        return _collect(lambda place: futures[place].result(),
                        lambda place: executor.submit(one_thread, function, items[place]).result(), names, stage, progress)
    except BrokenProcessPool as error:
        waiting = ", ".join(_unfinished(futures, names)[:4])
        raise ResourceError(
            f"a worker of stage '{stage}' died without a word, which usually means that the system killed it for "
            f"memory; under way were {waiting}", hint="repeat the command with --jobs 1; it resumes") from error
    finally:
        for future in futures:
            future.cancel()  # of use only after an error: nobody waits for the cases not yet begun


def _collect(result: Callable[[int], Result], alone: Callable[[int], Result], names: Sequence[str], stage: str,
             progress: Progress) -> tuple[list[Result], list[Failure]]:
    """What `result` says of each place, and where it fails for want of memory what `alone` says when the others are done."""
    results: dict[int, Result] = {}
    failures: dict[int, Failure] = {}
    lost: list[int] = []
    for place, name in enumerate(names):
        try:
            results[place] = result(place)
        except (LostWorkerError, MemoryError) as error:
            log.warning("%s, case %s: %s; it is tried again alone when the others are done", stage, name, _reason(error))
            lost.append(place)
        except AutosegError as error:
            failures[place] = failure_of(name, error)
        progress(stage, place + 1 - len(lost), len(names), name)
    for number, place in enumerate(lost, start=1):
        try:
            results[place] = alone(place)
        except (AutosegError, MemoryError) as error:
            again = " again, alone and with one thread" if isinstance(error, (LostWorkerError, MemoryError)) else ""
            failures[place] = failure_of(names[place], error, again)
        progress(stage, len(names) - len(lost) + number, len(names), names[place])
    return [results[place] for place in sorted(results)], [failures[place] for place in sorted(failures)]


def require_all(failures: Sequence[Failure], what: str) -> None:
    """Raises one error that lists every case; nothing is left out silently.

    Raises:
        DatasetError: files of some cases cannot be used.
        PartialError: cases failed for want of memory or time; what was done for the others is kept.
    """
    if not failures:
        return
    lines = "\n".join(f"  {failure.unit}: {failure.message} [{failure.code}]" for failure in failures)
    refused = [failure for failure in failures if failure.code not in CIRCUMSTANCES]
    if refused:
        raise DatasetError(f"{what}: {len(failures)} case(s) cannot be used:\n{lines}", code=refused[0].code,
                           hint="correct the files, or list these cases under 'exclude' in the specification")
    raise PartialError(f"{what}: {len(failures)} case(s) failed; what was done for all others is kept:\n{lines}",
                       code=failures[0].code,
                       hint="repeat the command where more memory is free, or with fewer --jobs; it resumes. Or list these "
                       "cases under 'exclude' in the specification")


def failure_of(name: str, error: Exception, again: str = "") -> Failure:
    """What became of a case, with the code of the reason.

    Raises:
        The error itself where it is none of this case: a bug, or a disk that no other case could be written to either.
    """
    if is_for_memory(error):
        return Failure(name, MEMORY_CODE, f"{_reason(error)}{again}")
    if not isinstance(error, AutosegError) or error.exit_code == ResourceError.exit_code:
        raise error
    return Failure(name, error.code, f"{_reason(error)}{again}")


def is_for_memory(error: Exception) -> bool:
    """Python's and torch's ways to say that memory does not suffice; that of torch on a CPU is words only."""
    return (isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
            or isinstance(error, RuntimeError) and "can't allocate memory" in str(error))


def one_thread(function: Callable[[Item], Result], item: Item) -> Result:
    """What `function` says of the item; numerical libraries keep to one thread, and to its memory, meanwhile."""
    with threadpool_limits(1):
        return function(item)


@contextmanager
def naming_slow_cases(seconds: float = SHORTEST_LIMIT_SECONDS, *, advice: str = NO_LIMIT_HERE) -> Iterator[Callable[[str], None]]:
    """A function to call with the name of each case that begins: one that is under way for long is named in a warning, once.

    What hangs in this process cannot be ended by it. One thread looks after all cases; starting one for each took 0.1 ms.

    Args:
        seconds: the warning comes after these, and at most a tenth later.
    """
    under_way: list[tuple[str, ...]] = [()]  # a tuple of its own for each case, as names may come again
    ended = threading.Event()

    def look() -> None:
        seen, looks = under_way[0], 0
        while not ended.wait(seconds / LOOKS):
            looks = looks + 1 if under_way[0] is seen else 0
            seen = under_way[0]
            if looks == LOOKS and seen:
                log.warning("case %s has been under way for %.0f s; if its file hangs the program, %s", seen[0], seconds, advice)

    def begin(name: str) -> None:
        under_way[0] = (name,)

    watcher = threading.Thread(target=look, name="slow cases", daemon=True)
    watcher.start()
    try:
        yield begin
    finally:
        ended.set()
        watcher.join()


def _reason(error: Exception) -> str:
    if not is_for_memory(error):
        return str(error)
    return f"memory does not suffice ({next(iter(str(error).splitlines()), '') or 'no more is free'})"


def _unfinished(futures: Iterable[Future], names: Sequence[str]) -> list[str]:
    return [name for future, name in zip(futures, names, strict=True) if not future.done() or future.exception()]
