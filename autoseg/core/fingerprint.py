"""What is measured of a dataset: only values that can be added, so that two sites' fingerprints give the pooled one.

Sums of floating-point numbers depend on their order; so moments are kept per case and summed exactly (`math.fsum`) when
they are read, and histograms hold integers.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.core.errors import IncompatibleError
from autoseg.core.geometry import Shape, Spacing
from autoseg.core.profiles import ChannelProfile

FINGERPRINT_FORMAT = 1

# 12-bit CT (stored -1024..3071 HU, DICOM PS3.3 C.11.1) in bins of one HU centred on the integers, so that integer CT
# loses nothing; outside, 16 bins per factor of ten up to 1e12 cover every intensity seen in MR, PET and microscopy.
_HU_EDGES = np.arange(-1024.5, 3072.0)
_TAIL = 3071.5 * 10 ** (np.arange(1, 8.5 * 16) / 16)
EDGES: NDArray[np.float64] = np.concatenate([-_TAIL[::-1], _HU_EDGES, _TAIL])

# Every case weighs the same in the pooled histogram (nnU-Net samples as many voxels from each case); 2**40 keeps the
# rounding of one bin below 1e-12 of a case and 2**23 cases within 63 bits.
CASE_WEIGHT = 2**40

_COLUMNS = ("shapes_after_crop", "spacings_mm", "relative_sizes", "foreground", "shapes_inside_corners",
            "relative_sizes_inside_corners")

QUANTILES = (0.005, 0.05, 0.25, 0.5, 0.75, 0.95, 0.995)


@dataclass(frozen=True)
class Moments:
    """Foreground intensities of one channel of one case.

    Attributes:
        count: foreground voxels; 0 when the case has none, the other values are then nan.
        mean, mean_square: of the intensities, in the unit of the image.
        minimum, maximum: of the intensities.
        quantiles: at `QUANTILES`.
    """

    count: int
    mean: float
    mean_square: float
    minimum: float
    maximum: float
    quantiles: tuple[float, ...]


@dataclass(frozen=True)
class CaseFingerprint:
    """What is measured of one case; it carries no id.

    Attributes:
        shape_after_crop, spacing_mm: canonical z, y, x; the crop is the box of non-zero voxels.
        relative_size_after_crop: voxels of the crop / voxels of the image, in (0, 1].
        shape_inside_corners, relative_size_inside_corners: the same for the box of voxels that differ from the corners.
        foreground: per channel.
        histograms: per channel, sparse: bin index in `EDGES` -> integer weight; sums to `CASE_WEIGHT` or is empty.
        properties: what the task counts (voxels and cases per label, for segmentation).
        kinds: per channel, what its intensities look like in the whole image (`core.modality`).
        content: digest of the image, by which copies are found (`core.profiles.content_digest`).
        profiles: per channel, what swapped channels are found by.
        marks: what the task counts patients of (the classes of a case).
    """

    shape_after_crop: Shape
    spacing_mm: Spacing
    relative_size_after_crop: float
    foreground: tuple[Moments, ...]
    histograms: tuple[dict[int, int], ...]
    properties: dict[str, int] = field(default_factory=dict)
    kinds: tuple[str, ...] = ()
    shape_inside_corners: Shape | None = None
    relative_size_inside_corners: float | None = None
    content: str = ""
    profiles: tuple[ChannelProfile, ...] = ()
    marks: tuple[str, ...] = ()


@dataclass(frozen=True)
class IntensityProperties:
    """nnU-Net's foreground intensity properties of one channel, in the unit of the image."""

    mean: float
    std: float
    median: float
    minimum: float
    maximum: float
    percentile_00_5: float
    percentile_99_5: float


@dataclass(frozen=True)
class Fingerprint:
    """Sum of case fingerprints.

    Attributes:
        shapes_after_crop, spacings_mm, relative_sizes, foreground: one entry per case, sorted together (a multiset).
        histograms: per channel, sparse sums of the cases' histograms.
        properties: sums of the cases' properties.
        kinds: per channel, what its intensities look like -> cases; empty in fingerprints of earlier versions.
        shapes_inside_corners, relative_sizes_inside_corners: entries beside the others; empty in fingerprints of earlier
            versions, which stands for the same as after the crop to non-zero.
        patients: of all cases, each counted once; 0 in fingerprints of earlier versions. Sites are taken to share none.
        patients_with: patients by what the task marked some case of theirs with.
    """

    shapes_after_crop: tuple[Shape, ...]
    spacings_mm: tuple[Spacing, ...]
    relative_sizes: tuple[float, ...]
    foreground: tuple[tuple[Moments, ...], ...]
    histograms: tuple[dict[int, int], ...]
    properties: dict[str, int]
    format: int = FINGERPRINT_FORMAT
    kinds: tuple[dict[str, int], ...] = ()
    shapes_inside_corners: tuple[Shape, ...] = ()
    relative_sizes_inside_corners: tuple[float, ...] = ()
    patients: int = 0
    patients_with: dict[str, int] = field(default_factory=dict)

    @property
    def patient_count(self) -> int:
        """Patients; where they were not counted every case stands for one."""
        return self.patients or self.case_count

    @property
    def case_count(self) -> int:
        return len(self.shapes_after_crop)

    @property
    def channel_count(self) -> int:
        return len(self.histograms)

    def __add__(self, other: Fingerprint) -> Fingerprint:
        """Fingerprint of both datasets together; associative and commutative to the last bit.

        Raises:
            IncompatibleError: the numbers of channels differ.
        """
        if self.channel_count != other.channel_count:
            raise IncompatibleError(f"fingerprints of {self.channel_count} and {other.channel_count} channels cannot be "
                                    "added; both sites need the same inputs")
        rows = sorted([*self._rows(), *other._rows()], key=repr)
        return Fingerprint(
            **_columns(rows),
            histograms=tuple(_add(a, b) for a, b in zip(self.histograms, other.histograms, strict=True)),
            properties=_add(self.properties, other.properties),
            kinds=_add_kinds(self.kinds, other.kinds),
            patients=self.patient_count + other.patient_count,
            patients_with=_add(self.patients_with, other.patients_with))

    def _rows(self) -> list[tuple]:
        return list(zip(self.shapes_after_crop, self.spacings_mm, self.relative_sizes, self.foreground,
                        self.shapes_inside_corners or self.shapes_after_crop,
                        self.relative_sizes_inside_corners or self.relative_sizes, strict=True))

    def inside_corners(self) -> Fingerprint:
        """The same dataset, cropped to what differs from the corners instead of to non-zero."""
        return replace(self, shapes_after_crop=self.shapes_inside_corners or self.shapes_after_crop,
                       relative_sizes=self.relative_sizes_inside_corners or self.relative_sizes)

    def intensity(self, channel: int) -> IntensityProperties:
        """Foreground intensity properties of one channel over all cases, every case weighing the same.

        Percentiles come from the pooled histogram, interpolated within a bin; nan when no case has foreground.
        """
        present = [case[channel] for case in self.foreground if case[channel].count]
        if not present:
            return IntensityProperties(*(math.nan,) * 7)
        mean = math.fsum(m.mean for m in present) / len(present)
        variance = math.fsum(m.mean_square for m in present) / len(present) - mean**2
        low, median, high = histogram_quantiles(self.histograms[channel], (0.005, 0.5, 0.995))
        minimum, maximum = min(m.minimum for m in present), max(m.maximum for m in present)
        low, median, high = (min(max(value, minimum), maximum) for value in (low, median, high))
        return IntensityProperties(mean, math.sqrt(max(variance, 0.0)), median, minimum, maximum, low, high)


def sum_fingerprints(cases: Sequence[CaseFingerprint], channel_count: int,
                     patients: Sequence[str] | None = None) -> Fingerprint:
    """Fingerprint of a dataset from those of its cases, in any order.

    Args:
        patients: of each case; None: every case is of another one.
    """
    rows = sorted(((c.shape_after_crop, c.spacing_mm, c.relative_size_after_crop, c.foreground,
                    c.shape_inside_corners or c.shape_after_crop,
                    c.relative_size_inside_corners or c.relative_size_after_crop) for c in cases), key=repr)
    histograms: list[dict[int, int]] = [{} for _ in range(channel_count)]
    properties: dict[str, int] = {}
    kinds: tuple[dict[str, int], ...] = ()
    for case in cases:
        kinds = _add_kinds(kinds, tuple({kind: 1} for kind in case.kinds))
        histograms = [_add(total, one) for total, one in zip(histograms, case.histograms, strict=True)]
        properties = _add(properties, case.properties)
    marks: dict[str, set[str]] = {}
    for case, patient in zip(cases, patients or map(str, range(len(cases))), strict=True):
        marks.setdefault(patient, set()).update(case.marks)
    found = Counter(mark for own in marks.values() for mark in own)
    return Fingerprint(**_columns(rows), histograms=tuple(histograms), properties=properties, kinds=kinds, patients=len(marks),
                       patients_with=dict(sorted(found.items())))


def measure_channel(intensities: NDArray) -> tuple[Moments, dict[int, int]]:
    """Moments and equal-weight histogram of the foreground intensities (n,) of one channel of one case."""
    if intensities.size == 0:
        return Moments(0, math.nan, math.nan, math.nan, math.nan, (math.nan,) * len(QUANTILES)), {}
    values = intensities.astype(np.float64)
    moments = Moments(
        int(values.size), float(values.mean()), float(np.square(values).mean()), float(values.min()), float(values.max()),
        tuple(float(q) for q in np.quantile(values, QUANTILES)))
    bins, counts = np.unique(np.clip(np.searchsorted(EDGES, values, side="right") - 1, 0, len(EDGES) - 2),
                             return_counts=True)
    weights = [int(c) * CASE_WEIGHT // values.size for c in counts]
    weights[int(np.argmax(counts))] += CASE_WEIGHT - sum(weights)
    return moments, {int(b): w for b, w in zip(bins, weights, strict=True)}


def histogram_quantiles(histogram: dict[int, int], levels: tuple[float, ...]) -> tuple[float, ...]:
    """Quantiles of a sparse histogram over `EDGES`, linear within a bin; bins of one HU count as their centre."""
    bins = sorted(histogram)
    cumulative = np.cumsum([histogram[b] for b in bins], dtype=np.float64)
    result = []
    for level in levels:
        place = int(np.searchsorted(cumulative, level * cumulative[-1], side="left"))
        low, high = EDGES[bins[place]], EDGES[bins[place] + 1]
        before = cumulative[place - 1] if place else 0.0
        share = (level * cumulative[-1] - before) / (cumulative[place] - before)
        is_integer_bin = high - low == 1.0
        result.append(float((low + high) / 2 if is_integer_bin else low + share * (high - low)))
    return tuple(result)


def _add(a: dict, b: dict) -> dict:
    total = dict(a)
    for key, value in b.items():
        total[key] = total.get(key, 0) + value
    return dict(sorted(total.items()))


def _add_kinds(a: tuple[dict[str, int], ...], b: tuple[dict[str, int], ...]) -> tuple[dict[str, int], ...]:
    """Per channel; one that was measured before kinds were has none."""
    if not (a and b):
        return a or b
    return tuple(_add(first, second) for first, second in zip(a, b, strict=True))


def _columns(rows: list[tuple]) -> dict[str, Any]:
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(_COLUMNS)
    return {name: tuple(column) for name, column in zip(_COLUMNS, columns, strict=True)}
