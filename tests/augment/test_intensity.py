from __future__ import annotations

import numpy as np
import pytest
import torch

from autoseg.augment.compose import seeded
from autoseg.augment.intensity import change_intensity, intensity_transforms
from autoseg.core.plan import Augmentation


def noise_image(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(1.0, 2.0, shape).astype(np.float32))


def changed(image: torch.Tensor, seed: int = 0, **changes) -> torch.Tensor:
    with seeded(seed):
        return change_intensity(image.clone(), Augmentation(**changes))


def test_order_is_nnunets_and_probability_zero_leaves_a_transform_out():
    every = Augmentation(
        noise_probability=0.1, blur_probability=0.2, brightness_probability=0.15, contrast_probability=0.15,
        low_resolution_probability=0.25, inverted_gamma_probability=0.1, gamma_probability=0.3)

    names = [type(transform).__name__.removesuffix("Transform") for _, transform in intensity_transforms(every)]

    assert names == ["GaussianNoise", "GaussianBlur", "MultiplicativeBrightness", "Contrast", "SimulateLowResolution",
                     "Gamma", "Gamma"]
    assert [probability for probability, _ in intensity_transforms(every)] == [0.1, 0.2, 0.15, 0.15, 0.25, 0.1, 0.3]
    assert intensity_transforms(Augmentation()) == ()


def test_noise_has_the_drawn_number_as_standard_deviation_and_no_bias():
    image = torch.zeros(1, 20, 30, 40)

    added = changed(image, noise_probability=1.0, noise_variance=(0.09, 0.09))

    assert float(added.std()) == pytest.approx(0.09, rel=0.02)
    assert float(added.mean()) == pytest.approx(0, abs=0.002)


def test_brightness_multiplies_each_channel_by_its_own_factor():
    image = noise_image(2, 4, 5, 6)

    factors = changed(image, brightness_probability=1.0, brightness=(0.75, 1.25)) / image

    assert float(factors[0].std()) < 1e-5 and float(factors[1].std()) < 1e-5
    assert factors[0, 0, 0, 0] != factors[1, 0, 0, 0]
    assert float(factors.min()) >= 0.75 and float(factors.max()) <= 1.25


def test_contrast_stretches_about_the_mean_and_keeps_the_range():
    image = noise_image(1, 10, 11, 12)

    wide = changed(image, contrast_probability=1.0, contrast=(1.2, 1.2))

    expected = ((image - image.mean()) * 1.2 + image.mean()).clamp(image.min(), image.max())
    torch.testing.assert_close(wide, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("probability", ["gamma_probability", "inverted_gamma_probability"])
def test_gamma_keeps_mean_and_deviation_and_bends_the_curve(probability):
    image = noise_image(1, 10, 11, 12)

    bent = changed(image, **{probability: 1.0}, gamma=(1.5, 1.5))

    assert float(bent.mean()) == pytest.approx(float(image.mean()), abs=1e-4)
    assert float(bent.std()) == pytest.approx(float(image.std()), rel=1e-4)
    order = image.flatten().argsort()
    assert bool((bent.flatten()[order].diff() >= -1e-5).all())
    skewness = float((((bent - bent.mean()) / bent.std()) ** 3).mean())
    assert skewness > 0.2 if probability == "gamma_probability" else skewness < -0.2


def test_blur_keeps_a_constant_and_lowers_the_variance_of_noise():
    settings = {"blur_probability": 1.0, "blur_probability_per_channel": 1.0, "blur_sigma": (1.0, 1.0)}

    torch.testing.assert_close(changed(torch.full((1, 8, 9, 10), 3.0), **settings), torch.full((1, 8, 9, 10), 3.0))
    assert float(changed(noise_image(1, 12, 13, 14), **settings).std()) < 0.5 * 2


def test_blur_of_an_impulse_is_the_gaussian_of_the_drawn_sigma_on_every_axis():
    image = torch.zeros(1, 15, 17, 19)
    image[0, 7, 8, 9] = 1

    blurred = changed(image, blur_probability=1.0, blur_probability_per_channel=1.0, blur_sigma=(0.8, 0.8))[0]

    ratio = np.exp(-0.5 / 0.8**2)
    for neighbour in (blurred[8, 8, 9], blurred[7, 9, 9], blurred[7, 8, 10]):
        assert float(neighbour / blurred[7, 8, 9]) == pytest.approx(ratio, rel=1e-4)


def test_axis_shorter_than_the_blur_is_left_sharp():
    image = noise_image(1, 2, 12, 14)

    blurred = changed(image, blur_probability=1.0, blur_probability_per_channel=1.0, blur_sigma=(1.0, 1.0))

    difference = (image[0, 0] - image[0, 1]).mean(), (blurred[0, 0] - blurred[0, 1]).mean()
    assert float(difference[0]) == pytest.approx(float(difference[1]), abs=0.1)
    assert float(blurred.std()) < float(image.std())


def test_low_resolution_loses_detail_on_all_axes_in_three_dimensions():
    checker = torch.from_numpy(np.indices((8, 10, 12)).sum(0) % 2).float()[None]
    settings = {"low_resolution_probability": 1.0, "low_resolution_probability_per_channel": 1.0,
                "low_resolution_zoom": (0.5, 0.5)}

    for axis in (1, 2, 3):
        stripes = torch.zeros_like(checker).transpose(1, axis)
        stripes[:, ::2] = 1
        assert float(changed(stripes.transpose(1, axis).contiguous(), **settings).std()) < 0.1
    assert float(changed(checker, **settings).std()) < 0.1


def test_low_resolution_keeps_the_slice_axis_in_dummy_2d():
    stripes = torch.zeros(1, 8, 10, 12)
    stripes[:, ::2] = 1

    low = changed(stripes, dummy_2d=True, low_resolution_probability=1.0, low_resolution_probability_per_channel=1.0,
                  low_resolution_zoom=(0.5, 0.5))

    torch.testing.assert_close(low, stripes)


def test_each_transform_strikes_with_its_probability():
    image = noise_image(1, 2, 3, 4)

    hits = sum(not torch.equal(changed(image, seed, brightness_probability=0.15, brightness=(1.1, 1.2)), image)
               for seed in range(600))

    assert hits / 600 == pytest.approx(0.15, abs=0.04)
