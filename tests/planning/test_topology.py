from __future__ import annotations

import pytest

from autoseg.planning.topology import initial_patch, plan_topology


def test_isotropic_patch_of_128_has_five_halvings_of_every_axis():
    topology = plan_topology((1, 1, 1), (128, 128, 128))
    assert topology.strides == ((1, 1, 1),) + ((2, 2, 2),) * 5
    assert topology.kernel_sizes == ((3, 3, 3),) * 6
    assert topology.divisor == (32, 32, 32)


def test_hippocampus_is_padded_to_what_three_halvings_divide():
    topology = plan_topology((1, 1, 1), (36, 50, 35))
    assert topology.patch_size == (40, 56, 40)
    assert len(topology.strides) == 4


def test_coarse_axis_is_neither_halved_nor_convolved_until_spacings_are_within_two():
    # z 5 mm against 1.5625 mm: 3.2; after one halving 1.6. 20 slices are halved twice (20, 10, 5), then fall below 8.
    topology = plan_topology((5, 1.5625, 1.5625), (18, 237, 208))
    assert topology.strides == ((1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2), (1, 2, 2))
    assert topology.kernel_sizes == ((1, 3, 3),) + ((3, 3, 3),) * 5
    assert topology.patch_size == (20, 256, 224)


def test_prostate_strides_and_kernels():
    # 3.6 / 0.625 = 5.76, 2.88, 1.44: kernels of z are 1 twice, and z is halved in stages 3 and 4
    topology = plan_topology((3.6, 0.625, 0.625), (20, 320, 256))
    assert topology.strides == ((1, 1, 1), (1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2), (1, 2, 2))
    assert topology.kernel_sizes == ((1, 3, 3), (1, 3, 3)) + ((3, 3, 3),) * 5


def test_a_single_axis_is_halved_only_from_twelve_voxels_on():
    assert plan_topology((1, 1), (11, 7)).strides == ((1, 1),)
    assert plan_topology((1, 1), (12, 7)).strides == ((1, 1), (2, 1))


def test_the_deepest_stage_always_has_kernels_of_three():
    topology = plan_topology((10, 1, 1), (4, 9, 9))
    assert topology.kernel_sizes == ((1, 3, 3), (3, 3, 3))


def test_a_patch_too_small_to_halve_stays_one_stage():
    topology = plan_topology((1, 2, 3), (5, 6, 7))
    assert (topology.patch_size, topology.strides, topology.kernel_sizes) == ((5, 6, 7), ((1, 1, 1),), ((3, 3, 3),))


def test_half_voxels_of_a_median_shape_are_rounded_up_to_the_divisor():
    assert plan_topology((1, 1, 1), (36.5, 50.5, 40.5)).patch_size == (40, 56, 48)


def test_initial_patch_is_a_cube_in_millimetres_within_the_median_shape():
    # densities 0.25, 1, 1: 256^3 voxels make z (256^3 / 0.25)^(1/3) / 4 = 101.6 and y, x 406.4
    assert initial_patch((4, 1, 1), (1000, 1000, 300)) == (102, 406, 300)


def test_initial_slice_has_2048_voxels_a_side():
    assert initial_patch((1, 1), (5000, 100)) == (2048, 100)


@pytest.mark.parametrize("size", [(8, 9, 200), (33, 65, 129), (20, 320, 256)])
def test_every_patch_is_divisible_by_its_strides_and_not_smaller_than_asked(size):
    topology = plan_topology((2.5, 0.8, 1.1), size)
    remainders = [patch % divisor for patch, divisor in zip(topology.patch_size, topology.divisor, strict=True)]
    growth = [patch - asked for patch, asked in zip(topology.patch_size, size, strict=True)]
    assert remainders == [0, 0, 0]
    assert all(0 <= more < divisor for more, divisor in zip(growth, topology.divisor, strict=True))
