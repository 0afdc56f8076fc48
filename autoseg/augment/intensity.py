"""Random changes of intensity: noise, blur, brightness, contrast, low resolution, gamma."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
from batchgeneratorsv2.transforms.intensity.contrast import BGContrast, ContrastTransform
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
from torch import Tensor

from autoseg.core.plan import Augmentation

# The library's blur kernel reaches 3 sigma and pads by reflection, which needs an axis longer than the reach; an axis
# that is not gets this sigma, whose kernel is a single 1.
_NO_BLUR_SIGMA = 1e-3
_KERNEL_REACH_SIGMAS = 3.0


@lru_cache(maxsize=16)
def intensity_transforms(augmentation: Augmentation) -> tuple[tuple[float, BasicTransform], ...]:
    """(probability, transform) pairs in nnU-Net's order; those of probability 0 are left out.

    `noise_variance` is used as a standard deviation, as nnU-Net does. Every transform draws from the global generators
    of torch and numpy: run them inside `compose.seeded`. The blur's choice between two algorithms by timing is off, as
    it made samples depend on the load of the machine.
    """
    a = augmentation
    low_resolution_keeps = (0,) if a.dummy_2d else None
    pairs = (
        (a.noise_probability, GaussianNoiseTransform(a.noise_variance, p_per_channel=1, synchronize_channels=True)),
        (a.blur_probability, GaussianBlurTransform(
            _blur_sigma(a.blur_sigma), synchronize_channels=False, synchronize_axes=False,
            p_per_channel=a.blur_probability_per_channel, benchmark=False)),
        (a.brightness_probability, MultiplicativeBrightnessTransform(
            BGContrast(a.brightness), synchronize_channels=False, p_per_channel=1)),
        (a.contrast_probability, ContrastTransform(
            BGContrast(a.contrast), preserve_range=True, synchronize_channels=False, p_per_channel=1)),
        (a.low_resolution_probability, SimulateLowResolutionTransform(
            a.low_resolution_zoom, synchronize_channels=False, synchronize_axes=True, ignore_axes=low_resolution_keeps,
            p_per_channel=a.low_resolution_probability_per_channel)),
        (a.inverted_gamma_probability, _gamma(a.gamma, inverted=True)),
        (a.gamma_probability, _gamma(a.gamma, inverted=False)),
    )
    return tuple((probability, transform) for probability, transform in pairs if probability > 0)


def change_intensity(image: Tensor, augmentation: Augmentation) -> Tensor:
    """The image (C, *spatial) after those transforms that chance picks, from numpy's global generator; in place."""
    for probability, transform in intensity_transforms(augmentation):
        if np.random.uniform() < probability:
            image = transform(image=image)["image"]
    return image


def _gamma(gamma: tuple[float, float], *, inverted: bool) -> GammaTransform:
    return GammaTransform(BGContrast(gamma), p_invert_image=1.0 if inverted else 0.0, synchronize_channels=False,
                          p_per_channel=1, p_retain_stats=1)


def _blur_sigma(limits: tuple[float, float]):
    """Sigma in voxels for one axis; the library calls it with the shape (C, *spatial) and the axis' place in it."""
    def sigma(shape: Sequence[int], dim: int) -> float:
        drawn = np.random.uniform(*limits)
        return drawn if shape[dim] > _KERNEL_REACH_SIGMAS * drawn + 1 else _NO_BLUR_SIGMA
    return sigma
