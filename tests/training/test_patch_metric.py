from __future__ import annotations

from functools import partial

import pytest
import torch
from inference.pairs import deformed_pair, error, length, texture
from nn.fields import noise

from autoseg.core.errors import UsageError
from autoseg.inference.instance import InstanceRules, Level, optimise_pair
from autoseg.losses.learned import patch_loss
from autoseg.training.patch_metric import PatchMetricRules, fit_patch_metric

RULES = PatchMetricRules(features=(8, 8, 12, 12, 12), iterations=250, batch=16, rate=3e-3, shift_voxels=(1.0, 4.0))


def other_contrast(image):
    """The same anatomy, with a relation of values that is neither linear nor one-to-one."""
    return -image.abs()


@pytest.fixture(scope="module")
def learnt():
    images = [texture((48, 56), seed=seed)[0] for seed in range(3)]
    return fit_patch_metric([(image, other_contrast(image)) for image in images], RULES, torch.Generator().manual_seed(0))


def test_it_learns_what_is_aligned_between_contrasts(learnt):
    image = texture((48, 56), seed=11)
    losses = [float(patch_loss(learnt, image, other_contrast(image).roll(shift, 3))) for shift in (0, 1, 2, 4)]
    assert losses == sorted(losses)
    assert losses[3] > 3 * losses[0]


def test_it_registers_a_pair_of_two_contrasts(learnt):
    fixed, moving, truth = deformed_pair((48, 56), seed=20)
    rules = InstanceRules(levels=(Level(1, 4, 40),), rate_voxels=0.1, smoothness=3.0, energy="diffusion", integration_steps=4)
    found = optimise_pair(fixed, other_contrast(moving), (1.0, 1.0), rules, partial(patch_loss, learnt))
    assert error(found.displacement, truth, margin=8) < 0.65 * length(truth, margin=8)  # 8: where patches fit


def test_the_same_seed_gives_the_same_weights():
    pair = [(noise(1, 20, 22), noise(1, 20, 22, seed=1))]
    rules = PatchMetricRules(features=(2, 2, 2, 2, 2), iterations=2, batch=4, rate=1e-3, shift_voxels=(1.0, 2.0))
    first, second = (fit_patch_metric(pair, rules, torch.Generator().manual_seed(4)).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_images_without_room_for_a_patch_are_told():
    with pytest.raises(UsageError, match="at least 17 voxels along each axis; found"):
        fit_patch_metric([(noise(1, 16, 30), noise(1, 16, 30))], RULES, torch.Generator())
    with pytest.raises(UsageError, match="none was given"):
        fit_patch_metric([], RULES, torch.Generator())
