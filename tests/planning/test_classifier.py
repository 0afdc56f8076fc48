from __future__ import annotations

from dataclasses import replace

import pytest

from autoseg.nn.build import build_network
from autoseg.planning.classifier import (
    Wish,
    classifier_parameters,
    largest_width,
    last_map,
    plan_densenet121,
    plan_inception_v3,
    plan_resnet,
    plan_vit,
)
from autoseg.planning.whole_image import WholeGrid, lesion_side, plan_whole_grid


def grid_of(size, slices=False):
    dims = 2 if size[0] == 1 or slices else 3
    return WholeGrid(dims, slices, size, (1.0, 1.0, 1.0), tuple(map(float, size)))


def weights_of(network):
    return sum(parameter.numel() for parameter in build_network(network).parameters())


@pytest.mark.parametrize(("size", "slices"), [((1, 28, 28), False), ((1, 128, 96), False), ((16, 16, 16), False),
                                              ((5, 64, 64), True)])
@pytest.mark.parametrize("builder", [plan_resnet, plan_densenet121, plan_vit])
def test_parameters_are_those_of_the_network(size, slices, builder):
    network = builder(grid_of(size, slices), Wish(2, 3, base_features=8))
    assert classifier_parameters(network) == weights_of(network)


def test_thresholds_of_grades_share_their_weights():
    network = plan_resnet(grid_of((1, 28, 28)), Wish(1, 4, base_features=8, shared_output=True))
    assert classifier_parameters(network) == weights_of(network)


def test_a_resnet_of_64_features_at_224_pixels_is_resnet_18():
    network = plan_resnet(grid_of((1, 224, 224)), Wish(3, 1000))
    assert (network.features, network.blocks) == ((64, 64, 128, 256, 512), (1, 2, 2, 2, 2))
    assert [stride[0] for stride in network.strides] == [2, 2, 2, 2, 2] and network.kernel_sizes[0] == (7, 7)
    assert classifier_parameters(network) == 11_689_512  # He et al. 2016; torchvision's count


def test_densenet_121_has_chexnets_parameters():
    network = plan_densenet121(grid_of((1, 224, 224)), Wish(1, 14))
    assert classifier_parameters(network) == 6_961_934  # counted in MONAI 1.6.1


def test_width_keeps_to_the_units():
    grid, wish = grid_of((1, 28, 28)), Wish(1, 1)
    chosen = largest_width(grid, wish, 500, (8, 16, 32, 64))
    count = classifier_parameters(plan_resnet(grid, replace(wish, base_features=chosen)))
    wider = classifier_parameters(plan_resnet(grid, replace(wish, base_features=2 * chosen)))
    assert count <= 2000 * 500 < wider
    assert largest_width(grid, wish, 1, (8, 16)) == 8


@pytest.mark.parametrize("builder", [plan_resnet, plan_densenet121, plan_inception_v3, plan_vit])
def test_networks_answer_for_the_planned_size(builder):
    import torch

    grid = grid_of((1, 96, 128))
    network = build_network(builder(grid, Wish(1, 3, base_features=8))).eval()
    with torch.no_grad():
        assert network(torch.zeros(1, 1, 96, 128)).shape == (1, 3)


def test_maps_stay_large_where_findings_are_to_be_localised():
    grid = grid_of((1, 512, 512))
    network = plan_resnet(grid, Wish(1, 1, localise=True))
    assert last_map(grid, network) == (16, 16) and network.sharpness == pytest.approx(10 * (14 / 16) ** 0.5)


@pytest.mark.parametrize(("permille", "side"), [(68.27, 512), (500, 64), (32, 1024)])
def test_lesions_fill_a_cell_of_the_last_map(permille, side):
    assert lesion_side(permille) == side
    assert side * permille / 1000 >= 32


def test_voxels_of_volumes_become_cubes():
    grid, _, reason = plan_whole_grid((50, 200, 200), (2.0, 1.0, 1.0), most_voxels=2**15)
    assert grid.size == (24, 40, 40)  # 100 x 200 x 200 mm at some 5 mm
    assert max(grid.spacing_mm) / min(grid.spacing_mm) < 1.25 and "mm along every axis" in reason.because


def test_an_axis_is_never_finer_than_it_was():
    grid, *_ = plan_whole_grid((32, 200, 200), (2.5, 1.0, 1.0), most_voxels=2**24)
    assert grid.size == (32, 200, 200)
