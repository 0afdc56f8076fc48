"""Post-processing that is fitted, that uses the cheap model, and how its numbers reach prediction."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from autoseg import pipeline
from autoseg.core.bundle import Decisions
from autoseg.core.case import Case, Unit
from autoseg.core.errors import IncompatibleError
from autoseg.core.progress import silent
from autoseg.core.report import Estimate, Record, Report
from autoseg.core.task import Context, Refinement
from autoseg.io.bundles import read_bundle
from autoseg.stages import refine
from autoseg.stages.predict import kept_refinements
from autoseg.stages.refine import Step, decide_refinements, divide, judged, standard_errors
from autoseg.stages.select import bundle_baseline
from autoseg.stages.trained import Trained

# A unit's prediction and its target are numbers, found by its id.
PREDICTED = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0}
TRUE = {"a": 1.5, "b": 2.5, "c": 3.5, "d": 4.5}


def summarise(records, rng):
    errors = [record.scores["all.score"] for record in records]
    return {"all.score": Estimate(float(np.mean(errors)), 0, 0, 0, len(errors)),
            "all.worst": Estimate(min(errors), 0, 0, 0, len(errors))}


def shift(prediction, spec, given):
    return prediction + given.fitted["by"]


def fit_shift(pairs, spec):
    fitted_on.append(sorted(prediction for prediction, _ in pairs))
    return {"by": float(np.mean([target - prediction for prediction, target in pairs]))}


def average(prediction, spec, given):
    return (prediction + given.baseline) / 2


fitted_on: list[list[float]] = []


@pytest.fixture
def decide(monkeypatch):
    """Decisions about refinements for the numbers above; a run has the units of its name."""
    def decided(refinements, folds, *, groups=None, truth=None, baselines=None):
        fitted_on.clear()
        groups = groups or {}
        targets = truth or TRUE
        units = {name: Unit(name, (Case(name, name, {"image": ()}),), groups.get(name, name)) for name in PREDICTED}
        task = SimpleNamespace(
            headline="all.score", refinements=lambda spec: refinements, summarise=summarise,
            read_target=lambda unit, spec: targets[unit.id], apply_baseline=lambda arrays, inputs, spec: arrays["value"],
            score=lambda prediction, target, spec, image: {"all.score": -abs(prediction - target)})
        runs = [Trained("whole", fold, None, Report(tuple(
            Record(name, {"all.score": -abs(PREDICTED[name] - targets[name])}, groups.get(name, "")) for name in names), {}))
            for fold, names in folds.items()]
        monkeypatch.setattr(refine, "read_validation", lambda task, spec, run, unit: PREDICTED[unit.id])
        monkeypatch.setattr(refine, "read_inputs", lambda unit, spec: {"image": None})
        return decide_refinements(task, None, units, runs, silent, baselines=baselines)
    return decided


SHIFT = Refinement("shift", shift, "", fit=fit_shift)
FOLDS = {"0": "ab", "1": "cd"}


def test_numbers_are_fitted_on_other_folds_for_judging_and_on_all_for_keeping(decide):
    decisions = decide((SHIFT,), FOLDS)
    assert sorted(fitted_on) == [[1.0, 2.0], [1.0, 2.0, 3.0, 4.0], [3.0, 4.0]]
    assert decisions.refinements == ("shift",) and decisions.fitted == {"shift": {"by": 0.5}}
    assert decisions.because == ("shift: all.score -0.5000 -> 0.0000 on 4 cases, kept (by 0.5)",)


def test_numbers_that_help_only_where_they_were_fitted_are_not_kept(decide):
    # fitted on all, a shift of 0.5 lowers the mean error from 1 to 0.5; fitted on the other fold, 2 and -1 raise it
    truth = {"a": 0.0, "b": 1.0, "c": 5.0, "d": 6.0}
    decisions = decide((SHIFT,), FOLDS, truth=truth)
    assert decisions.refinements == () and decisions.fitted == {}
    assert decisions.because == ("shift: all.score -1.5000 -> -3.0000 on 4 cases, not kept (by 0.5)",)


def test_one_fold_is_halved_by_patient(decide):
    decide((SHIFT,), {"0": "abcd"}, groups={"a": "p", "b": "q", "c": "p", "d": "q"})
    assert sorted(fitted_on) == [[1.0, 2.0, 3.0, 4.0], [1.0, 3.0], [2.0, 4.0]]
    run = Trained("whole", "0", None, Report(tuple(Record(name, {}, "p" if name < "c" else "q") for name in "abcd"), {}))
    parts = {sample.record.unit: sample.part for sample in divide([run])}
    assert parts["a"] == parts["b"] != parts["c"] == parts["d"]


def test_what_is_fitted_on_one_patient_is_not_tried(decide):
    decisions = decide((SHIFT,), {"0": "ab"}, groups={"a": "p", "b": "p"})
    assert decisions.because == ("shift: not tried, what is fitted on the cases of one patient cannot be judged on them",)
    assert fitted_on == []


def test_numbers_that_are_not_finite_are_not_kept(decide):
    odd = replace(SHIFT, fit=lambda pairs, spec: {"by": float("nan")})
    assert decide((odd,), FOLDS).because == ("shift: not tried, its numbers are not finite",)


def test_the_score_that_judges_a_step_is_its_own(decide):
    # the mean error falls from 0.5 to 0.375, and that of the worst case rises to 1.5
    unfair = Refinement("unfair", lambda prediction, spec, given: prediction + (2.0 if prediction == 4.0 else 0.5), "")
    assert decide((unfair,), FOLDS).refinements == ("unfair",)
    assert decide((replace(unfair, judged_by="all.worst"),), FOLDS).refinements == ()
    fair = Refinement("fair", lambda prediction, spec, given: prediction + 0.5, "", "all.worst")
    decisions = decide((fair,), FOLDS)
    assert decisions.refinements == ("fair",) and "all.worst -0.5000 -> -0.0000" in decisions.because[0]


def test_the_baseline_of_the_units_own_fold_is_used_and_none_is_invented(decide):
    step = Refinement("average", average, "", uses_baseline=True)
    truth = {"a": 5.0, "b": 6.0, "c": -7.0, "d": -6.0}
    own = {"0": {"value": 10.0}, "1": {"value": -17.0}}
    decisions = decide((step,), FOLDS, truth=truth, baselines=own)
    # a: (1 + 10) / 2 is 0.5 from 5, b: 6 is right, c: (3 - 17) / 2 is right, d: -6.5 is 0.5 away
    assert decisions.because == ("average: all.score -7.0000 -> -0.2500 on 4 cases, kept",)
    missing = decide((step,), FOLDS, baselines={"0": {"value": 0.0}})
    assert missing.because == ("average: not tried, there is no baseline of fold 1",)


def test_steps_build_on_each_other_with_out_of_fold_numbers(decide):
    double = Refinement("double", lambda prediction, spec, given: 2 * prediction, "")
    decisions = decide((double, SHIFT), FOLDS, truth={name: 2 * value + 1 for name, value in PREDICTED.items()})
    assert decisions.refinements == ("double", "shift") and decisions.fitted == {"shift": {"by": 1.0}}
    assert sorted(fitted_on) == [[2.0, 4.0], [2.0, 4.0, 6.0, 8.0], [6.0, 8.0]]


def test_a_fitted_step_below_another_has_out_of_fold_numbers(decide):
    seen = []
    look = Refinement("look", lambda prediction, spec, given: seen.append(prediction) or prediction, "")
    decide((SHIFT, look), FOLDS, truth={"a": 2.0, "b": 3.0, "c": 4.5, "d": 5.5})
    assert seen == [2.5, 3.5, 4.0, 5.0]  # fold 0 shifted by the 1.5 of fold 1, fold 1 by the 1.0 of fold 0


# Rules of the parts, on records of two labels whose scores are means over cases.

def two_labels(*scores):
    return [Record(f"c{place}", {"a.score": one, "b.score": other}, f"p{place}") for place, (one, other) in enumerate(scores)]


def means(records, rng):
    found = {name: float(np.mean([record.scores[name] for record in records])) for name in ("a.score", "b.score")}
    found["mean.score"] = (found["a.score"] + found["b.score"]) / 2
    return {name: Estimate(value, 0, 0, 0, len(records)) for name, value in found.items()}


BEFORE = two_labels(*[(0.5, 0.5)] * 4)
# Label a rises by 0.2; b changes by 0.1, -0.2, 0.1 and -0.1: mean -0.025, deviations 0.125, -0.175, 0.125 and -0.075, whose
# squares sum to 0.0675; standard error sqrt(0.0675 / 3 / 4) = 0.075.
VARYING = two_labels((0.7, 0.6), (0.7, 0.3), (0.7, 0.6), (0.7, 0.4))
# The same changes of b, each 0.06 lower: mean -0.085, beyond the same standard error.
FALLING = two_labels((0.7, 0.54), (0.7, 0.24), (0.7, 0.54), (0.7, 0.34))
TWO = SimpleNamespace(headline="mean.score", summarise=means)


def test_the_standard_error_of_a_paired_difference_by_hand():
    assert standard_errors(TWO, ["b.score"], BEFORE, VARYING)["b.score"] == pytest.approx(0.075)
    assert standard_errors(TWO, ["b.score"], BEFORE, FALLING)["b.score"] == pytest.approx(0.075)
    assert np.isnan(standard_errors(TWO, ["b.score"], BEFORE[:1], VARYING[:1])["b.score"])


def test_cases_of_one_patient_are_left_out_together():
    one, other = ([replace(record, group=f"p{place // 2}") for place, record in enumerate(records)]
                  for records in (BEFORE, VARYING))
    # differences without the first and without the second patient: 0 and -0.05; sqrt(1 / 2 * 2 * 0.025**2)
    assert standard_errors(TWO, ["b.score"], one, other)["b.score"] == pytest.approx(0.025)


@pytest.mark.parametrize(("may_vary", "after", "kept"), [(True, VARYING, True), (True, FALLING, False), (False, VARYING, False)])
def test_a_label_may_fall_by_one_standard_error_where_the_step_says_so(may_vary, after, kept):
    step = Step(Refinement("step", lambda prediction, spec, given: prediction, "", parts_may_vary=may_vary))
    helps, line = judged(TWO, step, BEFORE, after)
    assert helps is kept and ("b.score falls by 0.0" in line and "standard error 0.0750" in line) is may_vary


def test_a_label_that_cannot_be_scored_without_some_patients_may_not_fall():
    def summarise(records, rng):
        return means(records, rng) | ({} if len(records) == 4 else {"b.score": Estimate(float("nan"), 0, 0, 0, 0)})

    step = Step(Refinement("step", lambda prediction, spec, given: prediction, "", parts_may_vary=True))
    assert judged(SimpleNamespace(headline="mean.score", summarise=summarise), step, BEFORE, VARYING)[0] is False


@pytest.fixture(scope="module")
def exams(tmp_path_factory):
    from toy_tasks.datasets import make_toy

    toy = make_toy("toy_tasks.exams", tmp_path_factory.mktemp("exams"))
    pipeline.train(toy.workspace, toy.plan, "whole", "0,1", device="cpu", workers=0, should_stop=lambda: False)
    return toy


def test_a_bundle_holds_the_cheap_model_of_all_training_units_only_where_a_step_uses_it(exams):
    runs = pipeline.all_runs(exams.workspace, exams.plan)
    baselines = {run.fold: pipeline.baseline_run(exams.workspace, exams.plan, run.fold) for run in runs}
    task, spec = exams.task, exams.workspace.spec

    def made(decisions, members):
        return bundle_baseline(task, spec, decisions, members, baselines, silent)

    assert made(Decisions(("shift",)), runs) is None
    alone = made(Decisions(("average",)), runs[:1])
    assert alone["mean"] == baselines[runs[0].fold].arrays()["mean"]
    targets = [float(task.read_target(unit, spec)) for unit in exams.workspace.units]
    assert made(Decisions(("average",)), runs)["mean"][0] == pytest.approx(np.mean(targets))


def test_a_predictor_applies_fitted_steps_and_the_cheap_model(exams, tmp_path, monkeypatch):
    from autoseg.stages import select

    kept = Decisions(("shift", "average"), fitted={"shift": {"shift": 100.0}})
    monkeypatch.setattr(select, "decide_refinements", lambda *args, **kwargs: kept)
    bundle = pipeline.select(exams.workspace, exams.plan)
    folder = exams.workspace.layout.bundle("toy")
    assert (folder / "baseline.safetensors").is_file() and read_bundle(folder).baseline
    predictor = pipeline.load_predictor(folder, trusted_task="toy_tasks.exams")
    inputs = predictor_inputs(exams)
    without = pipeline.load_predictor(folder, trusted_task="toy_tasks.exams")
    without._refinements = []
    cheap = np.mean([float(exams.task.read_target(unit, exams.workspace.spec)) for unit in exams.workspace.units])
    assert predictor.predict(inputs) == pytest.approx((without.predict(inputs) + 100 + cheap) / 2, rel=1e-5)
    with pytest.raises(IncompatibleError, match="needs the cheap model"):
        kept_refinements(replace(bundle, baseline=""), exams.task)
    with pytest.raises(IncompatibleError, match="needs numbers"):
        kept_refinements(replace(bundle, baseline="x", decisions=replace(kept, fitted={})), exams.task)
    monkeypatch.setattr(select, "decide_refinements", lambda *args, **kwargs: Decisions())
    pipeline.select(exams.workspace, exams.plan)
    assert not (folder / "baseline.safetensors").exists() and read_bundle(folder).baseline == ""


def predictor_inputs(toy):
    from autoseg.stages.prepare import read_inputs

    return read_inputs(toy.workspace.units[0], toy.workspace.spec)


def test_a_changed_cheap_model_is_refused(exams, monkeypatch):
    from autoseg.core.errors import UnsafeError
    from autoseg.stages import select

    monkeypatch.setattr(select, "decide_refinements", lambda *args, **kwargs: Decisions(("average",)))
    pipeline.select(exams.workspace, exams.plan)
    path = exams.workspace.layout.bundle("toy") / "baseline.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(UnsafeError, match="digest"):
        pipeline.load_predictor(path.parent, Context(), trusted_task="toy_tasks.exams")


def test_the_cheap_model_travels_with_its_bundle(exams, tmp_path, monkeypatch):
    from autoseg.io.archive import read_archive
    from autoseg.stages import select
    from autoseg.stages.exchange import run_export

    monkeypatch.setattr(select, "decide_refinements", lambda *args, **kwargs: Decisions(("average",)))
    pipeline.select(exams.workspace, exams.plan)
    folder = exams.workspace.layout.bundle("toy")
    run_export(folder, tmp_path / "toy.autoseg", key=None)
    read_archive(tmp_path / "toy.autoseg", tmp_path / "back", ())
    found = [pipeline.load_predictor(place, trusted_task="toy_tasks.exams").predict(predictor_inputs(exams))
             for place in (folder, tmp_path / "back")]
    assert found[0] == found[1]
