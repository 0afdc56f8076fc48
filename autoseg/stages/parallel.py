"""One function over many cases: in order, in parallel where an executor is given, every error with its case."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from autoseg.core.errors import AutosegError, DatasetError, ResourceError
from autoseg.core.progress import Progress
from autoseg.core.report import Failure

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_cases(function: Callable[[Item], Result], items: Sequence[Item], names: Sequence[str], *, stage: str,
              executor: Executor | None, progress: Progress) -> tuple[list[Result], list[Failure]]:
    """Results of `function` over `items` in their order, and the items that were refused.

    Args:
        executor: anything with `submit` (local processes, a cluster's client); None: in this process.
    Raises:
        ResourceError: a worker process died (usually: killed for memory); names the cases that were under way.
    """
    results: list[Result] = []
    failures: list[Failure] = []
    futures = [executor.submit(function, item) for item in items] if executor else None
    for place, name in enumerate(names):
        try:
            results.append(futures[place].result() if futures else function(items[place]))
        except AutosegError as error:
            failures.append(Failure(name, error.code, str(error)))
        except BrokenProcessPool as error:
            waiting = ", ".join(_unfinished(futures or [], names)[:4])
            raise ResourceError(
                f"a worker of stage '{stage}' died without a word, which usually means that the system killed it for "
                f"memory; under way were {waiting}", hint="repeat the command with --jobs 1; it resumes") from error
        progress(stage, place + 1, len(names), name)
    return results, failures


def _unfinished(futures: Iterable[Future], names: Sequence[str]) -> list[str]:
    return [name for future, name in zip(futures, names, strict=True) if not future.done() or future.exception()]


def require_all(failures: Sequence[Failure], what: str) -> None:
    """Raises one DatasetError that lists every refused case; nothing is left out silently."""
    if failures:
        lines = "\n".join(f"  {failure.unit}: {failure.message}" for failure in failures)
        raise DatasetError(f"{what}: {len(failures)} case(s) cannot be used:\n{lines}", code=failures[0].code,
                           hint="correct the files, or list these cases under 'exclude' in the specification")
