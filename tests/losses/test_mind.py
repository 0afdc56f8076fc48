from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from nn.fields import SHAPES, noise

from autoseg.losses.mind import mind_descriptors, mind_loss, neighbour_pairs


def naive(image, radius, dilation, pairs):
    """Descriptors (K, *spatial) voxel by voxel, as in the paper, with the limits of ConvexAdam."""
    def value(index):
        return image[tuple(min(max(i, 0), size - 1) for i, size in zip(index, image.shape, strict=True))]

    shape = image.shape
    squared = np.zeros((len(pairs), *shape))
    for k, (first, second) in enumerate(pairs):
        for index in itertools.product(*map(range, shape)):
            there = [value([i + dilation * step for i, step in zip(index, offset, strict=True)]) for offset in (first, second)]
            squared[(k, *index)] = (there[0] - there[1]) ** 2
    distances = np.zeros_like(squared)
    for index in itertools.product(*map(range, shape)):
        box = tuple(slice(max(i - radius, 0), i + radius + 1) for i in index)
        for k in range(len(pairs)):
            distances[(k, *index)] = squared[(k, *box)].mean()
    above = distances - distances.min(0)
    noise_of = above.mean(0)
    return np.exp(-above / np.clip(noise_of, 1e-3 * noise_of.mean(), 1e3 * noise_of.mean()))


@pytest.mark.parametrize("dims", [2, 3])
def test_descriptors_are_those_of_a_naive_loop(dims):
    image = noise(2, 1, *SHAPES[dims])
    found = mind_descriptors(image, radius=1, dilation=2)
    expected = [naive(sample[0].double().numpy(), 1, 2, neighbour_pairs(dims)) for sample in image]
    np.testing.assert_allclose(found.numpy(), np.stack(expected), atol=1e-4)


def test_there_are_twelve_pairs_of_six_neighbours_and_four_of_four():
    assert len(neighbour_pairs(3)) == 12
    assert len(neighbour_pairs(2)) == 4
    assert all(np.abs(np.subtract(*pair)).sum() == 2 for pair in neighbour_pairs(3))


def test_neither_scale_nor_offset_nor_sign_counts():
    image = noise(1, 1, *SHAPES[3])
    for changed in (1e4 * image, 1e-4 * image, 7 - image):
        torch.testing.assert_close(mind_descriptors(changed), mind_descriptors(image), atol=1e-3, rtol=0)


@pytest.mark.parametrize("value", [0.0, 5.0, 1e6])
def test_a_constant_image_is_everywhere_alike_with_a_finite_gradient(value):
    constant = torch.full((1, 1, 6, 7, 8), value, requires_grad=True)
    assert torch.equal(mind_descriptors(constant).detach(), torch.ones(1, 12, 6, 7, 8))
    mind_loss(noise(1, 1, 6, 7, 8), constant).backward()
    assert torch.isfinite(constant.grad).all()


def test_a_pair_does_not_depend_on_the_batch():
    images = torch.cat([noise(1, 1, *SHAPES[3]), 100 * noise(1, 1, *SHAPES[3], seed=2)])
    torch.testing.assert_close(mind_descriptors(images)[:1], mind_descriptors(images[:1]))
    assert float(mind_loss(images, images)) == 0
