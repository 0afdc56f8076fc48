"""Batches in order, drawn in this process or ahead of time in others; always the same ones."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from autoseg.core.errors import ResourceError
from autoseg.io.processes import end_with_parent

Draw = Callable[[np.random.Generator], dict[str, Any]]

_worker_draw: Draw | None = None


class BatchLoader:
    """Draws batch i from a generator seeded with (seed, fold, i) alone, whatever the number of workers.

    A batch is drawn with one torch thread everywhere, since sums over several threads round differently.

    Args:
        draw: generator -> batch by name; with workers it must be picklable (a `functools.partial` of a function).
        count: batches 0, ..., count - 1 will be asked for; workers draw none beyond, or none beyond the next multiple.
        workers: processes; 0: in this process.
        ahead: batches that each worker may have ready or in work.
    """

    def __init__(
            self, draw: Draw, *, seed: int, fold: int, count: int, workers: int = 0, ahead: int = 2) -> None:
        self._draw = draw
        self._key = (seed, fold)
        self._count = count
        self._window = workers * ahead
        self._futures: dict[int, Future[dict[str, Any]]] = {}
        self._pool = _start_pool(draw, workers) if workers else None

    def __call__(self, iteration: int) -> dict[str, Any]:
        """Batch `iteration`; asking in order keeps the workers ahead.

        Raises:
            What `draw` raises; from a worker with the worker's traceback as its cause.
            ResourceError: a worker process died.
        """
        if self._pool is None:
            with one_thread():
                return self._draw(batch_rng(*self._key, iteration))
        try:
            end = self._count * (iteration // self._count + 1)  # a run that went back draws batches beyond the count
            for ahead in range(iteration, min(end, iteration + self._window)):
                if ahead not in self._futures:
                    self._futures[ahead] = self._pool.submit(_draw_in_worker, self._key, ahead)
            for behind in [index for index in self._futures if index < iteration]:
                self._futures.pop(behind).cancel()
            return _as_tensors(self._futures.pop(iteration).result())
        except BrokenProcessPool as error:
            raise ResourceError("a process that prepares batches died, most likely for want of memory",
                                hint="repeat the command with fewer workers; training resumes") from error

    def close(self) -> None:
        """Stop the workers; batches not yet begun are dropped."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        self._futures.clear()

    def __enter__(self) -> BatchLoader:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def batch_rng(seed: int, fold: int, iteration: int) -> np.random.Generator:
    """The generator of one batch."""
    return np.random.default_rng([seed, fold, iteration])


@contextmanager
def one_thread() -> Iterator[None]:
    """Inside, torch computes with one thread; after, with as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _start_pool(draw: Draw, workers: int) -> ProcessPoolExecutor:
    """Fresh processes: a fork of a process whose threads run can hang, and forks of one with CUDA cannot use it."""
    context = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
    context.set_forkserver_preload(["torch"])  # imported once for all workers, before any thread runs
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_initialise_worker, initargs=(draw,))


def _initialise_worker(draw: Draw) -> None:
    global _worker_draw
    _worker_draw = draw
    torch.set_num_threads(1)
    # Terminals and schedulers signal all processes of a job: the first one decides, and it still needs a batch or none.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    end_with_parent()


def _draw_in_worker(key: tuple[int, int], iteration: int) -> dict[str, Any]:
    """The batch with arrays in place of tensors: torch would send them as shared memory, which containers ration."""
    assert _worker_draw is not None
    batch = _worker_draw(batch_rng(*key, iteration))
    return {name: value.numpy() if isinstance(value, Tensor) else value for name, value in batch.items()}


def _as_tensors(batch: dict[str, Any]) -> dict[str, Any]:
    return {name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value for name, value in batch.items()}
