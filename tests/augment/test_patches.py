from __future__ import annotations

import numpy as np
import pytest
import torch
from nn.fields import noise

from autoseg.augment.patches import PatchRules, draw_patches


def ramp(*shape):
    """An image (D, *shape) whose channels are its coordinates: a patch says where it is from."""
    lines = torch.meshgrid(*(torch.arange(size, dtype=torch.float32) for size in shape), indexing="ij")
    return torch.stack(lines)


@pytest.mark.parametrize(("shape", "size"), [((24, 31), (17, 17)), ((9, 21, 26), (5, 7, 9)), ((4, 20, 23), (1, 17, 17))])
def test_aligned_patches_are_from_one_place_and_others_as_far_away_as_planned(shape, size):
    rules = PatchRules(9, size, (1.0, 3.0))
    first, second, aligned = draw_patches(ramp(*shape), ramp(*shape), rules, np.random.default_rng(0))
    assert first.shape == second.shape == (9, len(shape), *size) and aligned.tolist() == [True] * 5 + [False] * 4
    middle = tuple((length - 1) // 2 for length in size)
    centres = first[(..., *middle)]
    margin = (torch.tensor(size) - 1) / 2
    assert (centres >= margin - 1e-4).all() and (centres <= torch.tensor(shape) - 1 - margin + 1e-4).all()
    torch.testing.assert_close(second[:5], first[:5])
    corner = first[(..., *(slice(1),) * len(size))].flatten(1) - centres  # mirrored or not, a patch holds the voxels around
    torch.testing.assert_close(corner.abs(), margin.expand(9, -1), atol=1e-4, rtol=0)
    away = (second[(..., *middle)] - centres)[5:]
    assert (away.norm(dim=1) <= 3 + 1e-4).all() and (away.norm(dim=1) > 0).all()  # the border holds what would leave the image


def test_misaligned_patches_of_a_large_image_are_moved_by_the_least_length_at_least():
    rules = PatchRules(40, (3, 3), (1.0, 3.0))
    first, second, aligned = draw_patches(ramp(200, 220), ramp(200, 220), rules, np.random.default_rng(1))
    lengths = (second - first)[..., 1, 1].norm(dim=1)[~aligned]
    inner = lengths[((first[..., 1, 1] > 4) & (first[..., 1, 1] < 195)).all(1)[~aligned]]
    assert len(inner) > 10 and inner.min() >= 1 - 1e-3 and inner.max() <= 3 + 1e-3


def test_places_are_where_the_fixed_image_is_not_air():
    fixed = torch.zeros(1, 60, 70)
    fixed[:, 40:44, 20:24] = noise(1, 4, 4).abs() + 1
    where = ramp(60, 70)
    _, found, aligned = draw_patches(fixed, where, PatchRules(30, (5, 5), (1.0, 2.0)), np.random.default_rng(2))
    centres = found[..., 2, 2][aligned]
    assert (centres >= torch.tensor([39.4, 19.4])).all() and (centres <= torch.tensor([43.6, 23.6])).all()


def test_the_generator_decides():
    image = noise(1, 30, 30)
    rules = PatchRules(4, (7, 7), (1.0, 2.0))
    first, again, other = (draw_patches(image, image, rules, np.random.default_rng(seed))[1] for seed in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)
