"""Disks that are full, read-only or limited, and folders of others, for every verb: real file systems, real users.

Most of it runs in child processes with a file system of their own (`unshare -m`, tmpfs), as root only.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from toy_tasks.datasets import make_toy, open_toy

from autoseg import pipeline
from autoseg.cli.app import run as command
from autoseg.core.errors import ResourceError
from autoseg.core.geometry import Geometry
from autoseg.core.image import Image
from autoseg.core.progress import silent
from autoseg.core.task import Context
from autoseg.io.atomic import require_writable
from autoseg.io.images import write_label_map
from autoseg.io.values import write_value
from autoseg.stages import limits
from autoseg.stages import train as stages_train
from autoseg.training.log import MetricsLog, read_metrics
from autoseg.workspace import Source

ROOT = Path(__file__).parents[1]
SMALL = "2m"
ENDINGS = (".nii.gz", ".nii", ".mha", ".nrrd", ".tif", ".png", ".bmp")


@cache
def may_mount() -> bool:
    """Whether this process may have file systems of its own."""
    try:
        return subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def on_small_disk(scenario: str, folder: Path, *arguments: str, size: str = SMALL) -> dict:
    """What a scenario of this file says (JSON) that ran with a tmpfs of this size mounted at `folder`."""
    if not may_mount():
        pytest.skip("no file system can be mounted here (needs root and unshare)")
    folder.mkdir(exist_ok=True)
    script = f'mount -t tmpfs -o size={size} tmpfs "$1" && exec "$2" "$3" "${{@:4}}"'
    child = subprocess.run(["unshare", "-m", "bash", "-c", script, "bash", str(folder), sys.executable, __file__, scenario,
                            str(folder), *arguments], capture_output=True, text=True, check=False, timeout=170,
                           env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])})
    assert child.returncode == 0, child.stderr
    return json.loads(child.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    """A toy dataset with a trained fold and a bundle of a small network below `home`."""
    toy = make_toy("segmentation", tmp_path_factory.mktemp("disk"))
    configuration = toy.plan.configuration("3d_fullres")
    network = replace(configuration.network, features=(4,) * len(configuration.network.features))
    optimization = replace(configuration.optimization, iterations=6, iterations_per_epoch=2)
    small = replace(toy.plan, configurations={
        "3d_fullres": replace(configuration, network=network, optimization=optimization)})
    folder = toy.workspace.layout.plan(toy.plan.name)
    write_value(folder / "plan.json", small)
    (folder / "done.json").unlink()  # a plan of our own
    write_value(toy.workspace.layout.folder / "last.json", {"plan": "toy"})
    train(toy.workspace, small)
    pipeline.select(toy.workspace, small)
    return toy.folder


def train(workspace, plan, should_stop: Callable[[], bool] = lambda: False) -> None:
    pipeline.train(workspace, plan, "3d_fullres", "0", device="cpu", workers=0, should_stop=should_stop)


@pytest.mark.slow
def test_a_full_disk_while_preparing_ends_with_6_and_what_is_needed_and_resumes(dataset, tmp_path):
    found = on_small_disk("preprocess", tmp_path / "disk", str(dataset))
    code, message = found["full"]
    assert code == 6 and "/store/" in message and "bytes are needed" in message and "are free there" in message
    assert 0 < found["stored"] < 8 and not found["done"]
    assert found["again"] == 0 and found["same"]


@pytest.mark.slow
def test_a_full_disk_at_a_checkpoint_keeps_the_earlier_one_and_training_ends_bit_equal(dataset, tmp_path):
    found = on_small_disk("checkpoint", tmp_path / "disk", str(dataset))
    code, message = found["full"]
    assert code == 6 and ".checkpoint cannot be written (" in message and "the disk is full" in message
    assert found["kept"] == ["00000002"] and found["left"] == []
    weights = dataset / "home" / "ToyLabels" / "runs" / "toy" / "3d_fullres" / "fold_0" / "training" / "model.safetensors"
    assert found["resumed"] == weights.read_bytes().hex()


@pytest.mark.slow
def test_a_full_disk_at_a_page_keeps_the_earlier_page(dataset, tmp_path):
    found = on_small_disk("report", tmp_path / "disk", str(dataset), size="4m")  # the arrays of the baseline take 0.8 MB
    assert found["full"][0] == 6 and "report.html" in found["full"][1] and found["old"] and found["again"] == 0


@pytest.mark.slow
def test_a_full_disk_while_predicting_keeps_what_is_done_and_goes_on_from_there(dataset, tmp_path):
    found = on_small_disk("predict", tmp_path / "disk", str(dataset))
    code, message = found["full"]
    assert code == 6 and "cannot be written" in message and "the disk is full" in message
    assert found["finished"] == found["written"] and 0 < len(found["written"]) < 8
    assert found["again"] == 8 and found["kept"] and found["left"] == []


def test_a_log_that_met_a_full_disk_goes_on_with_whole_lines(tmp_path):
    found = on_small_disk("log", tmp_path / "disk")
    assert "metrics.jsonl" in found["message"] and found["before"] > 10
    assert found["after"] == [*range(found["before"]), found["before"]]


def test_no_image_format_leaves_half_a_file_or_calls_a_full_disk_a_bug(tmp_path):
    found = on_small_disk("formats", tmp_path / "disk", size="100k")
    assert set(found) == set(ENDINGS)
    for ending, (message, left) in found.items():
        assert message.startswith(f"{tmp_path / 'disk'}/x{ending} cannot be written (") and left == []


@pytest.mark.slow
def test_no_verb_begins_work_on_a_read_only_disk(dataset, tmp_path):
    found = on_small_disk("read_only", tmp_path / "disk", str(dataset), size="8m")
    assert set(found) == {"plan", "plan_and_preprocess", "fit", "train", "report", "predict", "init"}
    for verb, (code, message) in found.items():
        assert code == 6 and "read-only" in message and str(tmp_path / "disk") in message, (verb, code, message)


@pytest.mark.slow
def test_a_limit_of_file_size_is_met_before_training_begins(dataset, tmp_path):
    shutil.copytree(dataset, tmp_path / "data")
    shutil.rmtree(tmp_path / "data" / "home" / "ToyLabels" / "runs")
    script = 'ulimit -f 40; exec "$1" -m autoseg.cli train -d ToyLabels -f 0 --root "$2"'  # 40 KiB
    child = subprocess.run(["bash", "-c", script, "bash", sys.executable, str(tmp_path / "data" / "home")], text=True,
                           capture_output=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=tmp_path)
    assert child.returncode == 6, child.stderr
    assert "ulimit -f" in child.stderr and "fold_0" in child.stderr and "bytes are needed" in child.stderr
    assert not list((tmp_path / "data" / "home" / "ToyLabels" / "runs").rglob("*.checkpoint"))


@pytest.mark.slow
def test_a_folder_of_somebody_else_is_refused_before_work_begins(dataset):
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to other users
        folder = Path(name)
        shutil.copytree(dataset, folder / "data")
        write_value(folder / "data/home/ToyLabels/source.json", Source(str(folder / "data")))
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        try:
            child = subprocess.run([sys.executable, __file__, "somebody_else", str(folder / "data")], check=False, timeout=170,
                                   capture_output=True, text=True,
                                   env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT}/tests"})
        finally:
            for path in (folder, *folder.rglob("*")):
                path.chmod(0o755)
    assert child.returncode == 0, child.stderr
    found = json.loads(child.stdout.splitlines()[-1])
    for verb, path in {"predict": "data/out", "plan": "data/home/ToyLabels", "report": "data/home/ToyLabels"}.items():
        code, message = found[verb]
        assert code == 6 and "permission denied" in message and path in message, (verb, message)


def test_a_probe_leaves_nothing_and_names_folder_and_need(tmp_path):
    require_writable(tmp_path / "new" / "folder", 10**12)  # takes no space
    assert list((tmp_path / "new" / "folder").iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError, match="below cannot be made: a file stands where a folder is needed"):
        require_writable(tmp_path / "file" / "below")


# What runs in children.


def fill(disk: Path, leave_bytes: int = 0) -> Path:
    """A file that takes what is free but for some bytes."""
    ballast = disk / "ballast"
    with ballast.open("wb") as file:
        try:
            for _ in range(max(0, shutil.disk_usage(disk).free - leave_bytes) // 4096):
                file.write(bytes(4096))
                file.flush()
        except OSError:
            pass
    return ballast


def failing(*arguments: str) -> tuple[int, str]:
    """Exit code and message of a command."""
    import contextlib
    import io

    with contextlib.redirect_stderr(io.StringIO()) as said, contextlib.redirect_stdout(io.StringIO()):
        code = command(list(arguments))
    return code, said.getvalue()


def copied(dataset: Path, disk: Path, *without: str) -> Path:
    """The home of the dataset on the small disk."""
    shutil.copytree(dataset / "home", disk / "home", ignore=shutil.ignore_patterns(*without))
    return disk / "home"


def preprocess(disk: Path, dataset: str) -> dict:
    home = copied(Path(dataset), disk, "store", "runs", "bundles", "baseline")
    workspace = open_toy("segmentation", Path(dataset), home)
    plan = workspace.plan("toy")
    ballast = fill(disk, 130_000)
    full = raised(lambda: pipeline.preprocess(workspace, plan, (), executor=None))
    store = workspace.store(plan, plan.configuration("3d_fullres"))
    stored, done = len(list(store.glob("*.case.json"))), (store / "done.json").exists()
    ballast.unlink()
    pipeline.preprocess(workspace, plan, (), executor=None)
    reference = Path(dataset) / "home" / "ToyLabels" / "store" / store.name
    same = all((store / path.name).read_bytes() == path.read_bytes() for path in reference.iterdir() if path.name[0] != ".")
    return {"full": full, "stored": stored, "done": done, "again": 0, "same": same}


def raised(action: Callable[[], object]) -> tuple[int, str]:
    try:
        action()
    except ResourceError as error:
        return error.exit_code, str(error)
    return 0, ""


def checkpoint(disk: Path, dataset: str) -> dict:
    home = copied(Path(dataset), disk, "runs", "bundles")
    workspace = open_toy("segmentation", Path(dataset), home)
    plan, asked = workspace.plan("toy"), []

    def fill_later() -> bool:
        asked.append(len(asked))
        if len(asked) == 4:  # after the checkpoint of iteration 2
            fill(disk)
        return False

    full = raised(lambda: train(workspace, plan, fill_later))
    run = workspace.layout.run("toy", "3d_fullres", "0")
    kept = sorted(path.name[:8] for path in run.rglob("*.checkpoint"))
    left = [path.name for path in run.rglob("*.part")]
    (disk / "ballast").unlink()
    train(workspace, plan)
    return {"full": full, "kept": kept, "left": left, "resumed": (run / "training" / "model.safetensors").read_bytes().hex()}


def report(disk: Path, dataset: str) -> dict:
    home = copied(Path(dataset), disk, "bundles")
    page = home / "ToyLabels" / "report.html"
    page.write_text("the old page")
    ballast = fill(disk, 8192)
    full = failing("report", "-d", "ToyLabels", "--plan", "toy", "--root", str(home))
    old = page.read_text() == "the old page"
    ballast.unlink()
    return {"full": full, "old": old, "again": failing("report", "-d", "ToyLabels", "--plan", "toy", "--root", str(home))[0]}


def predict(disk: Path, dataset: str) -> dict:
    out, bundle = disk / "out", Path(dataset) / "home" / "ToyLabels" / "bundles" / "toy"

    def fill_later(stage: str, done: int, total: int, detail: str = "") -> None:
        if done == 3:
            fill(disk)

    def predicted(progress: Callable) -> object:
        return pipeline.predict(bundle, Path(dataset) / "images", out, Context(), trusted_task=None, progress=progress)

    full = raised(lambda: predicted(fill_later))
    names = sorted(path.name for path in out.glob("*.nii.gz"))
    before = {name: (out / name).stat().st_mtime_ns for name in names}
    finished = sorted(f"{name}.nii.gz" for name in json.loads((out / "predictions.json").read_text())["finished"])
    (disk / "ballast").unlink()
    manifest = predicted(silent)
    return {"full": full, "written": names, "finished": finished, "again": len(manifest.finished),
            "kept": all((out / name).stat().st_mtime_ns == time for name, time in before.items()),
            "left": [path.name for path in out.glob("*.part")]}


def log(disk: Path) -> dict:
    metrics, written = MetricsLog(disk / "metrics.jsonl"), 0
    ballast = fill(disk, 16384)
    try:
        for written in range(10**5):
            metrics.append({"iteration": written, "total": 1 / 3})
    except ResourceError as error:
        message = str(error)
    ballast.unlink()
    metrics.truncate(written - 1)
    metrics.append({"iteration": written, "total": 1 / 3})
    return {"message": message, "before": written, "after": [record["iteration"] for record in read_metrics(metrics.path)]}


def formats(disk: Path) -> dict:
    found, rng = {}, np.random.default_rng(0)
    for ending in ENDINGS:
        shape = (1, 400, 400) if ending in (".png", ".bmp") else (40, 64, 64)
        image = Image.canonical(rng.normal(size=(1, *shape)).astype(np.float32), Geometry(shape, (1.0, 1.0, 1.0)))
        try:
            write_label_map(disk / f"x{ending}", rng.integers(0, 200, shape).astype(np.uint8), image)
        except ResourceError as error:
            found[ending] = str(error), [path.name for path in disk.iterdir()]
    return found


def read_only(disk: Path, dataset: str) -> dict:
    home, data = str(copied(Path(dataset), disk)), Path(dataset)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    at = ["-d", "ToyLabels", "--root", home]
    planned = [*at, "--target", "cpu", "--memory", "4GB"]
    return {"plan": failing("plan", *planned), "plan_and_preprocess": failing("plan_and_preprocess", *planned),
            "fit": failing("fit", *planned), "train": failing("train", *at, "-f", "1", "--plan", "toy"),
            "report": failing("report", *at, "--plan", "toy"),
            "predict": failing("predict", "-b", f"{home}/ToyLabels/bundles/toy", "-i", str(data / "images"), "-o", f"{disk}/out"),
            "init": failing("init", str(data), "--name", "X", "-o", f"{disk}/new.yaml")}


def somebody_else(data: Path) -> dict:
    """What commands say in closed folders to a user who is not root; modules are imported before, for lack of rights after."""
    import encodings.utf_8_sig  # noqa: F401

    import autoseg.stages.predict
    import autoseg.stages.report  # noqa: F401

    if os.geteuid() == 0:
        os.setgid(65534)
        os.setuid(65534)
    at = ["-d", "ToyLabels", "--root", str(data / "home")]
    return {"predict": failing("predict", "-b", str(data / "home/ToyLabels/bundles/toy"), "-i", str(data / "images"), "-o",
                               str(data / "out")),
            "plan": failing("plan", *at, "--target", "cpu", "--memory", "4GB"),
            "report": failing("report", *at, "--plan", "toy")}


if __name__ == "__main__":
    # Other programs may fill a disk at any time, which no look ahead can see.
    pipeline.require_space = limits.require_space = stages_train.require_space = lambda *_, **__: None
    scenario, place, *rest = sys.argv[1:]
    print(json.dumps(globals()[scenario](Path(place), *rest)))
