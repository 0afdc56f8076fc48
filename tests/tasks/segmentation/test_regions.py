from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from toy_tasks.datasets import make_toy

from autoseg.core.errors import DatasetError
from autoseg.core.geometry import Geometry
from autoseg.core.image import Image
from autoseg.core.plan import Augmentation, Plan
from autoseg.core.spec import DatasetSpec, LabelSpec, LayoutSpec, RegionSpec
from autoseg.core.task import Context, Given
from autoseg.io.values import from_plain, to_plain
from autoseg.stages.prepare import grid_hash, prepare_inputs, read_inputs
from autoseg.tasks.segmentation.baseline import apply_baseline, fit_baseline
from autoseg.tasks.segmentation.output import restore
from autoseg.tasks.segmentation.plan import region_bias
from autoseg.tasks.segmentation.refine import refinements
from autoseg.tasks.segmentation.regions import decide, label_sets, plan_painting, probabilities_of
from autoseg.tasks.segmentation.sample import draw_batch
from autoseg.tasks.segmentation.score import score
from autoseg.tasks.segmentation.spec import index_units
from autoseg.tasks.segmentation.step import loss_terms
from autoseg.tasks.segmentation.target import (
    Segmentation,
    describe,
    indices_to_values,
    prepare_target,
    read_target,
    values_to_indices,
)

LABELS = (LabelSpec("necrosis", 1), LabelSpec("edema", 2), LabelSpec("enhancing", 4))
NESTED = (RegionSpec("whole", ("necrosis", "edema", "enhancing")), RegionSpec("core", ("necrosis", "enhancing")),
          RegionSpec("active", ("enhancing",)))


def spec_with(regions=NESTED, labels=LABELS, **changes):
    return DatasetSpec("Toy", "segmentation", (LayoutSpec("flat", {"image": ("{case}.nii.gz",)}),), labels=labels,
                       regions=regions, **changes)


@pytest.fixture(scope="module")
def regions_toy(tmp_path_factory):
    return make_toy("regions", tmp_path_factory.mktemp("regions"))


def region_configuration(configuration, regions, paints):
    return replace(configuration, network=replace(configuration.network, out_channels=len(paints)),
                   task_values={"label_count": 3, "regions": regions, "paints": paints})


def test_nested_regions_paint_what_the_next_ones_leave():
    painting = plan_painting(spec_with())
    assert painting.regions == ((1, 2, 3), (1, 3), (3,)) and painting.paints == (2, 1, 3)


def test_what_a_region_paints_may_be_written():
    regions = (RegionSpec("both", ("necrosis", "edema", "enhancing"), "edema"), NESTED[2])
    assert plan_painting(spec_with(regions)).paints == (2, 3)


def test_labels_that_a_region_paints_alike_have_no_scores_and_volumes_of_their_own():
    mixed = spec_with((RegionSpec("both", ("necrosis", "edema", "enhancing"), "edema"), NESTED[2]))
    assert label_sets(mixed) == {"enhancing": [3], "both": [1, 2, 3], "active": [3]}
    other = spec_with((RegionSpec("both", ("necrosis", "enhancing"), "enhancing"), NESTED[2]), (LABELS[0], LABELS[2]))
    assert list(label_sets(other)) == ["both", "active"]  # necrosis is written as what it is not
    by_label = replace(mixed, options={"train_on": "labels"})
    assert list(label_sets(by_label)) == ["necrosis", "edema", "enhancing", "both", "active"]
    assert label_sets(spec_with()) == {"necrosis": [1], "edema": [2], "enhancing": [3], "whole": [1, 2, 3], "core": [1, 3],
                                       "active": [3]}


@pytest.mark.parametrize(("regions", "words"), [
    ((NESTED[0], NESTED[2]), r"'whole' paints: without the labels of later regions it holds necrosis and edema.*paints: n"),
    (NESTED[::-1], r"'active' paints: later regions paint over all of it"),
    (NESTED[1:], r"edema would never be predicted.*'edema: \[edema\]'.*train_on: labels"),
])
def test_unclear_regions_are_refused_before_anything_is_read_and_the_message_says_what_to_write(regions, words):
    with pytest.raises(DatasetError, match=words):
        index_units(spec_with(regions), ())
    assert plan_painting(spec_with(regions, options={"train_on": "labels"})) is None


def test_regions_are_painted_in_order_where_their_logit_is_above_zero(toy):
    configuration = region_configuration(toy.configuration, ((1, 2, 3), (1, 3), (3,)), (2, 1, 3))
    logits = np.array([[-1, 1, 1, 1, -1, 0], [-1, -1, 1, 1, 1, 0], [-1, -1, -1, 1, -1, 0]], np.float32)[:, None, None]
    assert decide(logits, configuration).ravel().tolist() == [0, 2, 1, 3, 1, 0]
    assert decide(logits, configuration).dtype == np.uint8


def test_labels_are_decided_by_the_first_largest_logit(toy):
    logits = np.array([[1, 0, 0, 2], [1, 2, 1, 2], [0, 1, 1, 3]], np.float32)[:, None, None]
    assert decide(logits, toy.configuration).ravel().tolist() == [0, 1, 1, 2]


def test_probabilities_of_regions_are_each_their_own_and_zero_outside_the_crop(toy):
    geometry = Geometry((5, 6, 7), (1.0, 1.0, 1.0))
    voxels = np.zeros((1, 5, 6, 7), np.float32)
    voxels[0, 1:4, 1:5, 2:6] = 1
    plan = replace(toy.plan, transpose=(2, 0, 1))
    configuration = replace(region_configuration(toy.configuration, ((1, 2, 3), (3,)), (2, 3)), spacing_mm=(1.0, 1.0, 1.0))
    _, record = prepare_inputs({"image": Image.canonical(voxels, geometry)}, plan, configuration)
    logits = np.zeros((2, *record.model_shape), np.float32)
    logits[0] = np.log(3)

    restored = restore(logits, record, configuration, Context(probabilities=True))

    assert restored.probabilities[0, 2, 2, 3] == pytest.approx(0.75) and restored.probabilities[1, 2, 2, 3] == 0.5
    assert (restored.probabilities[:, 0] == 0).all()
    assert np.array_equal(restored.label, 2 * voxels[0].astype(np.uint8))
    assert probabilities_of(logits, configuration).sum(axis=0) == pytest.approx(1.25)


def test_ignored_voxels_have_the_index_behind_the_labels_and_come_back():
    spec = spec_with((), ignore=9)
    values = np.array([0, 1, 2, 4, 9])
    assert values_to_indices(values, spec).tolist() == [0, 1, 2, 3, 4]
    assert indices_to_values(values_to_indices(values, spec), spec).tolist() == values.tolist()
    with pytest.raises(DatasetError, match="9 ignored"):
        values_to_indices(np.array([3]), spec)


def test_the_plan_of_regions(regions_toy):
    configuration = regions_toy.configuration
    assert configuration.network.out_channels == 2
    assert configuration.task_values == {"label_count": 2, "ignore": 3, "regions": ((1, 2), (1,)), "paints": (2, 1)}
    assert configuration.loss.terms == {"dice": 1.0, "binary_cross_entropy": 1.0}
    assert set(loss_terms(configuration)) == {"dice", "binary_cross_entropy"}
    assert len(configuration.network.output_bias) == 2
    assert from_plain(to_plain(regions_toy.plan), Plan, source="test") == regions_toy.plan


def test_outputs_of_regions_start_from_the_odds_of_annotated_voxels(regions_toy):
    counted = replace(regions_toy.workspace.fingerprint,
                      properties={"voxels.label_0": 60, "voxels.label_1": 10, "voxels.label_2": 30, "cases.label_1": 5})
    bias = region_bias(counted, ((1, 2), (1,), (2,)))
    assert 1 / (1 + np.exp(-np.array(bias))) == pytest.approx([0.4, 0.1, 0.3], abs=1e-3)
    rare = region_bias(replace(counted, properties={"voxels.label_0": 10**9}), ((1,),))
    assert rare == pytest.approx([np.log(1e-3 / 0.999)], abs=1e-3)


def test_ignored_voxels_are_neither_foreground_nor_counted(regions_toy):
    unit = regions_toy.workspace.units[1]
    target = read_target(unit, regions_toy.workspace.spec)
    description = describe(unit, {}, target)
    assert (target.label[:4] == 3).all() and not description.foreground[:4].any() and description.foreground[4:-4].any()
    assert sum(n for name, n in description.properties.items() if name.startswith("voxels")) == target.label[4:-4].size
    assert "voxels.label_3" not in description.properties and "cases.label_3" not in description.properties


def test_ignored_voxels_stay_ignored_on_another_grid(regions_toy):
    unit, spec = regions_toy.workspace.units[1], regions_toy.workspace.spec
    configuration = replace(regions_toy.configuration, spacing_mm=(0.7, 1.3, 0.9))
    _, record = prepare_inputs(read_inputs(unit, spec), regions_toy.plan, configuration)
    arrays = prepare_target(read_target(unit, spec), record, configuration)
    assert (arrays["label"][:5] == 3).all() and (arrays["label"][8:-8] != 3).all()
    assert (arrays["label"][tuple(arrays["annotated"].T)] != 3).all() and len(arrays["annotated"])
    assert np.isin(arrays["label"][tuple(arrays["places_1"].T)], (1, 2)).all()
    assert (arrays["label"][tuple(arrays["places_2"].T)] == 1).all()
    assert set(arrays) == {"label", "annotated", "places_1", "places_2"}


def test_patches_without_a_forced_label_lie_around_annotated_voxels(regions_toy):
    configuration = replace(regions_toy.configuration, patch_size=(1, 1, 1), batch_size=40, augmentation=Augmentation(),
                            oversample_foreground=0.0)
    batch = draw_batch(regions_toy.workspace.units, regions_toy.store, configuration, np.random.default_rng(0))
    labels = batch["label"].numpy().ravel()
    assert (labels != 3).all() and (labels == 0).mean() > 0.5


def test_forced_patches_are_drawn_around_a_random_region(regions_toy):
    configuration = replace(regions_toy.configuration, patch_size=(1, 1, 1), batch_size=40, augmentation=Augmentation(),
                            oversample_foreground=1.0)
    batches = [draw_batch(regions_toy.workspace.units, regions_toy.store, configuration, np.random.default_rng(seed))
               for seed in range(5)]
    drawn = np.concatenate([batch["label"].numpy().ravel() for batch in batches])
    assert set(drawn) == {1, 2} and 0.5 < (drawn == 1).mean() < 0.9  # half from the core, half from the whole


def test_stores_of_other_outputs_are_others(regions_toy):
    plan, configuration, spec = regions_toy.plan, regions_toy.configuration, regions_toy.workspace.spec
    other = replace(configuration, task_values={"label_count": 2, "ignore": 3})
    spacings = [(1.0, 1.0, 1.0)]
    assert grid_hash(plan, configuration, spec, spacings) != grid_hash(plan, other, spec, spacings)
    assert grid_hash(plan, other, spec, spacings) != grid_hash(plan, other, replace(spec, ignore=6), spacings)


GEOMETRY = Geometry((6, 8, 10), (2.0, 1.0, 0.5))
IMAGE = Image.canonical(np.zeros((1, 6, 8, 10), np.float32), GEOMETRY)


def painted(**boxes):
    label = np.zeros(GEOMETRY.shape, np.uint8)
    for name, (z, y, x) in boxes.items():
        label[slice(*z), slice(*y), slice(*x)] = {"necrosis": 1, "edema": 2, "enhancing": 3, "ignored": 4}[name]
    return label


def test_labels_and_regions_are_scored_and_the_mean_is_over_what_was_trained():
    reference = Segmentation(painted(edema=((0, 4), (0, 4), (0, 4)), necrosis=((0, 2), (0, 4), (0, 4))))
    prediction = Segmentation(painted(edema=((0, 4), (0, 4), (0, 4))))
    scores = score(prediction, reference, spec_with(), IMAGE)
    assert (scores["whole.dice"], scores["core.dice"]) == (1.0, 0.0) and np.isnan(scores["active.dice"])
    assert scores["edema.dice"] == pytest.approx(2 * 32 / 96)
    assert scores["mean.dice"] == 0.5
    by_label = score(prediction, reference, spec_with(options={"train_on": "labels"}), IMAGE)
    assert by_label["mean.dice"] == pytest.approx((2 * 32 / 96 + 0) / 2)
    assert not any("lesion" in name for name in scores)


def test_ignored_voxels_do_not_count_in_any_score():
    spec = spec_with((), ignore=9)
    reference = painted(edema=((0, 2), (0, 4), (0, 4)), ignored=((2, 6), (0, 8), (0, 10)))
    prediction = painted(edema=((0, 6), (0, 4), (0, 4)), necrosis=((4, 6), (4, 8), (4, 8)))
    scores = score(Segmentation(prediction), Segmentation(reference, ignored=4), spec, IMAGE)
    assert (scores["edema.dice"], scores["edema.hd95_mm"], scores["edema.surface_dice"]) == (1.0, 0.0, 1.0)
    assert scores["edema.volume_ml"] == scores["edema.reference_volume_ml"] == pytest.approx(32 / 1000)
    assert np.isnan(scores["necrosis.dice"]) and scores["mean.dice"] == 1.0


def test_lesions_are_scored_where_the_specification_asks():
    reference = painted(edema=((0, 2), (0, 2), (0, 2)), necrosis=((5, 6), (6, 8), (8, 10)))
    prediction = painted(edema=((0, 2), (0, 2), (0, 2)))
    options = {"lesions": {"dilation_voxels": 1, "smallest_mm3": 1}}
    scores = score(Segmentation(prediction), Segmentation(reference), spec_with(options=options), IMAGE)
    assert scores["whole.lesion_dice"] == 0.5 and scores["whole.lesion_hd95_mm"] == 187
    assert (scores["whole.lesions_found"], scores["whole.lesions_missed"], scores["whole.lesions_false"]) == (1, 1, 0)
    assert (scores["core.lesion_dice"], scores["active.lesion_dice"]) == (0.0, 1.0)
    assert scores["mean.lesion_dice"] == 0.5 and "edema.lesion_dice" not in scores
    large = score(Segmentation(prediction), Segmentation(reference), spec_with(options={"lesions": True}), IMAGE)
    assert large["whole.lesion_dice"] == 1.0  # both below 50 mm3


def test_islands_of_a_region_are_removed_with_all_that_is_in_them():
    label = painted(edema=((0, 3), (0, 4), (0, 4)), necrosis=((5, 6), (6, 8), (8, 10)), enhancing=((0, 1), (0, 1), (0, 1)))
    names = {refinement.name: refinement for refinement in refinements(spec_with())}
    assert list(names) == ["largest_component.foreground", *(f"largest_component.{r.name}" for r in NESTED)]
    whole = names["largest_component.whole"].apply(Segmentation(label), spec_with(), Given()).label
    core = names["largest_component.core"].apply(Segmentation(label), spec_with(), Given()).label
    assert (whole == 1).sum() == 0 and (whole == 3).sum() == 1
    assert (core == 3).sum() == 0 and (core == 1).sum() == 4 and (core == 2).sum() == (label == 2).sum()


def test_the_baseline_learns_from_annotated_voxels_only(regions_toy):
    spec, units = regions_toy.workspace.spec, regions_toy.workspace.units
    samples = [(unit, read_inputs(unit, spec), read_target(unit, spec)) for unit in units[:6]]
    arrays = fit_baseline(iter(samples), spec, np.random.default_rng(0))
    inputs, reference = read_inputs(units[7], spec), read_target(units[7], spec)
    prediction = apply_baseline(arrays, inputs, spec)
    assert set(np.unique(prediction.label)) <= {0, 1, 2}
    assert score(prediction, reference, spec, inputs["image"])["whole.dice"] > 0.5


def test_a_fold_without_any_annotation_is_refused(regions_toy):
    spec, unit = regions_toy.workspace.spec, regions_toy.workspace.units[0]
    inputs = read_inputs(unit, spec)
    nothing = Segmentation(np.full(inputs["image"].geometry.shape, 3, np.uint8), ignored=3)
    with pytest.raises(DatasetError, match="annotated voxel"):
        fit_baseline(iter([(unit, inputs, nothing)]), spec, np.random.default_rng(0))
