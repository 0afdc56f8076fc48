from __future__ import annotations

import sys
from functools import partial

import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam
from squares import SIDE, SquareNetwork, draw, trained
from torch import nn

from autoseg.core.errors import ResourceError, UsageError
from autoseg.inference import explain
from autoseg.metrics.boxes import points_into

EXPLANATIONS = {**explain.METHODS, "occlusion": partial(explain.occlusion, window=(SIDE, SIDE))}


@pytest.fixture(scope="module")
def network() -> SquareNetwork:
    return trained()


def positives(count: int, seed: int = 5) -> list[tuple[torch.Tensor, np.ndarray]]:
    images, classes, regions = draw(2 * count, np.random.default_rng(seed))
    return [(images[k:k + 1], regions[k]) for k in range(2 * count) if classes[k]]


def test_the_network_has_learnt_the_squares(network: SquareNetwork):
    images, classes, _ = draw(100, np.random.default_rng(9))
    assert (network(images).argmax(dim=1) == classes).float().mean() >= 0.98


@pytest.mark.parametrize("name", EXPLANATIONS)
def test_explanations_point_into_the_square_that_decides(network: SquareNetwork, name: str):
    hits = [points_into(EXPLANATIONS[name](network, image, 1), region) for image, region in positives(10)]
    assert np.mean(hits) >= 0.9  # a square covers 6 % of the image


@pytest.mark.parametrize("name", EXPLANATIONS)
def test_maps_lie_on_the_image_and_the_network_stays_as_it_was(name: str):
    network = SquareNetwork().train()
    network.body[1].eval()
    network.head.bias.requires_grad_(False)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    image = positives(1)[0][0]
    found = EXPLANATIONS[name](network, image, 0)
    assert found.shape == (28, 36) and found.dtype == np.float32 and np.isfinite(found).all()
    assert network.training and not network.body[1].training and network.body[4].training
    assert all(parameter.grad is None for parameter in network.parameters()) and not image.requires_grad
    assert [p.requires_grad for p in network.parameters()] == [True] * 11 + [False]
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert "features" not in vars(network) and not any(module._forward_hooks for module in network.modules())


def test_explanations_work_where_gradients_are_switched_off(network: SquareNetwork):
    image = positives(1)[0][0]
    expected = {name: method(network, image, 1) for name, method in EXPLANATIONS.items()}
    with torch.inference_mode():
        copied = image.clone()
        for name, method in EXPLANATIONS.items():
            np.testing.assert_array_equal(method(network, copied, 1), expected[name])


def test_grad_cam_of_mean_pooling_is_the_activation_map_without_the_bias(network: SquareNetwork):
    # the gradient of the output by a feature is its weight divided by the number of places
    image = positives(1)[0][0]
    with torch.no_grad():
        bias = network.head.bias.view(1, 2, 1, 1)
        maps = ((network.maps(image) - bias) / (7 * 9)).relu()
        expected = nn.functional.interpolate(maps, size=(28, 36), mode="bilinear", align_corners=False)[0, 1]
    np.testing.assert_allclose(explain.grad_cam(network, image, 1), expected.numpy(), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("layer", ["body.0", "body.3", "body.6"])
def test_grad_cam_of_a_layer_is_that_of_captum(network: SquareNetwork, layer: str):
    image = positives(1)[0][0]
    network.body[2].inplace = network.body[5].inplace = network.body[7].inplace = False  # captum sees what an activation changed
    found = LayerGradCam(network, network.get_submodule(layer)).attribute(image, target=1, relu_attributions=True)
    expected = nn.functional.interpolate(found, size=(28, 36), mode="bilinear", align_corners=False)[0, 0].detach().numpy()
    network.body[2].inplace = network.body[5].inplace = network.body[7].inplace = True
    np.testing.assert_allclose(explain.grad_cam(network, image, 1, layer=layer), expected, rtol=1e-4, atol=1e-7)
    assert expected.max() > 0


def test_class_activation_map_is_in_logits_on_the_grid_of_the_image():
    class Fixed(nn.Module):
        def maps(self, image):
            return torch.tensor([[[[0.0, 0.0]], [[-2.0, 6.0]]]])

    found = explain.activation_map(Fixed(), torch.zeros(1, 1, 3, 8), 1)
    # centres of the two places lie at 2 and 6 of 8 voxels, those of the voxels at 0.5, 1.5 and so on
    expected = np.interp(np.arange(8) + 0.5, [2, 6], [-2, 6])
    np.testing.assert_allclose(found, np.tile(expected, (3, 1)), atol=1e-6)


def test_integrated_gradients_add_up_to_the_difference_from_the_baseline(network: SquareNetwork):
    image = positives(1)[0][0]
    for baseline in (0.0, -0.7):
        found = explain.integrated_gradients(network, image, 1, baseline=baseline, steps=200)
        with torch.no_grad():
            difference = network(image)[0, 1] - network(torch.full_like(image, baseline))[0, 1]
        assert found.sum() == pytest.approx(float(difference), rel=0.01)


def test_integrated_gradients_are_those_of_a_sum_over_the_straight_line(network: SquareNetwork):
    image = positives(1)[0][0]
    total = torch.zeros_like(image)
    for step in range(400):
        point = (image * (step + 0.5) / 400).requires_grad_()
        total += torch.autograd.grad(network(point)[0, 1], point)[0]
    expected = (image * total / 400)[0, 0].numpy()
    found = explain.integrated_gradients(network, image, 1, steps=200)
    np.testing.assert_allclose(found, expected, atol=0.03 * np.abs(expected).max())


def naive_occlusion(network, image, output, window, stride, baseline) -> np.ndarray:
    sizes = image.shape[2:]
    total, count = np.zeros(sizes), np.zeros(sizes)
    starts = [[min(k, size - side) if k + side > size else k for k in range(0, size - side + step, step)]
              for size, side, step in zip(sizes, window, stride, strict=True)]
    with torch.no_grad():
        whole = float(network(image)[0, output])
        for row in starts[0]:
            for column in starts[1]:
                hidden = image.clone()
                hidden[:, :, row:row + window[0], column:column + window[1]] = baseline
                fall = whole - float(network(hidden)[0, output])
                total[row:row + window[0], column:column + window[1]] += fall
                count[row:row + window[0], column:column + window[1]] += 1
    return total / count


def test_occlusion_is_the_mean_fall_over_the_windows_that_hide_a_voxel(network: SquareNetwork):
    image = positives(1)[0][0]
    found = explain.occlusion(network, image, 1, window=(8, 6), stride=(4, 3), baseline=0.3)
    np.testing.assert_allclose(found, naive_occlusion(network, image, 1, (8, 6), (4, 3), 0.3), atol=1e-5)
    np.testing.assert_array_equal(explain.occlusion(network, image, 1, window=(8, 6), baseline=0.3), found)


def test_a_baseline_has_one_value_per_channel():
    image = torch.zeros(1, 3, 2, 4)
    assert explain.filled(image, (1.0, 2.0, 3.0))[0, :, 1, 3].tolist() == [1.0, 2.0, 3.0]
    assert (explain.filled(image, 0.5) == 0.5).all()


def test_volumes_have_maps_of_three_axes():
    network, image = SquareNetwork(3), torch.randn(1, 1, 8, 10, 12, generator=torch.Generator().manual_seed(0))
    for method in (explain.activation_map, explain.grad_cam, partial(explain.integrated_gradients, steps=3),
                   partial(explain.occlusion, window=(4, 5, 6))):
        assert method(network, image, 1).shape == (8, 10, 12)


def test_features_may_be_a_module():
    class Split(nn.Module):
        def __init__(self, whole: SquareNetwork) -> None:
            super().__init__()
            self.features, self.head = whole.body, whole.head

        def forward(self, image):
            return self.head(self.features(image).flatten(2).mean(dim=2))

    whole = SquareNetwork().eval()
    image = positives(1)[0][0]
    np.testing.assert_array_equal(explain.grad_cam(Split(whole), image, 1), explain.grad_cam(whole, image, 1))


def test_networks_over_slices_are_explained_where_their_recurrent_part_is_in_evaluation():
    class Recurrent(SquareNetwork):
        def __init__(self) -> None:
            super().__init__(3)
            self.over = nn.GRU(16, 4, batch_first=True)
            self.last = nn.Linear(4, 2)

        def forward(self, image):
            return self.last(self.over(self.features(image).mean(dim=(3, 4)).transpose(1, 2))[0][:, -1])

    image = torch.randn(1, 1, 8, 12, 12, generator=torch.Generator().manual_seed(0))
    assert explain.grad_cam(Recurrent(), image, 1).shape == (8, 12, 12)
    assert torch.backends.cudnn.enabled


def test_layers_that_cannot_be_explained_are_refused_with_the_names_of_others(network: SquareNetwork):
    image = positives(1)[0][0]
    with pytest.raises(UsageError, match=r"no layer 'boddy'.*body\.6"):
        explain.grad_cam(network, image, 1, layer="boddy")
    with pytest.raises(UsageError, match=r"'head'.*\(1, 2\)"):
        explain.grad_cam(network, image, 1, layer="head")
    with pytest.raises(UsageError, match="no class activation maps"):
        explain.activation_map(nn.Flatten(), image, 1)
    with pytest.raises(UsageError, match="no layer 'features'"):
        explain.grad_cam(nn.Sequential(nn.Flatten(), nn.Linear(28 * 36, 2)), image, 1)
    for window in ((8,), (8, 60), (0, 8)):
        with pytest.raises(UsageError, match="window"):
            explain.occlusion(network, image, 1, window=window)


def test_an_output_that_does_not_depend_on_the_layer_is_refused():
    class Shortcut(SquareNetwork):
        def forward(self, image):
            self.features(image)
            return image.flatten(1)[:, :2] * 2

    with pytest.raises(UsageError, match="does not depend"):
        explain.grad_cam(Shortcut(), positives(1)[0][0], 1)


def test_without_captum_the_error_says_what_to_install(monkeypatch, network: SquareNetwork):
    monkeypatch.setitem(sys.modules, "captum", None)
    monkeypatch.delitem(sys.modules, "captum.attr", raising=False)
    image = positives(1)[0][0]
    with pytest.raises(ResourceError) as caught:
        explain.integrated_gradients(network, image, 1)
    assert caught.value.code == "E_NO_CAPTUM" and "autoseg[explain]" in str(caught.value.hint)
    assert explain.grad_cam(network, image, 1).max() > 0


@pytest.mark.parametrize("name", EXPLANATIONS)
def test_what_speaks_against_an_output_is_its_map_turned_over(network: SquareNetwork, name: str):
    image = positives(1)[0][0]
    plain, turned = EXPLANATIONS[name](network, image, 0), explain.opposite(EXPLANATIONS[name])(network, image, 0)
    if name != "grad_cam":
        np.testing.assert_array_equal(turned, -plain)
        return
    # before the negative sums are dropped, both are one map with two signs; with mean pooling it is the activation map
    with torch.no_grad():
        maps = (network.maps(image) - network.head.bias.view(1, 2, 1, 1)) / (7 * 9)
        expected = nn.functional.interpolate((-maps).relu(), size=(28, 36), mode="bilinear", align_corners=False)[0, 0]
    np.testing.assert_allclose(turned, expected.numpy(), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", ["activation_map", "integrated_gradients", "occlusion"])
def test_maps_of_an_ensemble_are_those_of_its_mean_output(name: str):
    members = [trained(seed=seed) for seed in (0, 1)]
    ensemble, image = explain.Ensemble(members), positives(1)[0][0]
    with torch.no_grad():
        torch.testing.assert_close(ensemble(image), (members[0](image) + members[1](image)) / 2)
    found = explain.of_members(EXPLANATIONS[name])(ensemble, image, 1)
    if name == "activation_map":
        expected = np.mean([explain.activation_map(member, image, 1) for member in members], axis=0)
    else:
        expected = EXPLANATIONS[name](ensemble, image, 1)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_members_are_asked_of_an_ensemble_only(network: SquareNetwork):
    with pytest.raises(ValueError, match="no ensemble"):
        explain.of_members(explain.grad_cam)(SquareNetwork(), positives(1)[0][0], 1)
