"""How strongly images are changed in training: by as much as cases differ from each other, within limits."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from autoseg.core.fingerprint import Fingerprint
from autoseg.core.plan import Augmentation, Reason
from autoseg.planning.laterality import find_sides

# Largest changes, whatever cases differ by: contrast and brightness of nnU-Net 2.8.1 (0.65 to 1.5), scaling of the strong CPU
# recipe (0.82 to 1.22); smallest ones, for cases that are alike: half of torchxrayvision's translation and scaling of 15 %.
MOST_INTENSITY, LEAST_INTENSITY = 0.5, 0.1
MOST_SCALING, LEAST_SCALING = 0.22, 0.075
# Patients lie upright in canonical axes, photographs do not (Esteva et al. 2017 turn skin by any angle).
UPRIGHT_DEG, ANY_DEG = 15.0, 180.0
# How often each change is made: geometry as in the CPU recipe for segmentation, intensities as in nnU-Net's.
MOVED, CHANGED = 0.5, 0.15
OF_INTENSITY = ("noise_probability", "noise_variance", "brightness_probability", "brightness", "contrast_probability", "contrast",
                "gamma_probability", "gamma")
PHOTOGRAPH = {"r", "g", "b", "red", "green", "blue", "rgb"}

SOURCE = "rules of the classification planner (augment by what cases differ in), docs/classification.md"


def is_photograph(channels: Sequence[str]) -> bool:
    """Three channels of colour: skin, fundus, tissue; there is no left and right of a patient in them."""
    return len(channels) == 3 and all(name.casefold() in PHOTOGRAPH for name in channels)


def plan_changes(fingerprint: Fingerprint, *, dims: int, slices: bool, channels: Sequence[str], classes: Sequence[str],
                 two_valued: bool) -> tuple[Augmentation, dict[str, Reason]]:
    """Random changes of whole images and why, relative to `augmentation`.

    Args:
        channels, classes: names; colours and sides in them decide about mirroring.
        two_valued: the image is a mask, whose intensities mean nothing and stay.
    """
    intensity, scale = intensity_spread(fingerprint), size_spread(fingerprint, dims)
    change = 0.0 if two_valued else min(MOST_INTENSITY, max(LEAST_INTENSITY, intensity))
    scaling = min(MOST_SCALING, max(LEAST_SCALING, scale))
    photograph = is_photograph(channels)
    sides = find_sides(classes)
    mirrors = photograph and not sides.pairs and not sides.alone
    angle = ANY_DEG if photograph else UPRIGHT_DEG
    chance = CHANGED if change else 0.0
    factors = (round(1 / (1 + change), 3), round(1 + change, 3))
    changes = Augmentation(
        dummy_2d=slices, rotation_probability=MOVED, rotation_deg=(-angle, angle), scaling_probability=MOVED,
        scaling=(round(1 / (1 + scaling), 3), round(1 + scaling, 3)), noise_probability=chance,
        noise_variance=(0.0, round(change / 5, 3)), brightness_probability=chance, brightness=factors,
        contrast_probability=chance, contrast=factors, gamma_probability=chance, gamma=factors,
        mirror_axes=(1, 2) if mirrors else ())
    of_intensity = Reason(f"middle half of cases: 5 to 95 % range over standard deviation differs by {intensity:.2g}",
                          f"as much as cases differ, from {LEAST_INTENSITY} to {MOST_INTENSITY}" if not two_valued
                          else "an image of two values has no contrast to change", SOURCE)
    of_size = Reason(f"middle half of cases: size of the content along an axis differs by {scale:.2g}",
                     f"as much as cases differ, from {LEAST_SCALING} to {MOST_SCALING}", SOURCE)
    mirror = Reason(f"channels {', '.join(channels)}; classes {', '.join(classes) or 'none'}",
                    "photographs have no left and right of a patient, so both axes are mirrored" if mirrors else
                    "no axis is mirrored: a mirrored patient does not occur, and sides may matter, as in a chest X-ray", SOURCE)
    return changes, {
        "augmentation": Reason("none", "changes that images of other patients may have; half of the images are moved, one in "
                                       "seven "
                               "changed in intensity", SOURCE),
        **{f"augmentation.{name}": of_intensity for name in OF_INTENSITY},
        "augmentation.scaling": of_size,
        "augmentation.rotation_deg": Reason(f"channels {', '.join(channels)}", "photographs have no upright" if photograph else
                                            "patients lie upright in canonical axes", SOURCE),
        "augmentation.mirror_axes": mirror}


def intensity_spread(fingerprint: Fingerprint) -> float:
    """Interquartile range over cases of (95 % - 5 % quantile) / standard deviation, divided by its median; 0 for no case.

    The largest of all channels; intensities of the foreground.
    """
    spreads = [0.0]
    for channel in range(fingerprint.channel_count):
        widths = []
        for case in fingerprint.foreground:
            found = case[channel]
            std = math.sqrt(max(found.mean_square - found.mean**2, 0.0)) if found.count else 0.0
            if std > 0:
                widths.append((found.quantiles[5] - found.quantiles[1]) / std)
        spreads.append(_relative_range(widths))
    return max(spreads)


def size_spread(fingerprint: Fingerprint, dims: int) -> float:
    """Interquartile range over cases of the size of the content along an axis, divided by its median; 0 for no case."""
    shares = fingerprint.inside_corners().relative_sizes
    return _relative_range([share ** (1 / dims) for share in shares])


def _relative_range(values: Sequence[float]) -> float:
    if not values:
        return 0.0
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
    return float((high - low) / middle) if middle > 0 else 0.0
