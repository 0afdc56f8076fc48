"""Worker processes of which each holds one case at a time, so that one that dies or hangs costs that case and no other."""

from __future__ import annotations

import multiprocessing
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from queue import SimpleQueue
from threading import Lock
from typing import Any, TypeVar

from autoseg.core.errors import AutosegError
from autoseg.io.processes import end_with_parent

Result = TypeVar("Result")


class LostWorkerError(AutosegError):
    """The process that worked on a case ended before the case did; usually the system killed it for memory."""

    exit_code = 4
    default_code = "E_WORKER_DIED"


class OverdueError(AutosegError):
    """A case took longer than cases may take, and its process was ended."""

    exit_code = 4
    default_code = "E_CASE_TIMEOUT"


@dataclass(frozen=True)
class TimeLimit:
    """How long one case may take, and where the number comes from."""

    seconds: float
    because: str


class CaseWorkers(Executor):
    """An executor of local processes: each call runs in a process that has nothing else to do.

    A pool of the standard library gives every unfinished case up when one process dies, and cannot say which case it was;
    nor does it end a call that hangs. Here both are errors of that one call, and another process takes the place.

    Args:
        count: processes; each is started when it is first needed.
        limit: of one call; None: calls may take as long as they will.
        preload: modules that calls will need; imported once for all processes where the system can fork, so that a process
            that takes a lost one's place is there at once. No effect after another pool of this program has started.
    """

    def __init__(self, count: int, *, limit: TimeLimit | None = None, preload: Sequence[str] = ()) -> None:
        self._limit = limit
        # Fresh processes or forks of one that has done nothing but import: a fork of a process with threads can hang.
        context = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
        context.set_forkserver_preload([*preload])
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="case")
        self._idle: SimpleQueue[_Worker] = SimpleQueue()
        self._workers = [_Worker(context) for _ in range(count)]
        for worker in self._workers:
            self._idle.put(worker)

    def submit(self, function: Callable[..., Result], /, *args: Any, **kwargs: Any) -> Future[Result]:
        """The result of `function(*args, **kwargs)`, which must be picklable, from another process.

        The future raises what the function raises, LostWorkerError or OverdueError.
        """
        return self._threads.submit(self._run, partial(function, *args, **kwargs))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._threads.shutdown(wait=wait, cancel_futures=cancel_futures)
        for worker in self._workers:
            worker.close()

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is not None and not issubclass(kind, Exception):  # Ctrl-C: nobody wants to wait for the cases under way
            self._threads.shutdown(wait=False, cancel_futures=True)  # first, so that none of them takes another case
            for worker in self._workers:
                worker.end()
        self.shutdown(cancel_futures=kind is not None)

    def _run(self, call: Callable[[], Result]) -> Result:
        worker = self._idle.get()
        try:
            return worker.run(call, self._limit)
        finally:
            self._idle.put(worker)


class _Worker:
    """One process and the pipe to it; started anew after it was lost."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self._process: multiprocessing.process.BaseProcess | None = None
        self._pipe: Connection | None = None
        self._lock = Lock()
        self._is_over = False

    def run(self, call: Callable[[], Result], limit: TimeLimit | None) -> Result:
        process, pipe = self._started()
        try:
            pipe.send(call)
            pipe.recv()  # it has imported what the call needs, which counts for no case
            if not wait([pipe], None if limit is None else limit.seconds):  # an end of the process makes the pipe ready too
                assert limit is not None
                self.kill()
                self.close()
                raise OverdueError(f"it took longer than {limit.seconds:.0f} s, so its process was ended; {limit.because}")
            succeeded, value = pipe.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            process.join()
            self.close()
            raise LostWorkerError(f"the process that worked on it {_ending(process.exitcode)}") from error
        if succeeded:
            return value
        raise value

    def close(self) -> None:
        """Lets an idle process end; it does so when the pipe closes."""
        if self._pipe is not None:
            self._pipe.close()
        if self._process is not None:
            self._process.join()
        self._process = self._pipe = None

    def kill(self) -> None:
        """Ends the process whatever it does; a call that waits for it fails."""
        if self._process is not None:
            self._process.kill()

    def end(self) -> None:
        """Ends the process for good, also one that another thread is just starting."""
        with self._lock:
            self._is_over = True
            self.kill()

    def _started(self) -> tuple[multiprocessing.process.BaseProcess, Connection]:
        if self._process is None or self._pipe is None:
            pipe, theirs = self._context.Pipe()
            process = self._context.Process(target=_serve, args=(theirs,), daemon=True)
            process.start()  # the first one waits for the server of forks, seconds on a busy machine
            theirs.close()  # so that the pipe ends with the process
            with self._lock:
                self._process, self._pipe = process, pipe
                if self._is_over:
                    self.kill()
        return self._process, self._pipe


def _serve(pipe: Connection) -> None:
    """Answers calls until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C goes to all processes of a terminal; the first one decides
    end_with_parent()
    while True:
        try:
            call = pipe.recv()
        except EOFError:
            return
        except Exception as error:  # a call that cannot be understood here is answered like one that failed
            call = partial(_raise, error)
        pipe.send(None)
        pipe.send(_answer(call))


def _answer(call: Callable[[], Any]) -> tuple[bool, Any]:
    try:
        return True, call()
    except Exception as error:  # whatever it is, it belongs to the caller; its traceback would stay behind
        error.add_note(f"In a worker process:\n{traceback.format_exc()}")
        return False, error


def _raise(error: Exception) -> None:
    raise error


def _ending(exit_code: int | None) -> str:
    """What became of a process, in words."""
    if exit_code == -signal.SIGKILL:
        return "was killed, which usually means that memory ran out"
    if exit_code is not None and exit_code < 0:
        return f"crashed ({signal.Signals(-exit_code).name}), probably inside a library that reads the file"
    return f"ended without a word (exit code {exit_code})"
