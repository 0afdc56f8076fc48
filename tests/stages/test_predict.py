from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from breaking import contents

from autoseg import pipeline
from autoseg.core.bundle import Decisions
from autoseg.core.errors import UsageError
from autoseg.core.progress import silent
from autoseg.core.task import Context
from autoseg.inference import engine
from autoseg.io.bundles import read_bundle
from autoseg.io.images import read_image
from autoseg.io.values import read_json, write_value
from autoseg.stages import predict, units
from autoseg.stages.attempts import NOTE
from autoseg.stages.predict import FINISHED, PredictedCase, PredictionManifest, Predictor, decided
from autoseg.training.device import Stopwatch

ROOT = Path(__file__).parents[2]

needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="OpenVINO is not installed: pip install 'autoseg[cpu]'")


@pytest.fixture(scope="module")
def bundle(toy):
    """The folder of a bundle with two trained members."""
    for fold in ("0", "1"):
        pipeline.train(toy.workspace, toy.plan, "3d_fullres", fold, device="cpu", workers=0, should_stop=lambda: False)
    pipeline.select(toy.workspace, toy.plan)
    return toy.workspace.layout.bundle(toy.plan.name)


def predicted(toy, bundle, folder, context):
    pipeline.predict(bundle, toy.folder / "images", folder, context, trusted_task=None, progress=silent)
    return np.concatenate([read_image([path]).voxels.ravel() for path in sorted(folder.glob("*.nii.gz"))])


@needs_openvino
def test_a_bundle_predicts_the_same_labels_with_and_without_openvino(toy, bundle, tmp_path, monkeypatch):
    by_openvino = predicted(toy, bundle, tmp_path / "openvino", Context(engine="openvino"))
    by_torch = predicted(toy, bundle, tmp_path / "torch", Context(engine="torch"))
    monkeypatch.setattr(engine, "find_spec", lambda name: None)
    elsewhere = predicted(toy, bundle, tmp_path / "elsewhere", Context())
    assert np.array_equal(elsewhere, by_torch)
    assert (by_openvino == by_torch).mean() > 0.9999 and len(np.unique(by_torch)) > 1


@needs_openvino
def test_the_same_prediction_twice_is_the_same_to_the_bit(toy, bundle, tmp_path):
    first, second = (predicted(toy, bundle, tmp_path / name, Context(engine="openvino")) for name in ("first", "second"))
    assert np.array_equal(first, second)


def test_the_user_comes_before_cross_validation_and_that_before_the_plan(toy):
    planned = toy.configuration
    found = Decisions(tile_step=0.75, mirror=True)
    assert decided(planned, Decisions(), Context()) == planned
    assert decided(planned, found, Context()).inference == replace(planned.inference, tile_step=0.75, mirror=True)
    asked = decided(planned, found, Context(tile_step=1.0, mirror=False, precision="fp32"))
    assert asked.inference == replace(planned.inference, tile_step=1.0, mirror=False, precision="fp32")


def test_a_precision_that_the_processor_lacks_is_refused_where_the_user_asks_for_it(toy, monkeypatch):
    monkeypatch.setattr("autoseg.training.device.cpu_supports_bf16", lambda: False)
    with pytest.raises(UsageError, match="does not multiply bf16"):
        decided(toy.configuration, Decisions(), Context(precision="bf16"))
    assert decided(toy.configuration, Decisions(precision="bf16"), Context()).inference.precision == "bf16"


def test_a_bundle_of_format_1_is_read_and_predicts_as_planned(toy, bundle):
    index = bundle / "bundle.json"
    document = read_json(index)
    for name in ("tile_step", "mirror", "precision"):
        del document["decisions"][name]
    write_value(index, document | {"format": 1})
    decisions = read_bundle(bundle).decisions
    assert decided(toy.configuration, decisions, Context()) == toy.configuration


def test_only_cases_without_a_matching_digest_are_predicted_again(toy, bundle, tmp_path, monkeypatch):
    context = Context(engine="torch")
    predicted(toy, bundle, tmp_path, context)
    whole, done = contents(tmp_path), []
    monkeypatch.setattr(Predictor, "predict", lambda self, inputs, one=Predictor.predict: done.append(1) or one(self, inputs))
    predicted(toy, bundle, tmp_path, context)
    assert done == [] and contents(tmp_path) == whole
    first, second, third, *_ = sorted(tmp_path.glob("*.nii.gz"))
    content = bytearray(first.read_bytes())
    content[len(content) // 2] ^= 1
    first.write_bytes(content)
    second.unlink()
    document = read_json(tmp_path / FINISHED)
    del document["finished"][third.name.partition(".")[0]]
    write_value(tmp_path / FINISHED, document)
    predicted(toy, bundle, tmp_path, context)
    assert done == [1, 1, 1] and contents(tmp_path) == whole


def test_a_manifest_that_takes_long_to_write_is_written_less_often(tmp_path, monkeypatch):
    now, written = [0.0], []

    def write_a_second(path, manifest):
        now[0] += 1.0
        written.append(len(manifest.finished))

    monkeypatch.setattr(units, "Stopwatch", lambda: Stopwatch(lambda: now[0]))
    monkeypatch.setattr(units, "write_value", write_a_second)
    keep = units._Sparing(tmp_path / FINISHED)
    keep(PredictionManifest("digest"))
    for count in range(1, 31):
        now[0] += 1.0  # of predicting a unit
        keep.when_due(PredictionManifest("digest", {str(number): PredictedCase({}, {}) for number in range(count)}))
    assert written == [0, 10, 20, 30]


def test_a_case_that_fails_now_is_no_longer_listed_as_finished(toy, bundle, tmp_path):
    shutil.copytree(toy.folder / "images", tmp_path / "in")
    for _ in range(2):
        manifest = pipeline.predict(bundle, tmp_path / "in", tmp_path / "out", Context(engine="torch"), trusted_task=None,
                                    progress=silent)
        path = sorted((tmp_path / "in").iterdir())[0]
        path.write_bytes(path.read_bytes()[:-20])
    name = path.name.partition(".")[0]
    assert [failure.unit for failure in manifest.failures] == [name] and name not in manifest.finished
    assert len(manifest.finished) == 7


def test_a_case_that_memory_does_not_suffice_for_fails_alone(toy, bundle, tmp_path, monkeypatch):
    predict_case, starved = predict.predict_into, toy.workspace.units[2].id

    def starving(predictor, case, folder):
        if case.id == starved:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory")
        return predict_case(predictor, case, folder)

    monkeypatch.setattr(predict, "predict_into", starving)
    manifest = pipeline.predict(bundle, toy.folder / "images", tmp_path, Context(), trusted_task=None, progress=silent)
    assert [(failure.unit, failure.code) for failure in manifest.failures] == [(starved, "E_MEMORY")]
    assert len(manifest.finished) == 7 and not (tmp_path / NOTE).exists()


def kill_at(bundle, images, out, case_id):
    """A command that is killed while it predicts a case; the order of those that it began."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    child = subprocess.run([sys.executable, __file__, str(bundle), str(images), str(out), case_id], capture_output=True,
                           text=True, check=False, timeout=100, env={**os.environ, "PYTHONPATH": path})
    assert child.returncode == -signal.SIGKILL, child.stderr
    return child.stdout.split()


def test_a_case_that_ends_two_commands_is_left_out_and_all_others_are_predicted(toy, bundle, tmp_path, caplog):
    names = [unit.id for unit in toy.workspace.units]
    deadly = names[1]
    assert kill_at(bundle, toy.folder / "images", tmp_path, deadly) == names[:2]
    assert kill_at(bundle, toy.folder / "images", tmp_path, deadly) == [*names[2:], deadly]
    manifest = pipeline.predict(bundle, toy.folder / "images", tmp_path, Context(), trusted_task=None, progress=silent)
    assert set(manifest.finished) == set(names) - {deadly}
    assert [(failure.unit, failure.code) for failure in manifest.failures] == [(deadly, "E_WORKER_DIED")]
    assert "2 commands were killed" in manifest.failures[0].message and f"at case {deadly}" in caplog.text
    (tmp_path / NOTE).unlink()
    again = pipeline.predict(bundle, toy.folder / "images", tmp_path, Context(), trusted_task=None, progress=silent)
    assert set(again.finished) == set(names) and again.failures == ()


def test_an_end_that_python_notices_is_not_held_against_the_case(toy, bundle, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(predict, "predict_into", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pipeline.predict(bundle, toy.folder / "images", tmp_path, Context(), trusted_task=None, progress=silent)
    assert not (tmp_path / NOTE).exists()


if __name__ == "__main__":
    folder, images, out, deadly = sys.argv[1:]
    predict_case = predict.predict_into

    def predict_or_die(predictor, case, folder):
        print(case.id, flush=True)
        if case.id == deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        return predict_case(predictor, case, folder)

    predict.predict_into = predict_or_die
    pipeline.predict(Path(folder), Path(images), Path(out), Context(), trusted_task=None, progress=silent)
