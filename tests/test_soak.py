"""Ten thousand predictions in one process: memory, open files, threads and temporary files stay as they are."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
PREDICTIONS = 10_000
# Predictions between two looks; after the first so many, caches are as large as they become.
STRIDE = 1_000
# Less than half of what one leaked label map per prediction (8 x 8 x 8 bytes) would add up to.
MOST_GROWTH_BYTES = 2 * 2**20


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_ten_thousand_predictions_take_no_more_than_one_thousand_did(tmp_path):
    (tmp_path / "tmp").mkdir()
    env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "OMP_NUM_THREADS": "1",
           "TMPDIR": str(tmp_path / "tmp"), "HOME": str(tmp_path / "tmp")}
    finished = subprocess.run([sys.executable, __file__, str(tmp_path / "toy")], env=env, capture_output=True, text=True,
                              timeout=280, check=False)
    assert finished.returncode == 0, finished.stderr[-4000:]
    looks = json.loads(finished.stdout.splitlines()[-1])
    assert len(looks) == PREDICTIONS // STRIDE
    assert max(look["own_bytes"] for look in looks) - looks[0]["own_bytes"] < MOST_GROWTH_BYTES, looks
    for name in ("descriptors", "threads", "files"):
        assert {look[name] for look in looks} == {looks[0][name]}, looks
    assert looks[0]["labels"] > 1


def soak(folder: Path) -> list[dict[str, int]]:
    """What the process holds after every so many predictions by one predictor with a small network."""
    import torch
    from toy_tasks.datasets import make_toy

    from autoseg.core.bundle import Bundle, Decisions, Member
    from autoseg.core.task import Context
    from autoseg.inference.engine import in_use
    from autoseg.stages.predict import Predictor

    folder.mkdir()
    toy = make_toy("segmentation", folder)
    network = replace(toy.configuration.network, features=(4, 6), strides=((1, 1, 1), (2, 2, 2)),
                      kernel_sizes=((3, 3, 3), (3, 3, 3)), convs_encoder=(1, 1), convs_decoder=(1,))
    small = replace(toy.configuration, network=network, patch_size=(8, 8, 8))
    plan = replace(toy.plan, configurations={small.name: small})
    torch.manual_seed(0)
    used = in_use(toy.task.build_network(small), small.inference, "cpu", "auto")
    bundle = Bundle(toy.workspace.spec, plan, (Member(small.name, "0", "", ""),), Decisions(), toy.workspace.fingerprint, "")
    predictor = Predictor(bundle, [used], toy.task, Context())
    volumes = np.random.default_rng(0).normal(size=(16, 8, 8, 8)).astype(np.float32)
    looks = []
    for number in range(1, PREDICTIONS + 1):
        label = predictor.predict_array(volumes[number % 16], (1.0, 1.0, 1.0)).label
        if number % STRIDE == 0:
            gc.collect()
            looks.append(look(folder) | {"labels": len(np.unique(label))})
    return looks


def look(folder: Path) -> dict[str, int]:
    # Memory of its own: pages of files come and go as the system likes.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    own = sum(int(status[name].split()[0]) * 1024 for name in ("RssAnon", "VmSwap"))
    return {"own_bytes": own, "descriptors": len(os.listdir("/proc/self/fd")),
            "threads": len(os.listdir("/proc/self/task")),
            "files": sum(1 for place in (Path(os.environ["TMPDIR"]), folder) for _ in place.rglob("*"))}


if __name__ == "__main__":
    print(json.dumps(soak(Path(sys.argv[1]))))
