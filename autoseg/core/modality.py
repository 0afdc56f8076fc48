"""What the intensities of an image look like, whatever the image is called."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["hounsfield", "not_hounsfield", "mask", "two_values", "constant", "other"]

# Hounsfield units: air -1000, fat about -100, soft tissue -50 to 150 (DICOM PS3.3 C.11.1 for the scale). Air in a scan spreads
# by noise; below lie only fillers of scanners (-1024, -2000, -3024).
AIR_HU = (-1100.0, -850.0)
SOFT_TISSUE_HU = (-150.0, 200.0)
LOWEST_FILLER_HU = -3100.0
# Dense metal in scans with an extended scale.
LARGEST_HU = 32767.0
# Every part of the body holds fat, so a CT has voxels below this; images from 0 up are not in Hounsfield units, and a spread
# below it is that of an image which was normalised before.
FAT_HU = -50.0
# Share of the voxels that a peak needs: less is noise.
PEAK_SHARE = 0.01


def intensity_kind(channel: NDArray) -> Kind:
    """What the intensities of one channel (Z, Y, X) look like.

    Returns:
        `hounsfield`: air and soft tissue where a CT has them; `not_hounsfield`: nothing below -50, or values that no CT has;
        `mask`: only 0 and 1; `two_values`: two others; `constant`: one value; `other`: may be a CT that was cropped to soft
        tissue, or not.
    """
    low, high = float(channel.min()), float(channel.max())
    if bool(np.all((channel == low) | (channel == high))):
        if low == high != 1:
            return "constant"
        return "mask" if {low, high} <= {0.0, 1.0} else "two_values"
    if low > FAT_HU or low < LOWEST_FILLER_HU or high > LARGEST_HU:
        return "not_hounsfield"
    if _share(channel, AIR_HU) >= PEAK_SHARE and _share(channel, SOFT_TISSUE_HU) >= PEAK_SHARE:
        return "hounsfield"
    return "other"


def name_warning(name: str, kind: Kind) -> str | None:
    """The sentence for a channel whose name and intensities contradict each other; None where they do not."""
    if name.casefold() == "ct" and kind == "not_hounsfield":
        return (f"channel {name!r} is called CT, but its intensities are not Hounsfield units (no voxel below -50, or values "
                "that a CT cannot have); convert the images, or name the channel as what it is")
    if name.casefold() not in NAMED_SCHEMES and kind == "hounsfield":
        return (f"channel {name!r} looks like a CT in Hounsfield units (air near -1000, soft tissue near 0), but is not called "
                "CT; call it CT, or state its normalization in the specification")
    return None


# nnU-Net 2.8.1, map_channel_name_to_normalization.py: names that ask for a scheme.
NAMED_SCHEMES = frozenset({"ct", "nonorm", "zscore", "rescale_to_0_1", "rgb_to_0_1"})


def _share(channel: NDArray, limits: tuple[float, float]) -> float:
    return float(np.count_nonzero((channel >= limits[0]) & (channel <= limits[1]))) / channel.size
