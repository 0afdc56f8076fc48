from __future__ import annotations

from dataclasses import replace

import pytest

from autoseg.planning.augmentation import plan_augmentation, plan_mirroring, rotation_range
from autoseg.planning.laterality import Laterality
from autoseg.planning.recipes import CPU, CUDA, MANY_PASSES, NNUNET

UPRIGHT = (0, 1, 2)
KIDNEYS = Laterality(((1, 2),), ((0, 1),), names=("left_kidney", "right_kidney"))
NO_SIDES = Laterality()
ALONE = Laterality(unclear="left_lung has no partner of the other side", names=("left_lung",))


def planned_for(recipe, patch, passes=1.0, transpose=UPRIGHT, laterality=NO_SIDES):
    return plan_augmentation(recipe, patch, passes, plan_mirroring(recipe, len(patch), transpose, laterality))


@pytest.mark.parametrize(("patch", "expected"), [
    ((40, 56, 40), (-30, 30)),
    ((20, 256, 224), (-180, 180)),  # longest axis above three times axis 0: within slices
    ((40, 120, 40), (-30, 30)),     # exactly three times
    ((256, 224), (-180, 180)),
    ((240, 160), (-180, 180)),      # exactly one and a half
    ((256, 160), (-15, 15)),
])
def test_rotation_follows_from_dimensions_and_aspect_of_the_patch(patch, expected):
    assert rotation_range(patch) == expected


def test_flat_3d_patches_rotate_within_slices_and_2d_patches_need_not_say_so():
    assert planned_for(NNUNET, (20, 256, 224)).dummy_2d
    assert not planned_for(NNUNET, (40, 56, 40)).dummy_2d
    assert not planned_for(NNUNET, (300, 20)).dummy_2d


def test_slices_are_mirrored_along_model_axes_one_and_two():
    assert planned_for(NNUNET, (40, 56, 40)).mirror_axes == (0, 1, 2)
    assert planned_for(NNUNET, (56, 40)).mirror_axes == (1, 2)


def test_the_cpu_recipe_neither_mirrors_nor_turns_patients_over():
    planned = planned_for(CPU, (56, 40))
    assert planned.mirror_axes == ()
    assert planned.rotation_deg == CPU.augmentation.rotation_deg


def test_nnunet_probabilities_and_ranges():
    planned = planned_for(NNUNET, (40, 56, 40))
    assert (planned.rotation_probability, planned.scaling_probability, planned.scaling) == (0.2, 0.2, (0.7, 1.4))
    assert (planned.noise_probability, planned.noise_variance) == (0.1, (0.0, 0.1))
    assert (planned.blur_probability, planned.blur_probability_per_channel, planned.blur_sigma) == (0.2, 0.5, (0.5, 1.0))
    assert (planned.brightness_probability, planned.brightness) == (0.15, (0.75, 1.25))
    assert (planned.contrast_probability, planned.contrast) == (0.15, (0.75, 1.25))
    assert (planned.low_resolution_probability, planned.low_resolution_probability_per_channel) == (0.25, 0.5)
    assert planned.low_resolution_zoom == (0.5, 1.0)
    assert (planned.inverted_gamma_probability, planned.gamma_probability, planned.gamma) == (0.1, 0.3, (0.7, 1.5))


def test_runs_that_draw_the_dataset_often_are_augmented_more_strongly():
    short, long = (planned_for(CPU, (40, 56, 40), passes) for passes in (MANY_PASSES - 0.1, MANY_PASSES))
    assert short.rotation_deg == (-15.0, 15.0) and short.elastic_probability == 0
    assert long.rotation_deg == (-30.0, 30.0) and long.elastic_probability > 0
    assert planned_for(NNUNET, (40, 56, 40), 1000.0) == planned_for(NNUNET, (40, 56, 40))


@pytest.mark.parametrize(("dims", "transpose", "across"), [(3, (0, 1, 2), 2), (3, (2, 0, 1), 0), (3, (1, 0, 2), 2),
                                                           (2, (1, 0, 2), 2)])
def test_left_and_right_are_swapped_on_the_model_axis_that_the_transposition_makes_of_it(dims, transpose, across):
    mirroring = plan_mirroring(CUDA, dims, transpose, KIDNEYS)
    assert (mirroring.left_right_axis, mirroring.label_pairs, mirroring.output_pairs) == (across, ((1, 2),), ((0, 1),))
    assert mirroring.axes == (0, 1, 2)[-dims:]
    assert "left_kidney, right_kidney" in mirroring.reason.inputs


def test_sagittal_slices_hold_no_left_and_right_so_nothing_is_swapped():
    mirroring = plan_mirroring(CUDA, 2, (2, 0, 1), KIDNEYS)
    assert (mirroring.axes, mirroring.left_right_axis, mirroring.label_pairs) == ((1, 2), None, ())


def test_where_the_swap_is_unclear_only_that_axis_is_not_mirrored():
    mirroring = plan_mirroring(CUDA, 3, (2, 0, 1), ALONE)
    assert (mirroring.axes, mirroring.left_right_axis) == ((1, 2), None)
    assert "left_lung has no partner" in mirroring.reason.because


@pytest.mark.parametrize("laterality", [KIDNEYS, ALONE])
def test_nnunet_mirrors_every_axis_and_swaps_nothing_but_says_so(laterality):
    mirroring = plan_mirroring(NNUNET, 3, UPRIGHT, laterality)
    assert (mirroring.axes, mirroring.left_right_axis, mirroring.label_pairs) == ((0, 1, 2), None, ())
    assert "Warning" in mirroring.reason.because
    assert "Warning" not in plan_mirroring(NNUNET, 3, UPRIGHT, Laterality()).reason.because


@pytest.mark.parametrize(("dims", "transpose", "axes"), [(3, (0, 1, 2), (2,)), (3, (2, 0, 1), (0,)), (2, (2, 0, 1), ()),
                                                       (2, (0, 1, 2), (2,))])
def test_a_recipe_may_mirror_left_and_right_only(dims, transpose, axes):
    recipe = replace(CPU, mirrors="left_right")
    assert plan_mirroring(recipe, dims, transpose, Laterality()).axes == axes
    assert plan_mirroring(recipe, dims, transpose, ALONE).axes == ()
