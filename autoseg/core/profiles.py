"""Whether the channels of one case look like those of the other cases: a T1 among the T2s is seen by its intensities.

No scale of intensities is assumed (MRI has none): what counts is the shape of the histogram, and how bright each label is.
What differs between cases anyway weighs little, because every difference is measured in the spread between cases.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

# Voxels above the mean of the channel are looked at: tissue and not air, wherever air lies on the scale. The ends of the scale
# leave out single bright voxels; levels lie between them.
ENDS = (0.02, 0.98)
LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)
# Voxels that are looked at: quantiles of some thousands have a standard error below 1 % of the ranks.
SAMPLE = 20_000
# Two scans of the noise of any scanner differ in one of so many voxels; hashing them takes 0.1 ms.
DIGEST_VOXELS = 20_000
# Cases needed: of fewer others a spread cannot be told.
FEWEST_CASES = 5
# No spread is taken for smaller than this share of the intensity range; noise between scans is of that size.
SMALLEST_SPREAD = 0.02
# One difference counts as at most this many spreads, so that a single odd one does not decide.
LARGEST_DIFFERENCE = 6.0
# Another order of channels must fit better by this mean squared difference per moved channel, and at least so many times
# better. With FLAIR and T1 of six BraTS cases: each of them swapped in turn, four are found; none swapped, none is suspected.
SMALLEST_GAIN, SMALLEST_RATIO = 2.0, 2.0


@dataclass(frozen=True)
class ChannelProfile:
    """Intensities of one channel, on a scale of 0 to 1 between the 2 % and 98 % quantiles of its voxels above the mean.

    Attributes:
        levels: quantiles at `LEVELS`.
        labels: value of a label in the files -> mean intensity of its voxels.
    """

    levels: tuple[float, ...]
    labels: dict[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Suspect:
    """A case whose channels look like those of other cases in another order.

    Attributes:
        case: position of the case.
        order: channel c of the case looks like channel order[c] of the others.
    """

    case: int
    order: tuple[int, ...]


def measure_profile(channel: NDArray, label: NDArray | None = None) -> ChannelProfile:
    """The profile of one channel (Z, Y, X) from about `SAMPLE` voxels; `label` (Z, Y, X) lies on its grid."""
    voxels = channel.reshape(-1)[::_step(channel.size, SAMPLE)].astype(np.float64)
    tissue = voxels[voxels > voxels.mean()]
    low, *levels, high = np.quantile(tissue if tissue.size else voxels, (ENDS[0], *LEVELS, ENDS[1]))
    extent = (high - low) or 1.0
    brightness = {}
    if label is not None:
        values = label.reshape(-1)
        where = np.flatnonzero(values)
        where = where[::max(1, where.size // SAMPLE)]
        found = values[where]
        bright = (channel.reshape(-1)[where].astype(np.float64) - low) / extent
        brightness = {int(value): float(bright[found == value].mean()) for value in np.unique(found)}
    return ChannelProfile(tuple(float((level - low) / extent) for level in levels), brightness)


def content_digest(parts: Sequence[NDArray]) -> str:
    """A digest of the voxels of an image (C, Z, Y, X in each part) that copies share, however they were compressed.

    Of a large image a sample is taken: about `DIGEST_VOXELS` places at equal distances, which reading the file dwarfs.
    """
    digest = hashlib.sha256()
    for part in parts:
        flat = part.reshape(-1)
        digest.update(repr(part.shape).encode())
        digest.update(np.ascontiguousarray(flat[::_step(flat.size, DIGEST_VOXELS)], np.float32).tobytes())
    return digest.hexdigest()


def _step(size: int, wanted: int) -> int:
    """A distance between about `wanted` of `size` voxels that shares no factor with the size, so that samples do not all fall
    into one column of the image, which may be air in every case."""
    step = max(1, size // wanted)
    while math.gcd(step, size) > 1:
        step += 1
    return step


def find_suspects(cases: Sequence[Sequence[ChannelProfile]]) -> list[Suspect]:
    """Cases whose channels fit the other cases better in another order.

    Every case is compared with the median over all others, in robust spreads (1.4826 times the median absolute deviation,
    Rousseeuw and Croux 1993, which some swapped cases do not move).

    Args:
        cases: the profiles of every case, one per channel and all of the same number.
    """
    from scipy.optimize import linear_sum_assignment  # takes 0.2 s to import; most datasets have one channel

    channels = len(cases[0]) if cases else 0
    if channels < 2 or len(cases) < FEWEST_CASES:
        return []
    table = _features(cases)
    suspects = []
    for place in range(len(cases)):
        others = np.delete(table, place, axis=0)
        costs = _costs(table[place], others)
        rows, columns = linear_sum_assignment(costs)
        moved = rows[rows != columns]
        kept, best = float(costs[moved, moved].sum()), float(costs[moved, columns[moved]].sum())
        if kept - best > SMALLEST_GAIN * moved.size and kept > SMALLEST_RATIO * best:
            suspects.append(Suspect(place, tuple(int(column) for column in columns)))
    return suspects


def _features(cases: Sequence[Sequence[ChannelProfile]]) -> NDArray[np.float64]:
    """(cases, channels, features): levels, then labels; nan where a case lacks a label."""
    values = sorted({value for case in cases for profile in case for value in profile.labels})
    return np.array([[(*profile.levels, *(profile.labels.get(value, np.nan) for value in values)) for profile in case]
                     for case in cases])


def _costs(own: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """(channels, channels): mean squared difference, in spreads, of channel row of a case to channel column of the others."""
    with np.errstate(invalid="ignore"):
        known = np.isfinite(own).all(axis=0) & (np.isfinite(others).sum(axis=(0, 1)) >= others.shape[1] * (FEWEST_CASES - 1))
    own, others = own[:, known], others[:, :, known]
    centre = np.nanmedian(others, axis=0)
    spread = np.maximum(1.4826 * np.nanmedian(np.abs(others - centre), axis=0), SMALLEST_SPREAD)
    # Few cases say little of one channel's spread; half of it is that of all channels.
    spread = np.sqrt((np.square(spread) + np.square(spread).mean(axis=0)) / 2)
    difference = np.minimum(np.abs(own[:, None] - centre[None]) / spread[None], LARGEST_DIFFERENCE)
    return np.square(difference).mean(axis=2)
