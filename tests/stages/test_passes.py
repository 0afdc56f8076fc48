from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from autoseg import pipeline
from autoseg.core.bundle import Decisions
from autoseg.core.plan import Inference
from autoseg.core.progress import silent
from autoseg.core.report import Record, Report
from autoseg.core.task import Context
from autoseg.io.images import read_image
from autoseg.nn.weights import save_weights
from autoseg.stages import passes
from autoseg.stages.passes import Candidate, affordable, candidates, cheapest_within_one_error, decide_passes, loses_little
from autoseg.stages.train import fresh_network
from autoseg.stages.trained import Trained
from autoseg.tasks import load_task

BEST = np.array([0.9, 0.8, 0.7, 0.85, 0.75])
RULES = Inference(0.5, 0.125, 2, (1, 2), True)


@pytest.mark.parametrize(("lost", "kept"), [
    # mean 0.001; standard deviation 0.01025, so the standard error is 0.0046
    ([0.01, -0.01, 0.01, -0.01, 0.005], "cheap"),
    # mean 0.4; standard deviation 0.548, standard error 0.245
    ([0.0, 0.0, 0.0, 1.0, 1.0], "dear"),
    # the same in every case: no doubt about it
    ([0.001, 0.001, 0.001, 0.001, 0.001], "dear"),
    ([0.0, 0.0, 0.0, 0.0, 0.0], "cheap"),
    ([-0.1, -0.1, -0.1, -0.1, -0.1], "cheap"),
])
def test_the_cheaper_way_is_kept_within_one_standard_error(lost, kept):
    place = cheapest_within_one_error(np.stack([BEST, BEST - lost]), [8.0, 1.0])
    assert ("dear", "cheap")[place] == kept


def test_the_best_is_not_always_the_dearest_and_equal_costs_go_to_the_better_one():
    scores = np.stack([BEST, BEST + 0.05, BEST + 0.049])
    assert cheapest_within_one_error(scores, [8.0, 1.0, 1.0]) == 1


def test_cases_with_an_undefined_score_are_left_out_and_too_few_leave_the_plan():
    lost = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.9])
    scores = np.stack([np.append(BEST, 0.9), np.append(BEST, 0.9) - lost])
    scores[0, 5] = np.nan
    assert cheapest_within_one_error(scores, [8.0, 1.0]) == 1
    scores[0, 4] = np.nan
    assert cheapest_within_one_error(scores, [8.0, 1.0]) == 0


def test_cases_that_fit_into_one_window_leave_nothing_to_choose():
    assert candidates(replace(RULES, mirror_axes=(), mirror=False), (4, 8, 8), [(4, 8, 8), (3, 7, 2)]) == [
        Candidate(0.5, False, 1.0)]
    assert candidates(RULES, (4, 8, 8), [(4, 8, 8)]) == [Candidate(0.5, True, 4.0), Candidate(0.5, False, 1.0)]


def test_tile_steps_that_place_the_same_windows_are_one_candidate():
    # windows of 4 in 10 voxels: starts 0, 2, 4, 6 at step 0.5; 0, 3, 6 at step 0.75 and also at step 1
    found = candidates(replace(RULES, mirror=False), (4, 4, 4), [(4, 4, 10), (4, 4, 4)])
    assert found == [Candidate(0.5, False, 2.5), Candidate(0.5, True, 10.0),
                     Candidate(0.75, False, 2.0), Candidate(0.75, True, 8.0)]


def test_the_dearest_are_left_out_until_the_rest_can_be_afforded():
    planned, cheap, middle, dear = (Candidate(0.5, True, cost) for cost in (8.0, 1.0, 3.0, 16.0))
    # a quarter of 20 cases of 8 passes are 40 passes: 2 cases for 20 passes each, but 10 for 4
    assert affordable(planned, [dear, cheap, middle], 20) == ([cheap, middle], 10)
    assert affordable(planned, [dear], 20) == ([], 0)
    assert affordable(planned, [cheap], 400) == ([cheap], 20)


def record(mean, *parts):
    labels = {f"label{number}.dice": part for number, part in enumerate(parts)}
    return Record("a", {"mean.dice": mean, **labels, "x.hd95_mm": mean})


@pytest.mark.parametrize(("reduced", "expected"), [
    (record(0.8981, 0.90, 0.80), True),
    (record(0.8979, 0.90, 0.80), False),  # headline 0.0021 lower
    (record(0.9, 0.8951, 0.80), True),
    (record(0.9, 0.8949, 0.80), False),  # one label 0.0051 lower
    (record(0.95, 0.95, float("nan")), False),  # defined before, not any more
])
def test_a_reduced_precision_may_cost_little_on_the_whole_and_in_every_label(reduced, expected):
    before, after = (load_task("segmentation").summarise([found], np.random.default_rng(0))
                     for found in (record(0.9, 0.90, 0.80), reduced))
    assert loses_little(before, after, "mean.dice") is expected


@pytest.fixture
def stand_in(toy, tmp_path, monkeypatch):
    """Finished runs of two folds and more whose score is `better(inference)`, on a processor without bfloat16; the network is
    a fresh one."""
    monkeypatch.setattr("autoseg.training.device.cpu_supports_bf16", lambda: False)

    def make(better, rules, cases=8):
        def score(prediction, target, spec, image):
            return {toy.task.headline: prediction}

        def infer(networks, inputs, configuration, context):
            measured.append(configuration.inference)
            return better(configuration.inference)

        measured: list[Inference] = []
        task = replace(toy.task, infer=infer, restore=lambda raw, record, configuration, context: raw, score=score)
        configuration = replace(toy.configuration, inference=rules)
        runs = []
        for number in range(2):
            made = pipeline.make_run(toy.workspace, toy.plan, configuration.name, str(number))
            run = replace(made, task=task, configuration=configuration, folder=tmp_path / str(number))
            save_weights(run.folder / "training" / "model.safetensors", fresh_network(run))
            names = [unit.id for unit in toy.workspace.units][number::2][:cases // 2]
            report = Report(tuple(Record(name, {toy.task.headline: better(rules)}) for name in names), {})
            runs.append(Trained(configuration.name, str(number), run.folder, report, run))
        return task, runs, measured
    return make


def test_mirroring_that_gains_nothing_is_dropped_and_one_that_gains_is_kept(stand_in):
    rules = replace(RULES, mirror_axes=(0, 1, 2))
    for gain, kept in ((0.0, False), (0.1, True)):
        task, runs, measured = stand_in(lambda found, gain=gain: 0.8 + gain * found.mirror, rules)
        decisions = decide_passes(task, runs, Decisions(because=("first",)), Context(engine="torch"), silent)
        assert (decisions.mirror, decisions.tile_step, decisions.precision) == (kept, 0.5, None)
        assert decisions.because[0] == "first" and len(decisions.because) == 3
        assert ["kept" in line for line in decisions.because[1:]] == [kept, not kept]
        assert "tile step 0.5 without mirroring, 1.0 passes a case: mean.dice 0.8000 on 8 cases" in decisions.because[2]
        # the plan's own way was scored by validation; the other one is measured once and then found beside its run
        assert measured == [replace(rules, mirror=False)] * (8 if gain == 0.0 else 0)


def test_where_there_is_one_way_nothing_is_measured(stand_in):
    task, runs, measured = stand_in(lambda found: 0.8, replace(RULES, mirror_axes=(), mirror=False))
    before = Decisions(("a",), ("because",))
    assert decide_passes(task, runs, before, Context(engine="torch"), silent) == before
    assert measured == []


def test_too_few_validation_cases_leave_everything_as_planned(stand_in):
    task, runs, measured = stand_in(lambda found: 0.8, RULES, cases=4)
    decisions = decide_passes(task, runs, Decisions(), Context(engine="torch"), silent)
    assert (decisions.mirror, decisions.tile_step, decisions.precision) == (None, None, None)
    assert measured == [] and "fewer than 5 validation cases" in decisions.because[0]


@pytest.mark.parametrize(("loss", "planned", "kept"), [
    (0.001, "fp32", "bf16"), (0.003, "fp32", "fp32"), (0.003, "bf16", "fp32"), (0.001, "bf16", "bf16")])
def test_a_precision_of_the_processor_is_measured_and_kept_where_it_loses_little(stand_in, monkeypatch, loss, planned, kept):
    monkeypatch.setattr("autoseg.training.device.cpu_supports_bf16", lambda: True)
    monkeypatch.setattr(passes, "FEWEST_CASES", 2)  # a quarter of eight
    rules = replace(RULES, mirror_axes=(), mirror=False, precision=planned)
    task, runs, measured = stand_in(lambda found: 0.8 - loss * (found.precision == "bf16"), rules)
    decisions = decide_passes(task, runs, Decisions(), Context(engine="torch"), silent)
    assert (decisions.precision, decisions.tile_step, decisions.mirror) == (kept, None, None)
    assert len(measured) == 2 and {found.precision for found in measured} == {"bf16", "fp32"} - {planned}
    assert "bf16 instead of fp32: mean.dice 0.8000 -> " in decisions.because[0]


def test_a_precision_that_the_processor_has_not_is_not_measured(stand_in, monkeypatch):
    monkeypatch.setattr(passes, "FEWEST_CASES", 2)
    task, runs, measured = stand_in(lambda found: 0.8, replace(RULES, mirror_axes=(), mirror=False))
    assert decide_passes(task, runs, Decisions(), Context(engine="torch"), silent) == Decisions()
    assert measured == []


def test_select_measures_real_networks_and_prediction_obeys(toy, tmp_path):
    configuration = replace(toy.configuration, inference=replace(toy.configuration.inference, mirror_axes=(1, 2), mirror=True),
                            optimization=replace(toy.configuration.optimization, iterations=5, iterations_per_epoch=5))
    plan = replace(toy.plan, name="mirrored", configurations={configuration.name: configuration})
    for fold in ("0", "1", "2", "3"):
        pipeline.train(toy.workspace, plan, configuration.name, fold, device="cpu", workers=0, should_stop=lambda: False)
    bundle = pipeline.select(toy.workspace, plan, Context(engine="torch"))
    lines = [line for line in bundle.decisions.because if "passes a case" in line]
    assert bundle.decisions.mirror is not None and len(lines) == 2 and all(line in bundle.card for line in lines)
    kept = sorted(toy.workspace.layout.root.glob("ToyLabels/runs/mirrored/*/fold_*/candidates/*.json"))
    assert len(kept) == 8  # a quarter of 8 cases of 4 passes are 8 cases of 1 pass
    written = [path.stat().st_mtime_ns for path in kept]
    assert pipeline.select(toy.workspace, plan, Context(engine="torch")) == bundle
    assert [path.stat().st_mtime_ns for path in kept] == written
    outputs = []
    for name, mirror in (("decided", None), ("asked", bundle.decisions.mirror)):
        pipeline.predict(toy.workspace.layout.bundle("mirrored"), toy.folder / "images", tmp_path / name,
                         Context(engine="torch", mirror=mirror), trusted_task=None, progress=silent)
        outputs.append([read_image([path]).voxels for path in sorted((tmp_path / name).glob("*.nii.gz"))])
    assert len(outputs[0]) == 8 and all(np.array_equal(*pair) for pair in zip(*outputs, strict=True))
