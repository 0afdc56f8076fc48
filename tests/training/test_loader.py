from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from autoseg.core.errors import DatasetError, ResourceError
from autoseg.training.loader import BatchLoader, batch_rng

# Workers import what they run, so it stands in a module of its own on the path.
TOY = '''
import os
import torch
from autoseg.core.errors import DatasetError

def draw(size, rng):
    number = rng.integers(1000)
    noise = rng.normal(size=(size, 100_000)).astype("f4")
    return {"image": torch.from_numpy(noise), "mean": torch.from_numpy(noise).mean(), "cases": [f"case_{number}"],
            "threads": torch.get_num_threads(), "process": os.getpid()}

def fail(kind, rng):
    if kind == "dataset":
        raise DatasetError("case 7 has no label", code="E_SEVEN", hint="look at it")
    if kind == "bug":
        return {}["nothing"]
    os._exit(1)
'''


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Iterator:
    folder = tmp_path_factory.mktemp("loader")
    (folder / "toy_batches_of_the_loader.py").write_text(TOY)
    sys.path.insert(0, str(folder))
    sys.path.insert(0, str(Path(__file__).parents[2]))
    import toy_batches_of_the_loader
    yield toy_batches_of_the_loader
    del sys.path[:2]


def test_batch_depends_on_seed_fold_and_iteration_only(toy):
    loader = BatchLoader(partial(toy.draw, 2), seed=3, fold=1, count=10)

    assert torch.equal(loader(4)["image"], loader(4)["image"])
    expected = toy.draw(2, np.random.default_rng([3, 1, 4]))
    assert torch.equal(loader(4)["image"], expected["image"]) and loader(4)["cases"] == expected["cases"]


def test_seed_fold_and_iteration_each_change_the_stream():
    streams = {batch_rng(*key).integers(2**60) for key in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))}

    assert len(streams) == 4


def test_any_number_of_workers_gives_the_same_batches_drawn_elsewhere(toy):
    draw = partial(toy.draw, 2)
    alone = BatchLoader(draw, seed=1, fold=0, count=6)

    with BatchLoader(draw, seed=1, fold=0, count=6, workers=2) as shared:
        found = [shared(iteration) for iteration in range(6)]

    for iteration, batch in enumerate(found):
        expected = alone(iteration)
        assert torch.equal(batch["image"], expected["image"]) and batch["cases"] == expected["cases"]
        assert torch.equal(batch["mean"], expected["mean"])
        assert batch["threads"] == expected["threads"] == 1
        assert batch["process"] != os.getpid()


def test_loader_may_start_anywhere_and_draws_ahead_within_bounds(toy):
    with BatchLoader(partial(toy.draw, 1), seed=1, fold=0, count=9, workers=1, ahead=2) as loader:
        loader(5)
        assert set(loader._futures) == {6}
        loader(8)
        assert set(loader._futures) == set()
        loader(11)  # a run that went back to a checkpoint draws the next nine
        assert set(loader._futures) == {12}


def test_number_of_torch_threads_is_put_back(toy):
    before = torch.get_num_threads()

    BatchLoader(partial(toy.draw, 1), seed=0, fold=0, count=1)(0)

    assert torch.get_num_threads() == before


def test_user_error_in_a_worker_arrives_as_it_is(toy):
    with BatchLoader(partial(toy.fail, "dataset"), seed=0, fold=0, count=3, workers=1) as loader, \
            pytest.raises(DatasetError, match="case 7 has no label") as caught:
        loader(0)
    assert (caught.value.code, caught.value.hint) == ("E_SEVEN", "look at it")


def test_bug_in_a_worker_arrives_with_the_workers_traceback(toy):
    with BatchLoader(partial(toy.fail, "bug"), seed=0, fold=0, count=3, workers=1) as loader, \
            pytest.raises(KeyError) as caught:
        loader(0)
    assert "toy_batches_of_the_loader.py" in "".join(traceback.format_exception(caught.value))


def test_worker_that_dies_is_a_resource_error(toy):
    with BatchLoader(partial(toy.fail, "death"), seed=0, fold=0, count=3, workers=1) as loader, \
            pytest.raises(ResourceError, match="died"):
        loader(0)


KILLED = '''
import os, signal, sys
from functools import partial
from toy_batches_of_the_loader import draw
from autoseg.training.loader import BatchLoader

if __name__ == "__main__":
    loader = BatchLoader(partial(draw, 2), seed=0, fold=0, count=9, workers=1)
    worker = loader(0)["process"]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(worker, number)
    assert loader(5)["process"] == worker
    print(worker, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
'''


def test_workers_leave_signals_to_the_process_that_trains_and_end_when_it_is_killed(toy, tmp_path):
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    path = os.pathsep.join([str(Path(toy.__file__).parent), str(Path(__file__).parents[2])])
    finished = subprocess.run([sys.executable, str(script)], env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE,
                              text=True, timeout=60, check=False)
    assert finished.returncode == -signal.SIGKILL
    worker = int(finished.stdout)
    for _ in range(100):
        if not is_running(worker):
            return
        time.sleep(0.1)
    os.kill(worker, signal.SIGKILL)
    pytest.fail("the worker lives on without the process that it works for")


def is_running(process: int) -> bool:
    """False for a dead process, one that nobody has asked for its end yet included."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{process}/stat")
    try:
        return not status.parent.parent.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
        return False
