"""What every task promises to the stages, whatever it predicts. A new task adds its toy dataset to
`toy_tasks.datasets` and nothing else."""

from __future__ import annotations

import csv
import pickle
import shutil
from dataclasses import fields, is_dataclass, replace

import numpy as np
import pytest
import torch
from toy_tasks.datasets import open_toy, plan_toy

from autoseg import pipeline
from autoseg.core.case import single_units
from autoseg.core.errors import UnsafeError
from autoseg.core.plan import unexplained_values
from autoseg.core.progress import silent
from autoseg.core.report import Record
from autoseg.core.task import Context, Given, Probe
from autoseg.core.verb import BundleVerb
from autoseg.io.arrays import read_arrays, write_arrays
from autoseg.io.bundles import read_bundle
from autoseg.io.images import image_ending, read_geometry
from autoseg.io.values import read_value
from autoseg.stages.evaluate import run_evaluate
from autoseg.stages.prepare import prepare_inputs, read_inputs
from autoseg.stages.refine import read_validation
from autoseg.stages.verbs import opened_run
from autoseg.tasks import load_task
from autoseg.training.memory import predict_peaks


def first_unit(toy):
    return toy.workspace.units[0]


def image_of(inputs):
    return next(iter(inputs.values()))


def test_the_record_can_be_sent_to_a_worker_process(toy):
    assert pickle.loads(pickle.dumps(toy.task)) == toy.task


def test_a_record_with_an_empty_slot_is_refused(toy):
    with pytest.raises(TypeError, match="score"):
        replace(toy.task, score=None)


def test_options_are_a_frozen_type_with_defaults(toy):
    for kind in toy.task.option_types:
        assert is_dataclass(kind)
        with pytest.raises(AttributeError):
            kind().anything = 1


def test_no_two_types_of_options_share_a_key(toy):
    names = [entry.name for kind in toy.task.option_types for entry in fields(kind)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("options", [None, (), (None,)])
def test_options_must_be_types(toy, options):
    with pytest.raises(TypeError, match="options"):
        replace(toy.task, options=options)


def test_units_have_unique_ids_and_keep_their_patient(toy):
    units = toy.workspace.units
    assert len({unit.id for unit in units}) == len(units)
    assert all(unit.group == unit.cases[0].group for unit in units)


def test_no_patient_is_in_training_and_validation(toy):
    groups = {unit.id: unit.group for unit in toy.workspace.units}
    for fold in toy.workspace.folds():
        assert not {groups[name] for name in fold.train} & {groups[name] for name in fold.validation}


def test_every_planned_value_has_a_reason(toy):
    assert unexplained_values(toy.plan) == []


def test_a_plan_made_from_its_own_budget_is_the_same_and_measures_nothing(toy):
    def refuse(*asked):
        raise AssertionError("measured again")

    no_probe = Probe(refuse, refuse, refuse, refuse)

    request = pipeline.PlanRequest("toy", "default")
    again = toy.task.make_plan(toy.workspace.spec, toy.workspace.fingerprint, toy.plan.budget, request, no_probe)
    digests = {"specification": toy.plan.specification, "fingerprint": toy.plan.fingerprint}  # the stage writes them
    assert replace(again, **digests) == toy.plan


def test_the_target_lies_on_the_model_grid(toy):
    unit = single_units(toy.workspace.units)[0]
    record = toy.store.record(unit.id)
    arrays = toy.task.prepare_target(toy.task.read_target(unit, toy.workspace.spec), record, toy.configuration)
    volumes = [array for array in arrays.values() if array.ndim >= 3]
    assert arrays and all(array.shape[-3:] == record.model_shape for array in volumes)


def test_a_batch_depends_on_its_generator_alone(toy):
    np.random.seed(1)
    torch.manual_seed(1)
    first = toy.task.draw_batch(toy.workspace.units, toy.store, toy.configuration, np.random.default_rng(5))
    np.random.seed(2)
    torch.manual_seed(2)
    second = toy.task.draw_batch(toy.workspace.units, toy.store, toy.configuration, np.random.default_rng(5))
    other = toy.task.draw_batch(toy.workspace.units, toy.store, toy.configuration, np.random.default_rng(6))
    tensors = [name for name, value in first.items() if isinstance(value, torch.Tensor)]
    assert all(torch.equal(first[name], second[name]) for name in tensors)
    assert any(not torch.equal(first[name], other[name]) for name in tensors)


def test_a_blank_batch_is_shaped_as_a_drawn_one(toy):
    def shapes(batch):
        return {name: (value.shape, value.dtype) for name, value in batch.items() if isinstance(value, torch.Tensor)}

    drawn = toy.task.draw_batch(toy.workspace.units, toy.store, toy.configuration, np.random.default_rng(0))
    assert shapes(toy.task.blank_batch(toy.configuration)) == shapes(drawn)


def test_memory_is_predicted_without_the_task_knowing(toy):
    training, inference = predict_peaks(toy.task, toy.configuration, target="cuda")
    weights = sum(p.numel() * p.element_size() for p in toy.task.build_network(toy.configuration).parameters())
    assert training > 3 * weights and inference > weights


def test_training_on_one_batch_lowers_its_loss(toy):
    torch.manual_seed(0)
    network = toy.task.build_network(toy.configuration)
    phase, *_ = toy.task.phases(toy.configuration)
    batch = toy.task.draw_batch(toy.workspace.units, toy.store, toy.configuration, np.random.default_rng(0))
    optimizer = torch.optim.Adam(phase.parameters(network), 1e-2)
    losses = []
    for _ in range(15):
        loss = phase.step(network, batch)["total"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def predict_first(toy):
    unit = first_unit(toy)
    torch.manual_seed(0)
    network = toy.task.build_network(toy.configuration).eval()
    inputs = read_inputs(unit, toy.workspace.spec)
    arrays, record = prepare_inputs(inputs, toy.plan, toy.configuration)
    raw = toy.task.infer([network, network], arrays, toy.configuration, Context())
    return toy.task.restore(raw, record, toy.configuration, Context()), next(iter(inputs.values()))


def test_two_equal_members_predict_what_one_predicts(toy):
    unit = first_unit(toy)
    torch.manual_seed(0)
    network = toy.task.build_network(toy.configuration).eval()
    inputs = read_inputs(unit, toy.workspace.spec)
    arrays, record = prepare_inputs(inputs, toy.plan, toy.configuration)
    one, two = (toy.task.restore(toy.task.infer(networks, arrays, toy.configuration, Context()), record,
                                 toy.configuration, Context()) for networks in ([network], [network, network]))
    image = next(iter(inputs.values()))
    same, itself = (toy.task.score(prediction, one, toy.workspace.spec, image) for prediction in (two, one))
    assert same == pytest.approx(itself, abs=1e-5, nan_ok=True)


def test_a_prediction_read_back_from_its_file_scores_the_same(toy, tmp_path):
    prediction, image = predict_first(toy)
    target = toy.task.read_target(first_unit(toy), toy.workspace.spec)
    path, *_ = toy.task.write(prediction, toy.workspace.spec, image, tmp_path / "case.nii.gz")
    back = toy.task.read_prediction(tmp_path / "case.nii.gz", toy.workspace.spec)
    before = toy.task.score(prediction, target, toy.workspace.spec, image)
    assert toy.task.score(back, target, toy.workspace.spec, image) == pytest.approx(before, rel=1e-4, nan_ok=True)
    if image_ending(path):
        assert read_geometry(path).agrees_with(read_geometry(first_unit(toy).cases[0].inputs["image"][0]))


def test_the_truth_scores_better_than_a_fresh_network(toy):
    prediction, image = predict_first(toy)
    target = toy.task.read_target(first_unit(toy), toy.workspace.spec)
    spec, name = toy.workspace.spec, toy.task.case_headline
    assert toy.task.score(target, target, spec, image)[name] > toy.task.score(prediction, target, spec, image)[name]


def test_the_summary_of_equal_records_is_their_score(toy):
    target = toy.task.read_target(first_unit(toy), toy.workspace.spec)
    _, image = predict_first(toy)
    scores = toy.task.score(target, target, toy.workspace.spec, image)
    records = [Record(str(number), scores) for number in range(4)]
    summary = toy.task.summarise(records, np.random.default_rng(0))
    estimate = summary[toy.task.case_headline]
    assert (estimate.mean, estimate.median, estimate.lower, estimate.upper, estimate.count) == pytest.approx(
        (scores[toy.task.case_headline],) * 4 + (4,))
    assert summary[toy.task.headline].count == 4


def test_the_baseline_predicts_the_same_when_its_arrays_come_from_a_file(toy, tmp_path):
    spec = toy.workspace.spec
    samples = [(unit, read_inputs(unit, spec), toy.task.read_target(unit, spec)) for unit in toy.workspace.units[:-1]]
    arrays = toy.task.fit_baseline(samples, spec, np.random.default_rng(0))
    write_arrays(tmp_path / "baseline.safetensors", arrays)
    unit = toy.workspace.units[-1]
    inputs = read_inputs(unit, spec)
    target = toy.task.read_target(unit, spec)
    scores = [toy.task.score(toy.task.apply_baseline(found, inputs, spec), target, spec, image_of(inputs))
              for found in (arrays, read_arrays(tmp_path / "baseline.safetensors"))]
    assert np.isfinite(scores[0][toy.task.case_headline]) and scores[0] == pytest.approx(scores[1], rel=0, nan_ok=True)


def test_nothing_is_wrong_with_the_units_together_and_facts_are_words(toy):
    assert toy.task.examine(toy.workspace.units, toy.workspace.spec) == ()
    facts = toy.task.facts(toy.workspace.spec, toy.workspace.units)
    assert facts and all(isinstance(value, str) and value for value in facts.values())
    assert all(note.endswith(".") for note in toy.task.notes(toy.workspace.spec))


def test_a_row_has_numbers_and_words_and_charts_are_drawings(toy):
    prediction, image = predict_first(toy)
    row = toy.task.row(prediction, toy.workspace.spec, image)
    assert row and all(isinstance(value, float | str) for value in row.values())
    target = toy.task.read_target(first_unit(toy), toy.workspace.spec)
    records = [Record(str(number), toy.task.score(target, target, toy.workspace.spec, image)) for number in range(4)]
    assert all(chart.startswith("<svg") for chart in toy.task.charts(records, records, toy.workspace.spec))


def test_a_folder_of_predictions_is_scored_as_in_memory_and_what_is_missing_is_listed(toy, tmp_path):
    spec, task, expected = toy.workspace.spec, toy.task, {}
    samples = [(unit, read_inputs(unit, spec), task.read_target(unit, spec)) for unit in toy.workspace.units]
    arrays = task.fit_baseline(samples, spec, np.random.default_rng(0))
    for unit, inputs, target in samples:
        prediction = task.apply_baseline(arrays, inputs, spec)
        files = task.write(prediction, spec, image_of(inputs), tmp_path / f"{unit.id}.nii.gz")
        expected[unit.id] = task.score(prediction, target, spec, image_of(inputs))[task.case_headline]
    report = run_evaluate(task, spec, tmp_path, toy.references, progress=silent)
    found = {record.unit: record.scores[task.case_headline] for record in report.records}
    assert found == pytest.approx(expected, rel=1e-4, nan_ok=True) and not report.failures
    for path in files:
        path.unlink()
    report = run_evaluate(toy.task, spec, tmp_path, toy.references, progress=silent)
    assert [failure.unit for failure in report.failures] == [unit.id] and len(report.records) == len(expected) - 1


def test_refinements_change_nothing_the_second_time(toy):
    prediction, image = predict_first(toy)
    target = toy.task.read_target(first_unit(toy), toy.workspace.spec)
    for refinement in toy.task.refinements(toy.workspace.spec):
        if refinement.fit or refinement.uses_baseline:
            continue  # its numbers belong to predictions without the step
        once = refinement.apply(prediction, toy.workspace.spec, Given())
        twice = refinement.apply(once, toy.workspace.spec, Given())
        scores = [toy.task.score(p, target, toy.workspace.spec, image) for p in (once, twice)]
        assert scores[0] == pytest.approx(scores[1], nan_ok=True)


def test_figures_are_colour_pictures(toy):
    prediction, image = predict_first(toy)
    target = toy.task.read_target(first_unit(toy), toy.workspace.spec)
    for picture in toy.task.figures(prediction, target, image, toy.workspace.spec):
        assert picture.pixels.dtype == np.uint8 and picture.pixels.ndim == 3 and picture.pixels.shape[2] == 3
        assert picture.caption


@pytest.fixture(scope="module")
def trained(toy):
    """The toy after one fold, with its bundle and report."""
    name = next(iter(toy.plan.configurations))
    reports = pipeline.train(toy.workspace, toy.plan, name, "0", device="cpu", workers=0, should_stop=lambda: False)
    bundle = pipeline.select(toy.workspace, toy.plan)
    page = pipeline.report(toy.workspace, toy.plan, {"autoseg": "test"})
    return toy, reports["0"], bundle, page


def test_a_fold_is_validated_on_all_of_its_own_cases(trained):
    toy, report, _, _ = trained
    assert {record.unit for record in report.records} == set(toy.workspace.folds()[0].validation)
    assert report.summary[toy.task.headline].count == len(report.records)


def test_a_finished_fold_is_not_trained_again(trained):
    toy, report, _, _ = trained
    name = next(iter(toy.plan.configurations))
    weights = toy.workspace.layout.run("toy", name, "0") / "training" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    again = pipeline.train(toy.workspace, toy.plan, name, "0", device="cpu", workers=0, should_stop=lambda: False)
    assert weights.stat().st_mtime_ns == before
    assert again["0"].records == report.records
    assert again["0"].summary[toy.task.headline].mean == report.summary[toy.task.headline].mean


def test_the_same_seed_gives_the_same_weights_to_the_bit(trained, tmp_path):
    toy, _, bundle, _ = trained
    name = next(iter(toy.plan.configurations))
    workspace = open_toy(toy.task_name, toy.folder, tmp_path)
    shutil.copytree(toy.workspace.layout.plan("toy"), workspace.layout.plan("toy"))
    plan = plan_toy(workspace)
    assert plan == toy.plan
    pipeline.train(workspace, plan, name, "0", device="cpu", workers=0, should_stop=lambda: False)
    assert pipeline.select(workspace, plan).members == bundle.members


def test_the_report_names_scores_plan_and_baseline(trained):
    toy, report, _, page = trained
    text = page.read_text().replace("−", "-")
    assert toy.task.headline in text and f"{report.summary[toy.task.headline].mean:.3f}" in text
    assert "Baseline" in text and report.records[0].unit in text and "data:image/png;base64," in text


def test_commands_with_a_bundle_write_into_the_folder_of_a_unit(trained, tmp_path):
    toy, *_ = trained
    [run] = pipeline.all_runs(toy.workspace, toy.plan)
    for verb in (verb for verb in toy.task.verbs if isinstance(verb, BundleVerb)):
        work = verb.begin()(opened_run(toy.task, toy.workspace.spec, run))
        for unit in toy.workspace.units[:2]:
            made = work(unit, read_inputs(unit, toy.workspace.spec), tmp_path / unit.id)
            assert made.rows and made.files and all(path.parent == tmp_path / unit.id and path.is_file() for path in made.files)
            assert verb.tell([{"case": unit.id} | {name: str(value) for name, value in row.items()} for row in made.rows])


def test_prediction_needs_nothing_but_the_bundle_and_skips_what_is_finished(trained, tmp_path):
    toy, report, _, _ = trained
    bundle = tmp_path / "bundle"
    shutil.copytree(toy.workspace.layout.bundle("toy"), bundle)
    shutil.copytree(toy.folder / "images", tmp_path / "in")
    unit = toy.workspace.units_by_id[report.records[0].unit]
    trusted = toy.workspace.spec.task
    manifest = pipeline.predict(bundle, tmp_path / "in", tmp_path / "out", Context(), trusted_task=trusted, progress=silent)
    assert set(manifest.finished) == {unit.id for unit in toy.workspace.units} and not manifest.failures
    [run] = pipeline.all_runs(toy.workspace, toy.plan)
    spec, target = toy.workspace.spec, toy.task.read_target(unit, toy.workspace.spec)
    earlier = read_validation(toy.task, spec, run, unit)
    found = toy.task.read_prediction(tmp_path / "out" / f"{unit.id}.nii.gz", spec)
    image = image_of(read_inputs(unit, spec))
    if not read_bundle(bundle).decisions.refinements:
        assert toy.task.score(found, target, spec, image) == pytest.approx(
            toy.task.score(earlier, target, spec, image), nan_ok=True)
    outputs = [tmp_path / "out" / name for name in manifest.finished[unit.id].outputs]
    before = [path.stat().st_mtime_ns for path in outputs]
    table = (tmp_path / "out" / "predictions.csv").read_bytes()
    pipeline.predict(bundle, tmp_path / "in", tmp_path / "out", Context(), trusted_task=trusted, progress=silent)
    assert outputs and [path.stat().st_mtime_ns for path in outputs] == before
    assert (tmp_path / "out" / "predictions.csv").read_bytes() == table
    rows = list(csv.DictReader(table.decode().splitlines()))
    expected = toy.task.row(found, spec, image)
    assert [row["case"] for row in rows] == sorted(manifest.finished)
    [row] = [row for row in rows if row["case"] == unit.id]
    numbers = {name: value for name, value in expected.items() if not isinstance(value, str)}
    assert {name: float(row[name]) for name in numbers} == pytest.approx(numbers, rel=1e-4)
    assert not any(cell.startswith(("=", "@")) for row in rows for cell in row.values())


def test_a_case_that_cannot_be_read_does_not_stop_the_others(trained, tmp_path):
    toy, *_ = trained
    shutil.copytree(toy.folder / "images", tmp_path / "in")
    broken = sorted((tmp_path / "in").iterdir())[1]
    broken.write_bytes(broken.read_bytes()[:200])
    manifest = pipeline.predict(toy.workspace.layout.bundle("toy"), tmp_path / "in", tmp_path / "out", Context(),
                                trusted_task=toy.workspace.spec.task, progress=silent)
    lost = [unit.id for unit in toy.workspace.units if broken.name.removesuffix(".nii.gz") in [case.id for case in unit.cases]]
    assert lost and sorted(failure.unit for failure in manifest.failures) == sorted(lost)
    assert not [path for unit in lost for path in (tmp_path / "out").glob(f"{unit}.*")]
    assert len(manifest.finished) == len(toy.workspace.units) - len(lost)


def test_arrays_in_memory_give_the_same_prediction_as_files(trained):
    toy, *_ = trained
    predictor = pipeline.load_predictor(toy.workspace.layout.bundle("toy"), trusted_task=toy.workspace.spec.task)
    unit = first_unit(toy)
    inputs = read_inputs(unit, toy.workspace.spec)
    image = image_of(inputs)
    canonical = predictor.predict(inputs)
    arrays = [(found.voxels, found.geometry) for found in inputs.values()]
    in_memory = predictor.predict_array(*arrays[0], *arrays[1:])
    target = toy.task.read_target(unit, toy.workspace.spec)
    scores = [toy.task.score(p, target, toy.workspace.spec, image) for p in (canonical, in_memory)]
    assert scores[0] == pytest.approx(scores[1], nan_ok=True)


def test_a_changed_bundle_is_refused(trained, tmp_path):
    toy, *_ = trained
    bundle = tmp_path / "bundle"
    shutil.copytree(toy.workspace.layout.bundle("toy"), bundle)
    weights = next((bundle / "members").iterdir())
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(UnsafeError, match="digest"):
        pipeline.load_predictor(bundle, trusted_task=toy.workspace.spec.task)


def test_the_plan_on_disk_is_the_plan_in_memory(toy):
    path = toy.workspace.layout.plan("toy") / "plan.json"
    assert read_value(path, type(toy.plan)) == toy.plan


def test_code_outside_the_package_runs_only_when_the_user_names_it():
    with pytest.raises(UnsafeError, match="may not choose code"):
        load_task("toy_tasks.intensity")
    assert load_task("toy_tasks.intensity", trusted="toy_tasks.intensity").name == "toy_tasks.intensity"
