from __future__ import annotations

import pytest

from autoseg.planning.augmentation import mirror_axes, plan_augmentation, rotation_range
from autoseg.planning.recipes import CPU, MANY_PASSES, NNUNET


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
    assert plan_augmentation(NNUNET, (20, 256, 224), 1.0).dummy_2d
    assert not plan_augmentation(NNUNET, (40, 56, 40), 1.0).dummy_2d
    assert not plan_augmentation(NNUNET, (300, 20), 1.0).dummy_2d


def test_slices_are_mirrored_along_model_axes_one_and_two():
    assert (mirror_axes(3), mirror_axes(2)) == ((0, 1, 2), (1, 2))
    assert plan_augmentation(NNUNET, (56, 40), 1.0).mirror_axes == (1, 2)


def test_the_cpu_recipe_neither_mirrors_nor_turns_patients_over():
    planned = plan_augmentation(CPU, (56, 40), 1.0)
    assert planned.mirror_axes == ()
    assert planned.rotation_deg == CPU.augmentation.rotation_deg


def test_nnunet_probabilities_and_ranges():
    planned = plan_augmentation(NNUNET, (40, 56, 40), 1.0)
    assert (planned.rotation_probability, planned.scaling_probability, planned.scaling) == (0.2, 0.2, (0.7, 1.4))
    assert (planned.noise_probability, planned.noise_variance) == (0.1, (0.0, 0.1))
    assert (planned.blur_probability, planned.blur_probability_per_channel, planned.blur_sigma) == (0.2, 0.5, (0.5, 1.0))
    assert (planned.brightness_probability, planned.brightness) == (0.15, (0.75, 1.25))
    assert (planned.contrast_probability, planned.contrast) == (0.15, (0.75, 1.25))
    assert (planned.low_resolution_probability, planned.low_resolution_probability_per_channel) == (0.25, 0.5)
    assert planned.low_resolution_zoom == (0.5, 1.0)
    assert (planned.inverted_gamma_probability, planned.gamma_probability, planned.gamma) == (0.1, 0.3, (0.7, 1.5))


def test_runs_that_draw_the_dataset_often_are_augmented_more_strongly():
    short, long = (plan_augmentation(CPU, (40, 56, 40), passes) for passes in (MANY_PASSES - 0.1, MANY_PASSES))
    assert short.rotation_deg == (-15.0, 15.0) and short.elastic_probability == 0
    assert long.rotation_deg == (-30.0, 30.0) and long.elastic_probability > 0
    assert plan_augmentation(NNUNET, (40, 56, 40), 1000.0) == plan_augmentation(NNUNET, (40, 56, 40), 1.0)
