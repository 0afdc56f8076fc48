"""Real commands in real processes: signals that end them, and a second command on the same folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toy_tasks.datasets import make_toy

from autoseg import pipeline
from autoseg.core.progress import silent
from autoseg.io.bundles import read_bundle
from autoseg.io.lock import locked
from autoseg.io.values import write_value
from autoseg.stages.train import run_train

ROOT = Path(__file__).resolve().parents[2]
NAME = "3d_fullres"


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A toy dataset with a plan of a small network."""
    toy = make_toy("segmentation", tmp_path_factory.mktemp("signals"))
    configuration = toy.plan.configuration(NAME)
    network = replace(configuration.network, features=(4, 6), strides=((1, 1, 1), (2, 2, 2)),
                      kernel_sizes=((3, 3, 3), (3, 3, 3)), convs_encoder=(1, 1), convs_decoder=(1,))
    many = replace(configuration.optimization, iterations=40, iterations_per_epoch=40)
    plan = replace(toy.plan, name="own", configurations={NAME: replace(configuration, optimization=many, network=network)})
    write_value(toy.workspace.layout.plan("own") / "plan.json", plan)
    return replace(toy, plan=plan)


# Steps of this network take milliseconds; so there is time to end training before its end.
SLOWLY = """
import time
from autoseg.cli.screen import Screen

def progress(self, stage, *told):
    if stage.startswith("train"):
        print("one step is done", file=sys.stderr, flush=True)
        time.sleep(0.3)

Screen.progress = progress
"""


@contextmanager
def training(toy, fold: str, before: str = SLOWLY, plan: str = "own"):
    """A running `autoseg train` in a process group of its own."""
    arguments = ["train", "-d", "ToyLabels", "--plan", plan, "-f", fold, "--root", str(toy.workspace.layout.root), "--json"]
    threads = str(torch.get_num_threads())
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    # A shell that starts the tests in the background has Ctrl-C ignored, and nohup a closed terminal, which processes inherit
    # and autoseg obeys.
    heard = "signal.signal(signal.SIGINT, signal.default_int_handler); signal.signal(signal.SIGHUP, signal.SIG_DFL)"
    script = f"import signal, sys\n{heard}\n{before}\nfrom autoseg.cli.app import main\nsys.argv[1:] = {arguments!r}\nmain()"
    process = subprocess.Popen([sys.executable, "-c", script], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=True, start_new_session=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for_step(process) -> None:
    """Until a step is done."""
    told = []
    for line in process.stderr:
        if line == "one step is done\n":
            return
        told.append(line)
    raise AssertionError(f"training ended before its first step: {''.join(told)}")


def weights(toy, folder: Path, fold: str) -> bytes:
    run = replace(pipeline.make_run(toy.workspace, toy.plan, NAME, fold), folder=folder)
    run_train(run, device="cpu", workers=0, progress=silent, should_stop=lambda: False)
    return (folder / "training" / "model.safetensors").read_bytes()


def ends_resumably(toy, fold: str, number: signal.Signals) -> tuple[int, dict, str]:
    """Exit code, JSON document and standard error of a training that gets the signal, with its checkpoint looked at."""
    with training(toy, fold) as process:
        wait_for_step(process)
        os.killpg(process.pid, number)
        output, errors = process.communicate(timeout=60)
    folder = toy.workspace.layout.run("own", NAME, fold)
    assert len(list(folder.glob("checkpoint/*/*.checkpoint"))) == 1
    assert not (folder / ".lock.json").exists() and not list(folder.rglob("*.part"))
    return process.returncode, json.loads(output), errors


def test_a_second_run_is_refused_and_sigterm_ends_the_first_with_a_checkpoint_that_resumes_to_the_bit(toy, tmp_path):
    with training(toy, "0") as process:
        wait_for_step(process)
        os.kill(process.pid, signal.SIGSTOP)  # the second run takes seconds to start
        with training(toy, "0") as second:
            output, errors = second.communicate(timeout=60)
        assert second.returncode == 7
        assert f"'autoseg train' on host {os.uname().nodename}, process {process.pid}, started 2" in errors
        assert json.loads(output)["error"]["code"] == "E_LOCKED"
        os.killpg(process.pid, signal.SIGTERM)
        os.kill(process.pid, signal.SIGCONT)
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors
    document = json.loads(output)
    assert (document["exit_code"], document["error"]["code"]) == (143, "E_INTERRUPTED")
    assert "goes on from there" in errors
    folder = toy.workspace.layout.run("own", NAME, "0")
    [checkpoint] = folder.glob("checkpoint/*/*.checkpoint")
    assert 0 < int(checkpoint.name[:8]) < 40
    assert weights(toy, folder, "0") == weights(toy, tmp_path, "0")


def test_a_fold_that_ends_beside_others_waits_for_their_bundle_and_page_and_takes_them_in(toy):
    [configuration] = toy.plan.configurations.values()
    short = replace(configuration, optimization=replace(configuration.optimization, iterations=2, iterations_per_epoch=2))
    plan = replace(toy.plan, name="beside", configurations={NAME: short})
    write_value(toy.workspace.layout.plan("beside") / "plan.json", plan)
    bundle, page = toy.workspace.layout.bundle("beside"), toy.workspace.layout.report

    def train_here(fold: str) -> None:
        pipeline.train(toy.workspace, plan, NAME, fold, device="cpu", workers=0, should_stop=lambda: False)

    def wait_for(folder: Path, verb: str) -> None:
        told = next((line for line in process.stderr if "waiting for its end" in line), "")
        assert f"{folder} is in use by 'autoseg {verb}' on host {os.uname().nodename}, process {os.getpid()}" in told

    with training(toy, "0", "", "beside") as process, ExitStack() as reporting, ExitStack() as selecting:
        reporting.enter_context(locked(bundle.parent, "report"))
        selecting.enter_context(locked(bundle, "select"))
        wait_for(bundle, "select")
        train_here("1")
        assert not (bundle / "bundle.json").exists()
        selecting.close()
        wait_for(bundle.parent, "report")
        assert {member.fold for member in read_bundle(bundle).members} == {"0", "1"}
        train_here("2")
        assert not page.exists()
        reporting.close()
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "fold 0, 1, 2;" in page.read_text()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGHUP, 143)])
def test_ctrl_c_and_a_closed_terminal_end_training_with_a_checkpoint(toy, number, code):
    returned, document, errors = ends_resumably(toy, str(code % 2 + 1), number)
    assert returned == document["exit_code"] == code and "goes on from there" in errors


@pytest.mark.slow
def test_a_second_ctrl_c_ends_at_once_and_leaves_nothing_half(toy):
    # Here drawing a batch never ends, so that the first Ctrl-C cannot be obeyed.
    with training(toy, "3", "import autoseg.training.loader as l, time, sys\n"
                            "def slow(self, i): print('one step is done', file=sys.stderr, flush=True); time.sleep(100)\n"
                            "l.BatchLoader.__call__ = slow") as process:
        wait_for_step(process)
        os.kill(process.pid, signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(2)
        os.kill(process.pid, signal.SIGINT)
        output, errors = process.communicate(timeout=20)
    assert process.returncode == 130 and json.loads(output)["error"]["code"] == "E_INTERRUPTED", errors
    assert not (toy.workspace.layout.run("own", NAME, "3") / ".lock.json").exists()


@pytest.mark.slow
def test_a_hangup_is_ignored_under_nohup(toy):
    with training(toy, "3", "signal.signal(signal.SIGHUP, signal.SIG_IGN)" + SLOWLY) as process:
        wait_for_step(process)
        os.kill(process.pid, signal.SIGHUP)
        for _ in range(5):
            wait_for_step(process)
