"""Fifty kills of each stage, at random times; what is taken up again ends with the bytes of an undisturbed run.

The kills happen in forks of one process that has imported everything, so that fifty of them take seconds. That process is
a fresh one: the one of the tests may run threads, which a fork would lose.
"""

from __future__ import annotations

import faulthandler
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

KILLS, ENDS = 50, 3
ROOT = Path(__file__).resolve().parents[1]
# They say how long something took.
TIMES = ("metrics.jsonl", "seconds.json")


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["preprocess", "train", "predict"])
def test_fifty_kills_at_random_times_change_no_byte_and_leave_no_file(stage, tmp_path):
    env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    finished = subprocess.run([sys.executable, __file__, stage, str(tmp_path)], env=env, capture_output=True, text=True,
                              timeout=280, check=False)
    assert finished.returncode == 0, finished.stderr[-4000:]
    result = json.loads(finished.stdout.splitlines()[-1])
    assert result["kills"] >= KILLS and result["ends"] >= ENDS


def kill_many_times(action: Callable[[Path], object], folder: Path, check: Callable[[Path, Path], None],
                    begin: Callable[[Path], object] = lambda place: None) -> dict[str, int]:
    """Does the action undisturbed in one folder, and in others with kills until it has ended; `check` compares them.

    Args:
        begin: makes what a folder has before the action; it is never killed.
    """
    from breaking import kill_until_done

    from autoseg.stages.attempts import NOTE

    def undisturbed(place: Path) -> float:
        begin(place)
        start = time.perf_counter()
        action(place)
        return time.perf_counter() - start

    longest = 0.7 * min([undisturbed(folder / name) for name in ("warm", "again", "whole")])
    rng, kills, ends = random.Random(0), 0, 0
    while kills < KILLS or ends < ENDS:
        disturbed = folder / f"disturbed{ends}"
        begin(disturbed)
        kills += kill_until_done(lambda: action(disturbed), longest, rng)  # noqa: B023
        check(disturbed, folder / "whole")
        assert not [path for pattern in ("*.part", ".lock.json", ".use.*.json", NOTE) for path in disturbed.rglob(pattern)]
        ends += 1
    return {"kills": kills, "ends": ends}


def preprocess(folder: Path) -> dict[str, int]:
    """Kills while cases are stored, in chunks as large ones are."""
    from breaking import contents
    from toy_tasks.datasets import make_toy, open_toy

    from autoseg import pipeline
    from autoseg.io import store

    store.SMALL_BYTES = 2000
    toy = make_toy("segmentation", folder)
    name = toy.workspace.store(toy.plan, toy.configuration).relative_to(toy.workspace.layout.root)
    shutil.rmtree(toy.workspace.layout.folder / "store")

    def begin(root: Path) -> None:
        shutil.copytree(toy.workspace.layout.root, root)

    def action(root: Path) -> None:
        pipeline.preprocess(open_toy("segmentation", folder, root), toy.plan, [toy.configuration.name], executor=None)

    def check(disturbed: Path, whole: Path) -> None:
        assert len(list((whole / name).glob("*.b2nd"))) == 16
        assert contents(disturbed / name) == contents(whole / name)

    return kill_many_times(action, folder, check, begin)


def train(folder: Path) -> dict[str, int]:
    """Kills while a fold is trained, with a checkpoint after every step, and validated."""
    from breaking import contents
    from toy_tasks.datasets import make_toy

    from autoseg import pipeline
    from autoseg.core.progress import silent
    from autoseg.io.lock import locked
    from autoseg.stages.train import run_train
    from autoseg.training.log import read_metrics

    toy = make_toy("segmentation", folder)
    network = replace(toy.configuration.network, features=(4, 6), strides=((1, 1, 1), (2, 2, 2)),
                      kernel_sizes=((3, 3, 3), (3, 3, 3)), convs_encoder=(1, 1), convs_decoder=(1,))
    optimization = replace(toy.configuration.optimization, iterations=10, iterations_per_epoch=1)
    small = replace(toy.configuration, network=network, optimization=optimization)
    run = replace(pipeline.make_run(toy.workspace, toy.plan, toy.configuration.name, "0"), configuration=small)

    def action(place: Path) -> None:
        with locked(place, "train"):
            run_train(replace(run, folder=place), device="cpu", workers=0, progress=silent, should_stop=lambda: False)

    def checkpoints(place: Path) -> list[str]:
        return sorted(path.name[:8] for path in replace(run, folder=place).checkpoints.iterdir())

    def check(disturbed: Path, whole: Path) -> None:
        results = [{name: content for name, content in contents(place, without=TIMES).items()
                    if not name.startswith("checkpoint/")} for place in (disturbed, whole)]
        assert results[0] == results[1]
        logs = [[{**record, "seconds": 0} for record in read_metrics(place / "metrics.jsonl")] for place in (disturbed, whole)]
        assert logs[0] == logs[1] and [record["iteration"] for record in logs[0]] == list(range(1, 11))
        # One more may be left where the kill came between the last rename and the removal of the oldest.
        assert checkpoints(disturbed)[-2:] == checkpoints(whole) == ["00000009", "00000010"]

    return kill_many_times(action, folder, check)


def predict(folder: Path) -> dict[str, int]:
    """Kills while predictions are made and written, by torch."""
    from breaking import contents
    from toy_tasks.datasets import make_toy

    from autoseg import pipeline
    from autoseg.core.progress import silent
    from autoseg.core.task import Context
    from autoseg.stages.attempts import NOTE

    toy = make_toy("segmentation", folder)
    pipeline.train(toy.workspace, toy.plan, toy.configuration.name, "0", device="cpu", workers=0, should_stop=lambda: False)
    pipeline.select(toy.workspace, toy.plan)

    def action(output: Path) -> None:
        (output / NOTE).unlink(missing_ok=True)  # a case is given up after two kills; these kills are no case's fault
        pipeline.predict(toy.workspace.layout.bundle(toy.plan.name), toy.folder / "images", output, Context(engine="torch"),
                         trusted_task=None, progress=silent)

    def check(disturbed: Path, whole: Path) -> None:
        assert len(list(whole.glob("*.nii.gz"))) == 8
        assert contents(disturbed) == contents(whole)

    return kill_many_times(action, folder, check)


if __name__ == "__main__":
    from autoseg.inference import engine

    faulthandler.dump_traceback_later(240, exit=True)
    engine.find_spec = lambda name: None  # OpenVINO runs threads, which a fork would lose
    print(json.dumps({"preprocess": preprocess, "train": train, "predict": predict}[sys.argv[1]](Path(sys.argv[2]))))
