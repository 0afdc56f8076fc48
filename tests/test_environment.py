"""The same bytes come out whatever the surroundings are, and nothing asks for the network."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from toy_tasks.datasets import Toy, make_toy, open_toy

from autoseg.io.values import read_value, write_value

ROOT = Path(__file__).resolve().parents[1]


def able(*command: str) -> bool:
    """Whether a command can be run here."""
    try:
        return subprocess.run(command, capture_output=True, timeout=20, check=False).returncode == 0
    except OSError:
        return False


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Toy:
    """A toy dataset with a plan of a small network; its folder of results is copied for each run."""
    toy = make_toy("segmentation", tmp_path_factory.mktemp("environment"))
    configuration = toy.configuration
    network = replace(configuration.network, features=(4, 6), strides=((1, 1, 1), (2, 2, 2)),
                      kernel_sizes=((3, 3, 3), (3, 3, 3)), convs_encoder=(1, 1), convs_decoder=(1,))
    short = replace(configuration.optimization, iterations=4, iterations_per_epoch=2)
    plan = replace(toy.plan, configurations={configuration.name: replace(configuration, optimization=short, network=network)})
    write_value(toy.workspace.layout.plan("toy") / "plan.json", plan)
    shutil.rmtree(toy.workspace.layout.folder / "store")
    return replace(toy, plan=plan)


def run_in(toy: Toy, place: Path, *around: str, **environment: str | None) -> dict:
    """Digests of all that preprocessing, training, selection and prediction write, in a process with these variables.

    Args:
        around: commands that the process is started by.
        environment: None: not set.
    """
    shutil.copytree(toy.workspace.layout.root, place / "root")
    for name in ("tmp", "home"):
        (place / name).mkdir()
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "OMP_NUM_THREADS": "1",
           "TMPDIR": str(place / "tmp"), "HOME": str(place / "home")}
    for name, value in environment.items():
        env.pop(name, None)
        if value is not None:
            env[name] = value
    finished = subprocess.run([*around, sys.executable, __file__, str(toy.folder), str(place)], env=env, capture_output=True,
                              text=True, timeout=250, check=False, cwd=place)
    assert finished.returncode == 0, finished.stderr[-4000:]
    assert not list((place / "home").iterdir())
    assert not [path for path in (place / "tmp").rglob("*") if path.is_file()]  # torch makes an empty folder of its own
    return json.loads(finished.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def expected(toy, tmp_path_factory) -> dict:
    return run_in(toy, tmp_path_factory.mktemp("plain"))


@pytest.mark.slow
def test_an_ordinary_run_asks_for_no_network_and_leaves_nothing_in_the_home_folder(expected):
    assert expected["asked_for"] == [] and len(expected["digests"]) > 40


@pytest.mark.slow
def test_clock_locale_time_zone_home_umask_and_hash_seed_change_no_byte_and_no_network_is_needed(toy, expected, tmp_path):
    alone = ("unshare", "-rn") if able("unshare", "-rn", "true") else ()
    found = run_in(toy, tmp_path, *alone, "sh", "-c", 'umask 077; exec "$@"', "sh", LC_ALL="C", LANG="C", TZ="Pacific/Apia",
                   HOME=None, PYTHONHASHSEED="4711", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0", AUTOSEG_TEST_CLOCK="1")
    assert found == expected
    written = [path for path in (tmp_path / "out").rglob("*") if path.is_file() and not path.name.startswith(".")]
    assert written and all(path.stat().st_mode & 0o077 == 0 for path in written)


@pytest.mark.slow
def test_spawned_processes_a_read_only_home_and_little_shared_memory_change_no_byte(toy, expected, tmp_path):
    small = ("unshare", "-rm", "sh", "-c", 'mount -t tmpfs -o size=64k tmpfs /dev/shm && exec "$@"', "sh")
    found = run_in(toy, tmp_path, *(small if able(*small, "true") else ()), HOME="/proc", AUTOSEG_TEST_SPAWN="1")
    assert found == expected


def main(data: Path, place: Path) -> dict:
    """Runs everything in `place` and digests what was written; what was asked of the network is listed."""
    asked_for: list[str] = []
    sys.addaudithook(lambda event, given: asked_for.append(f"{event} {given}") if is_network(event, given) else None)
    from breaking import contents

    from autoseg import pipeline
    from autoseg.cli.run import workers
    from autoseg.core.plan import Plan
    from autoseg.core.progress import silent
    from autoseg.core.task import Context
    from autoseg.io.atomic import sha256_bytes

    spawn = os.environ.get("AUTOSEG_TEST_SPAWN") == "1"
    if spawn:
        import multiprocessing

        only = multiprocessing.get_context("spawn")
        multiprocessing.get_context = lambda method=None: only
    if os.environ.get("AUTOSEG_TEST_CLOCK") == "1":
        jump_about(place / "root")
    workspace = open_toy("segmentation", data, place / "root")
    plan = read_value(workspace.layout.plan("toy") / "plan.json", Plan)
    name = next(iter(plan.configurations))
    with workers(2 if spawn else 1, workspace) as executor:
        pipeline.preprocess(workspace, plan, [name], executor=executor)
    pipeline.train(workspace, plan, name, "0", device="cpu", workers=int(spawn), should_stop=lambda: False)
    pipeline.select(workspace, plan)
    pipeline.predict(workspace.layout.bundle("toy"), data / "images", place / "out", Context(), trusted_task=None,
                     progress=silent)
    times = ("metrics.jsonl", "seconds.json")
    written = contents(workspace.layout.folder, without=times) | contents(place / "out")
    return {"asked_for": asked_for, "digests": {path: sha256_bytes(content) for path, content in written.items()
                                                if not path.endswith(".checkpoint")}}


def jump_about(folder: Path) -> None:
    """From now on the clock goes back an hour each time it is asked, from 2040 and again from 1970; so do times of files."""
    import time

    hours = itertools.cycle([2_208_988_800 - 3600 * hour for hour in range(50)] + [3600 * hour for hour in range(9, 0, -1)])
    time.time = lambda: float(next(hours))
    time.time_ns = lambda: next(hours) * 10**9
    renamed = os.replace

    def replace_at_another_time(source, target):
        renamed(source, target)
        os.utime(target, (moment := next(hours), moment))

    os.replace = replace_at_another_time
    for path in sorted(folder.rglob("*")):
        os.utime(path, (moment := next(hours), moment))


def is_network(event: str, given: tuple) -> bool:
    """True for Python's reports of a connection, a message or a question for an address; sockets of files are none."""
    import socket

    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        return given[0].family != socket.AF_UNIX
    return event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr")


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2]))))
