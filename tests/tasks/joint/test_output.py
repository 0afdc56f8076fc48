from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from autoseg.core.case import Unit
from autoseg.core.errors import AutosegError, DatasetError, GeometryError
from autoseg.core.image import Image
from autoseg.core.report import Record
from autoseg.core.task import Context, Given
from autoseg.io.images import write_label_map
from autoseg.ops.slabs import LogitSlabs
from autoseg.stages.prepare import prepare_inputs, read_inputs
from autoseg.tasks import load_task
from autoseg.tasks.joint.output import restore
from autoseg.tasks.joint.parts import Pair, configuration_of, spec_of
from autoseg.tasks.joint.score import summarise

DENSE, WHOLE = load_task("segmentation"), load_task("classification")
PARTS = Pair(DENSE, WHOLE)


def prepared(toy):
    unit = toy.workspace.units[0]
    inputs = read_inputs(unit, toy.workspace.spec)
    return (unit, next(iter(inputs.values())), *prepare_inputs(inputs, toy.plan, toy.configuration))


def answer(toy):
    unit, image, arrays, record = prepared(toy)
    torch.manual_seed(0)
    network = toy.task.build_network(toy.configuration).eval()
    raw = toy.task.infer([network], arrays, toy.configuration, Context())
    return toy.task.restore(raw, record, toy.configuration, Context()), unit, image


def test_the_last_outputs_are_averaged_over_voxels_and_the_first_are_labels(toy):
    *_, record = prepared(toy)
    raw = np.random.default_rng(0).normal(size=(3, *record.model_shape)).astype(np.float32)
    found = restore(PARTS, raw.copy(), record, toy.configuration, Context())
    dense = DENSE.restore(raw[:2].copy(), record, configuration_of(DENSE, toy.configuration), Context())
    whole = WHOLE.restore(raw[2:].mean(axis=(1, 2, 3)), record, configuration_of(WHOLE, toy.configuration), Context())
    assert np.array_equal(found.dense.label, dense.label) and found.dense.label.any()
    assert found.whole.readings[0].probabilities == pytest.approx(whole.readings[0].probabilities, abs=1e-5)


def test_slabs_pass_one_by_one(toy):
    """No slab is asked for before the one before it was given on: the outputs of all voxels are never there together."""
    *_, record = prepared(toy)
    depth, height, width = record.model_shape
    alive = []

    def slabs():
        for place in range(depth):
            alive.append(place)
            yield np.full((3, 1, height, width), place, np.float32)

    class Watching:
        def __call__(self, raw, record, configuration, context):
            for seen, part in enumerate(raw.parts):
                assert (len(alive), part.shape) == (seen + 1, (2, 1, height, width))
            return "drawn"

    watched = Pair(replace(DENSE, restore=Watching()), WHOLE)
    found = restore(watched, LogitSlabs((3, depth, height, width), slabs()), record, toy.configuration, Context())
    assert found.dense == "drawn" and found.whole.readings[0].logits == pytest.approx([(depth - 1) / 2])


def test_a_stream_that_is_not_drawn_to_its_end_is_no_prediction(toy):
    *_, record = prepared(toy)
    lazy = Pair(replace(DENSE, restore=lambda raw, *rest: next(raw.parts)), WHOLE)
    slabs = LogitSlabs((3, *record.model_shape), (np.zeros((3, 1, *record.model_shape[1:]), np.float32) for _ in range(2)))
    with pytest.raises(ValueError, match="planes"):
        restore(lazy, slabs, record, toy.configuration, Context())


def test_the_network_says_of_one_window_what_its_second_head_says(toy):
    torch.manual_seed(0)
    network = toy.task.build_network(toy.configuration)
    window = np.zeros((1, *toy.configuration.patch_size), np.float32)
    window[:] = np.random.default_rng(1).normal(size=window.shape)
    logits = toy.task.infer([network.eval()], {"image": window}, toy.configuration, Context()).whole()
    with torch.no_grad():
        _, vector = network.train()(torch.from_numpy(window[None]))
    assert logits.shape == (3, *toy.configuration.patch_size) and logits[2:].std() < 1e-5
    assert logits[2:].mean() == pytest.approx(vector.item(), abs=1e-4)


def test_a_unit_has_a_label_map_and_probabilities_under_its_name(toy, tmp_path):
    prediction, unit, image = answer(toy)
    files = toy.task.write(prediction, toy.workspace.spec, image, tmp_path / f"{unit.id}.nii.gz")
    assert sorted(path.name for path in files) == [f"{unit.id}.json", f"{unit.id}.nii.gz"]
    row = toy.task.row(prediction, toy.workspace.spec, image)
    assert set(row) == {"square.volume_ml", "ill", "ill.1.probability", "ill.threshold"}


def test_scores_of_both_tasks_stand_side_by_side(toy):
    prediction, unit, image = answer(toy)
    spec = toy.workspace.spec
    target = toy.task.read_target(unit, spec)
    found = toy.task.score(prediction, target, spec, image)
    dense = DENSE.score(prediction.dense, target.dense, spec_of(DENSE, spec), image)
    whole = WHOLE.score(prediction.whole, target.whole, spec_of(WHOLE, spec), image)
    expected = {f"segmentation.{name}": value for name, value in dense.items()}
    assert found == pytest.approx(expected | {f"classification.{name}": value for name, value in whole.items()}, nan_ok=True)


def test_a_task_without_a_target_has_no_scores(toy):
    prediction, unit, image = answer(toy)
    target = toy.task.read_target(unit, toy.workspace.spec)
    found = toy.task.score(prediction, Pair(None, target.whole), toy.workspace.spec, image)
    assert found and all(name.startswith("classification.") for name in found)


def records(*pairs):
    """Units with a Dice, a truth and a probability."""
    return [Record(f"u{place}", {"segmentation.mean.dice": dice, "classification.ill.truth": truth,
                                 "classification.ill.yes.probability": said, "classification.ill.decided": float(said >= 0.5)})
            for place, (dice, truth, said) in enumerate(pairs)]


def test_the_headline_is_the_mean_of_both_headlines():
    """Dice 0.8 on average; of two pairs of unlike units one and a half are in order: area 0.75."""
    found = summarise(PARTS, records((0.7, 0, 0.2), (0.9, 1, 0.6), (0.8, 0, 0.6)), np.random.default_rng(0))
    assert found["segmentation.score"].mean == found["segmentation.mean.dice"].mean == pytest.approx(0.8)
    assert found["classification.score"].mean == found["classification.mean.auc"].mean == pytest.approx(0.75)
    assert found["mean.score"].mean == pytest.approx(0.775) and found["mean.score"].count == 3


def test_a_headline_that_is_not_defined_leaves_the_other_one():
    found = summarise(PARTS, records((0.7, 0, 0.2), (0.9, 0, 0.6)), np.random.default_rng(0))
    assert np.isnan(found["classification.score"].mean) and found["mean.score"].mean == pytest.approx(0.8)


def test_post_processing_changes_its_own_half_and_is_judged_by_its_own_score(toy):
    prediction, unit, image = answer(toy)
    spec = toy.workspace.spec
    steps = {step.name: step for step in toy.task.refinements(spec)}
    assert [name.split(".")[0] for name in steps] == ["segmentation"] * 2 + ["classification"] * 4
    assert steps["segmentation.largest_component.square"].judged_by == "segmentation.mean.dice"
    assert steps["classification.temperature"].judged_by == "classification.mean.log_score"
    given = Given(baseline=toy.task.read_target(unit, spec))
    taken = steps["classification.baseline_alone"].apply(prediction, spec, given)
    assert taken.dense is prediction.dense
    assert taken.whole.readings[0].probabilities == given.baseline.whole.readings[0].probabilities
    kept = steps["segmentation.largest_component.foreground"].apply(prediction, spec, Given())
    assert kept.whole is prediction.whole and kept.dense.label.sum() <= prediction.dense.label.sum()


def test_a_fitted_step_sees_the_predictions_of_its_own_task(toy):
    prediction, unit, _ = answer(toy)
    spec = toy.workspace.spec
    target = toy.task.read_target(unit, spec)
    step = next(step for step in toy.task.refinements(spec) if step.name == "classification.temperature")
    alone = next(step for step in WHOLE.refinements(spec_of(WHOLE, spec)) if step.name == "temperature")
    assert step.fit([(prediction, target)] * 3, spec) == alone.fit([(prediction.whole, target.whole)] * 3, spec_of(WHOLE, spec))


def test_predictions_on_another_grid_are_refused(toy, tmp_path):
    prediction, unit, image = answer(toy)
    toy.task.write(prediction, toy.workspace.spec, image, tmp_path / f"{unit.id}.nii.gz")
    smaller = Image.canonical(image.voxels[:, 1:], replace(image.geometry, shape=image.voxels[0, 1:].shape))
    write_label_map(tmp_path / f"{unit.id}.nii.gz", np.zeros(smaller.geometry.shape, np.uint8), smaller)
    compared = {one.unit: one for one in toy.task.compare(tmp_path, toy.folder, toy.workspace.spec)}
    with pytest.raises(GeometryError, match="predict again"):
        compared[unit.id].score()
    (tmp_path / f"{unit.id}.nii.gz").unlink()
    with pytest.raises(AutosegError, match="no prediction") as caught:
        compared[unit.id].score()
    assert caught.value.code == "E_MISSING_PREDICTION"


def test_references_are_the_folder_of_the_dataset(toy, tmp_path):
    with pytest.raises(DatasetError, match="folder of the dataset"):
        toy.task.compare(tmp_path, toy.folder / "labels.csv", toy.workspace.spec)


def test_the_baseline_of_each_task_is_what_it_is_alone(toy):
    spec, units = toy.workspace.spec, toy.workspace.units[:8]
    samples = [(unit, read_inputs(unit, spec), toy.task.read_target(unit, spec)) for unit in units]
    arrays = toy.task.fit_baseline(samples, spec, np.random.default_rng(0))
    alone = DENSE.fit_baseline([(unit, inputs, target.dense) for unit, inputs, target in samples], spec_of(DENSE, spec),
                               np.random.default_rng(0))
    _, inputs, _ = samples[0]
    found = toy.task.apply_baseline(arrays, inputs, spec)
    assert np.array_equal(found.dense.label, DENSE.apply_baseline(alone, inputs, spec_of(DENSE, spec)).label)
    assert 0 < found.whole.readings[0].probabilities[1] < 1


def test_a_unit_that_lacks_one_target_is_left_out_of_that_tasks_baseline(toy):
    spec, units = toy.workspace.spec, toy.workspace.units[:8]
    samples = [(unit, read_inputs(unit, spec), toy.task.read_target(unit, spec)) for unit in units]
    unit, inputs, target = samples[-1]
    with_gap = [*samples[:-1], (unit, inputs, Pair(None, target.whole))]
    fitted = toy.task.fit_baseline(with_gap, spec, np.random.default_rng(0))
    fewer = toy.task.fit_baseline(samples[:-1], spec, np.random.default_rng(0))
    assert np.array_equal(fitted["segmentation.prior"], fewer["segmentation.prior"])
    assert not np.array_equal(fitted["classification.mean"], fewer["classification.mean"])


def test_units_to_predict_have_no_target_at_all(toy):
    case = replace(toy.workspace.units[0].cases[0], targets={}, values={})
    assert toy.task.read_target(Unit(case.id, (case,), case.group), toy.workspace.spec) is None
