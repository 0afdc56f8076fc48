from __future__ import annotations

import os
import shutil
import signal
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from breaking import contents
from toy_tasks.datasets import SPECS, open_toy, plan_toy, write_cases

from autoseg import pipeline
from autoseg.core.errors import DatasetError, LockedError, PartialError, ResourceError
from autoseg.core.progress import silent
from autoseg.io.dataset import examine_case, scan
from autoseg.io.images import read_image, write_volume
from autoseg.io.lock import reading
from autoseg.stages.check import run_check
from autoseg.stages.fingerprint import run_fingerprint
from autoseg.stages.parallel import map_cases
from autoseg.stages.prepare import grid_hash, prepare_inputs, read_inputs
from autoseg.stages.preprocess import run_preprocess
from autoseg.stages.workers import CaseWorkers


@pytest.fixture
def copied(toy, tmp_path):
    for name in ("images", "labels"):
        shutil.copytree(toy.folder / name, tmp_path / name)
    return toy.task.index(toy.workspace.spec, scan(toy.workspace.spec, tmp_path).cases)


def run(toy, units, folder, executor=None):
    return run_preprocess(toy.task, toy.workspace.spec, units, toy.plan, toy.configuration, folder, executor=executor,
                          progress=silent)


def test_only_the_changed_case_is_prepared_again(toy, copied, tmp_path):
    first = run(toy, copied, tmp_path / "store").array(copied[1].id, "image")
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "store").glob("p*")}
    image = read_image(copied[1].cases[0].inputs["image"])
    write_volume(copied[1].cases[0].inputs["image"][0], image.voxels[:, :, ::-1].copy(), image)
    again = run(toy, copied, tmp_path / "store")
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "store").glob("p*")}
    assert {name.partition(".")[0] for name in after if after[name] != before[name]} == {copied[1].id}
    assert np.allclose(again.array(copied[1].id, "image"), first[:, :, ::-1], atol=1e-5)


def test_worker_processes_store_the_same_bytes_as_one_process(toy, copied, tmp_path):
    alone = run(toy, copied, tmp_path / "alone")
    with ProcessPoolExecutor(2) as pool:
        together = run(toy, copied, tmp_path / "together", executor=pool)
    for unit in copied:
        for name in alone.names(unit.id):
            assert np.array_equal(alone.array(unit.id, name), together.array(unit.id, name))


def test_a_refused_case_is_named_and_the_others_are_stored(toy, copied, tmp_path):
    path = copied[3].cases[0].inputs["image"][0]
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(DatasetError, match=copied[3].id):
        run(toy, copied, tmp_path / "store")
    assert len(list((tmp_path / "store").glob("*.case.json"))) == len(copied) - 1
    assert not (tmp_path / "store" / "done.json").exists()


DEADLY = "p1_scan2"


def read_target_and_die(unit, spec):
    """As segmentation reads a target, but one case kills the process that reads it."""
    from autoseg.tasks.segmentation import TASK

    if unit.id == DEADLY:
        os.kill(os.getpid(), signal.SIGKILL)
    return TASK.read_target(unit, spec)


def test_a_case_that_kills_its_worker_is_named_the_others_are_stored_and_a_repeat_prepares_only_it(toy, copied, tmp_path):
    deadly = replace(toy.task, read_target=read_target_and_die)
    with CaseWorkers(2, preload=["autoseg.stages.preprocess"]) as pool, pytest.raises(PartialError) as caught:
        run_preprocess(deadly, toy.workspace.spec, copied, toy.plan, toy.configuration, tmp_path / "store", executor=pool,
                       progress=silent)
    assert caught.value.exit_code == 4 and f"{DEADLY}: the process that worked on it was killed" in str(caught.value)
    assert "--jobs" in caught.value.hint
    stored = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "store").glob("*.case.json")}
    assert len(stored) == len(copied) - 1 and not (tmp_path / "store" / "done.json").exists()
    store = run(toy, copied, tmp_path / "store")
    assert {name for name in stored if (store.folder / name).stat().st_mtime_ns != stored[name]} == set()
    assert DEADLY in store.cases() and len(store.cases()) == len(copied)


def test_measuring_names_the_case_that_kills_its_worker_and_keeps_what_the_others_gave(toy, copied, tmp_path):
    deadly = replace(toy.task, read_target=read_target_and_die)
    with CaseWorkers(2, preload=["autoseg.stages.preprocess"]) as pool, pytest.raises(PartialError, match=DEADLY):
        run_fingerprint(deadly, toy.workspace.spec, copied, tmp_path, executor=pool, progress=silent)
    assert len(list((tmp_path / "cases").iterdir())) == len(copied) - 1
    assert not (tmp_path / "fingerprint.json").exists()


def test_check_lists_a_case_that_memory_does_not_suffice_for(toy, copied, monkeypatch):
    def starving(spec, case):
        if case.id == DEADLY:
            raise MemoryError
        return examine_case(spec, case)

    monkeypatch.setattr("autoseg.stages.check.examine_case", starving)
    found = scan(toy.workspace.spec, copied[0].cases[0].inputs["image"][0].parents[1])
    understood = run_check(toy.task, toy.workspace.spec, found, copied, toy.folder, executor=None, progress=silent)
    assert [(problem.unit, problem.code) for problem in understood.problems] == [(DEADLY, "E_MEMORY")]


def die(number: int) -> int:
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_a_pool_that_gives_all_its_cases_up_is_explained_with_those_under_way():
    with ProcessPoolExecutor(1) as pool, pytest.raises(ResourceError, match="killed it for memory.*case1"):
        map_cases(die, [0, 1, 2], ["case0", "case1", "case2"], stage="test", executor=pool, progress=silent)


def test_configurations_that_prepare_every_case_alike_share_a_store(toy):
    flat, full = (toy.plan.configurations[name] for name in ("2d", "3d_fullres"))
    spec = toy.workspace.spec
    assert grid_hash(toy.plan, flat, spec, [(1.0, 1.0, 1.0)]) == grid_hash(toy.plan, full, spec, [(1.0, 1.0, 1.0)])
    mixed = [(1.0, 1.0, 1.0), (2.0, 1.0, 1.0)]
    assert grid_hash(toy.plan, flat, spec, mixed) != grid_hash(toy.plan, full, spec, mixed)


def test_images_are_normalised_before_they_are_resampled(toy):
    unit = toy.workspace.units[0]
    arrays, record = prepare_inputs(read_inputs(unit, toy.workspace.spec), toy.plan, toy.configuration)
    voxels = read_image(unit.cases[0].inputs["image"]).voxels
    assert record.model_shape == voxels.shape[1:]
    assert np.allclose(arrays["image"], (voxels - voxels.mean()) / voxels.std(), atol=1e-4)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_only_the_damaged_case_is_stored_again_with_the_same_bytes(toy, copied, tmp_path, caplog):
    folder = tmp_path / "store"
    run(toy, copied, folder)
    before, times = contents(folder), {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    flip(folder / f"{copied[2].id}.image.npy")
    run(toy, copied, folder)
    assert contents(folder) == before
    assert f"{copied[2].id}.image.npy is missing or differs" in caplog.text
    written = {name.partition(".")[0] for name, time in times.items() if (folder / name).stat().st_mtime_ns != time}
    assert written == {copied[2].id, "done"}


def test_a_store_in_use_is_left_alone_unless_a_case_would_be_rewritten(toy, copied, tmp_path):
    folder = tmp_path / "store"
    run(toy, copied[:-1], folder)
    with reading(folder, "train"):
        kept = contents(folder)
        run(toy, copied[:-1], folder)
        assert contents(folder) == kept
        run(toy, copied, folder)  # a case more disturbs nobody
        assert kept.items() - {("done.json", kept["done.json"])} <= contents(folder).items()
        image = read_image(copied[1].cases[0].inputs["image"])
        write_volume(copied[1].cases[0].inputs["image"][0], image.voxels + 1, image)
        before = contents(folder)
        with pytest.raises(LockedError, match="'autoseg train' on host .* its files would change under them"):
            run(toy, copied, folder)
        assert contents(folder) == before
    run(toy, copied, folder)
    assert contents(folder) != before


def test_configurations_of_one_grid_share_a_store_that_is_made_once(tmp_path):
    (tmp_path / "spec.yaml").write_text(SPECS["segmentation"])
    write_cases(tmp_path, "segmentation")
    heard = []
    workspace = replace(open_toy("segmentation", tmp_path, tmp_path / "root"),
                        progress=lambda stage, *rest: heard.append(stage))
    plan = plan_toy(workspace)
    one = next(iter(plan.configurations.values()))
    both = replace(plan, configurations={"one": replace(one, name="one"), "two": replace(one, name="two")})
    [folder] = pipeline.preprocess(workspace, both, (), executor=None)
    assert folder.is_dir() and any(stage.endswith(" one") for stage in heard)
    assert not any(stage.endswith(" two") for stage in heard)
