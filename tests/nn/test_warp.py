from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from nn.fields import SHAPES, interpolated, noise, smooth_field
from scipy import ndimage

from autoseg.nn.warp import (
    affine_after,
    affine_displacement,
    compose,
    determinant,
    exponential,
    inverse_affine,
    jacobian,
    jacobian_determinant,
    resize,
    warp,
)

DIMS = pytest.mark.parametrize("dims", [2, 3])


@DIMS
def test_warp_reads_the_image_at_x_plus_u_voxel_by_voxel(dims):
    image, field = noise(1, 1, *SHAPES[dims]), 3 * noise(1, dims, *SHAPES[dims], seed=1)
    warped = warp(image, field)[0, 0]
    for index in itertools.product(*(range(0, size, 3) for size in SHAPES[dims])):
        position = [i + float(field[0, axis][index]) for axis, i in enumerate(index)]
        assert float(warped[index]) == pytest.approx(interpolated(image[0, 0], position), abs=1e-5)


@DIMS
@pytest.mark.parametrize(("mode", "order"), [("linear", 1), ("nearest", 0)])
def test_warp_is_that_of_scipy(dims, mode, order):
    image, field = noise(2, 3, *SHAPES[dims]), 3 * noise(2, dims, *SHAPES[dims], seed=1)
    grid = np.stack(np.meshgrid(*(np.arange(size) for size in SHAPES[dims]), indexing="ij"))
    for sample in range(2):
        positions = grid + field[sample].numpy()
        expected = [ndimage.map_coordinates(channel.numpy(), positions, order=order, mode="nearest") for channel in image[sample]]
        np.testing.assert_allclose(warp(image, field, mode=mode)[sample].numpy(), np.stack(expected), atol=1e-5)


@DIMS
def test_warp_and_integration_are_those_of_monai(dims):
    monai = pytest.importorskip("monai.networks.blocks.warp", reason="MONAI is not installed", exc_type=ImportError)
    image, field = noise(2, 2, *SHAPES[dims]), smooth_field(dims, batch=2, amplitude=2.0)
    for padding in ("border", "zeros"):
        torch.testing.assert_close(warp(image, field, padding=padding), monai.Warp(padding_mode=padding)(image, field))
    theirs = monai.DVF2DDF(num_steps=5, padding_mode="border")(field)
    torch.testing.assert_close(exponential(field, 5), theirs, atol=1e-5, rtol=0)


def test_a_label_map_keeps_its_type_and_its_values():
    label = torch.tensor([[0, 7, 7, 300]], dtype=torch.int16)[None, None]
    shift = torch.zeros(1, 2, 1, 4)
    shift[:, 1] = 1.2
    moved = warp(label, shift, mode="nearest")
    assert moved.dtype == torch.int16
    assert moved.flatten().tolist() == [7, 7, 300, 300]


def test_an_image_of_another_shape_shares_the_first_voxel():
    image = torch.arange(10.0)[None, None, None]
    shift = torch.zeros(1, 2, 1, 4)
    shift[:, 1] = 2.5
    assert warp(image, shift).flatten().tolist() == pytest.approx([2.5, 3.5, 4.5, 5.5])


def test_an_axis_of_one_voxel_is_read_as_it_is():
    image = torch.arange(5.0)[None, None, None]
    torch.testing.assert_close(warp(image, torch.full((1, 2, 1, 5), 0.5)).flatten(), torch.tensor([0.5, 1.5, 2.5, 3.5, 4.0]))


@DIMS
def test_warping_by_a_composition_is_warping_twice(dims):
    shape = tuple(4 * size for size in SHAPES[dims])
    positions = torch.stack(torch.meshgrid(*(torch.arange(float(size)) for size in shape), indexing="ij"))[None]
    first, then = (smooth_field(dims, amplitude=2.0, seed=seed, shape=shape) for seed in (1, 2))
    linear = (positions * torch.arange(1.0, dims + 1).reshape(-1, *(1,) * dims)).sum(1, keepdim=True)
    torch.testing.assert_close(warp(linear, compose(first, then)), warp(warp(linear, then), first), atol=2e-3, rtol=0)


@DIMS
def test_the_exponential_of_minus_a_velocity_undoes_it(dims):
    velocity = smooth_field(dims, amplitude=3.0, shape=tuple(3 * size for size in SHAPES[dims]))
    there, back = exponential(velocity, 7), exponential(-velocity, 7)
    assert float(there.abs().max()) > 2
    assert float(compose(there, back).abs().max()) < 0.1  # voxels; what linear interpolation between the steps costs


def test_the_exponential_is_the_end_of_many_small_steps():
    velocity = smooth_field(2, amplitude=2.0, shape=(30, 40))
    point = torch.zeros_like(velocity)
    for _ in range(1000):
        point = point + warp(velocity, point) / 1000
    torch.testing.assert_close(exponential(velocity, 7), point, atol=0.02, rtol=0)


def test_a_constant_velocity_is_a_shift():
    velocity = torch.tensor([1.5, -2.0, 0.25]).reshape(1, 3, 1, 1, 1).expand(1, 3, *SHAPES[3])
    torch.testing.assert_close(exponential(velocity, 6), velocity.contiguous())


def test_a_coarse_velocity_is_integrated_on_its_grid_and_scaled():
    coarse = torch.zeros(1, 2, 5, 7)
    coarse[:, 0], coarse[:, 1] = 0.5, -1.0
    fine = exponential(coarse, 4, shape=(9, 19))
    assert fine.shape == (1, 2, 9, 19)
    assert fine[0, 0].unique().tolist() == pytest.approx([0.5 * 8 / 4])
    assert fine[0, 1].unique().tolist() == pytest.approx([-1.0 * 18 / 6])


def test_a_linear_field_is_resized_exactly():
    line = torch.linspace(0, 4, 5)  # voxel i moves by i: the last one of 5 by 4 of their voxels, of 9 by 8 of theirs
    field = line.expand(1, 1, 5)[:, :, :, None].expand(1, 1, 5, 1)
    field = torch.cat([field, torch.zeros_like(field)], dim=1)
    torch.testing.assert_close(resize(field, (9, 1))[0, 0, :, 0], torch.linspace(0, 8, 9))


def rotation(angle, dims):
    matrix = torch.eye(dims, dims + 1)
    matrix[:2, :2] = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return matrix


def test_affine_displacement_turns_about_the_centre_of_the_grid():
    matrix = rotation(math.pi / 2, 2)
    matrix[:, 2] = torch.tensor([0.5, 1.0])
    found = affine_displacement(matrix[None], (3, 5))[0]
    for i, j in itertools.product(range(3), range(5)):
        offset = np.array([i - 1, j - 2])
        expected = np.array([-offset[1], offset[0]]) + [1, 2] + [0.5, 1.0] - [i, j]
        assert found[:, i, j].tolist() == pytest.approx(expected.tolist(), abs=1e-6)


@DIMS
def test_affine_after_a_displacement_is_their_composition(dims):
    shape = tuple(4 * size for size in SHAPES[dims])
    field = smooth_field(dims, batch=2, amplitude=2.0, shape=shape)
    matrix = torch.stack([rotation(0.1, dims), rotation(-0.2, dims)])
    matrix[:, :, -1] = 0.7
    ours = affine_after(field, matrix)
    composed = compose(field, affine_displacement(matrix, shape))
    inner = (slice(None), slice(None), *(slice(3, -3),) * dims)  # the border of a displacement is replicated, a matrix has none
    torch.testing.assert_close(ours[inner], composed[inner], atol=1e-4, rtol=0)


def test_an_inverse_matrix_leads_back():
    matrix = rotation(0.3, 3)[None] * 1.2
    matrix[:, :, -1] = torch.tensor([1.0, -2.0, 0.5])
    there = affine_displacement(matrix, (5, 6, 7))
    back = affine_after(there, inverse_affine(matrix))
    assert float(back.abs().max()) < 1e-5


def test_the_jacobian_of_an_affine_map_is_its_matrix_in_millimetres():
    spacing = (2.0, 1.0, 0.5)
    matrix = torch.eye(3, 4) + 0.1 * noise(3, 4)
    found = jacobian(affine_displacement(matrix[None], (4, 5, 6)), spacing)
    scale = torch.diag(torch.tensor(spacing))
    expected = scale @ matrix[:, :3] @ torch.linalg.inv(scale)
    torch.testing.assert_close(found, expected.reshape(1, 3, 3, 1, 1, 1).expand_as(found), atol=1e-5, rtol=0)


def test_determinants_are_those_of_torch():
    for size in (1, 2, 3):
        matrices = noise(5, size, size, 4)
        torch.testing.assert_close(determinant(matrices), torch.linalg.det(matrices.movedim(3, 1)))


def test_a_fold_has_a_negative_determinant_and_a_shift_one():
    fold = torch.zeros(1, 2, 1, 9)
    fold[:, 1] = -2 * torch.arange(9.0)  # x -> -x along the last axis
    torch.testing.assert_close(jacobian_determinant(fold), torch.full((1, 1, 9), -1.0))
    torch.testing.assert_close(jacobian_determinant(torch.full((1, 3, 3, 4, 5), 1.5)), torch.ones(1, 3, 4, 5))


def test_gradients_are_those_of_finite_differences():
    image, field = noise(1, 1, 4, 5).double(), 0.3 * noise(1, 2, 4, 5, seed=3).double()
    torch.autograd.gradcheck(lambda u: warp(image, exponential(u, 2)), field.requires_grad_(), atol=1e-5)
