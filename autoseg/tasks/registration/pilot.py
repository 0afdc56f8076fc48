"""What a few coarse pairs say: how they lie to each other, and how their intensities go together."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from autoseg.core.budget import Budget, Finding
from autoseg.core.fingerprint import Fingerprint
from autoseg.core.geometry import GridRecord
from autoseg.core.plan import Configuration, Plan
from autoseg.core.task import Arrays, Probe
from autoseg.tasks.registration.frame import place_pair
from autoseg.tasks.registration.output import FIXED, MOVING
from autoseg.tasks.registration.spec import RegistrationOptions

# Voxels along the longest side of a coarse pair: centroids and correlations need no more, and it is there in a tenth of a second.
COARSE_SIDE = 48
# Of a histogram: 32 bins of some thousand voxels each, as mutual information is usually estimated with.
BINS = 32


@dataclass(frozen=True)
class Pilots:
    """Findings on coarse pairs: medians over pairs, but for what has to hold for nearly all of them.

    Attributes:
        pairs: that were looked at.
        centres_correlation, positions_correlation: of intensities, with centres together and as the images lie in the world; -1
            where they do not overlap.
        offset_mm: 95th percentile of the distance of the foregrounds' centroids, by the better of the two.
        scale: largest ratio of the foregrounds' extents along an axis, 1 or more.
        reach_mm: 95th percentile of how far the corners of the frame move between images whose foregrounds have the same
            centroid and extents.
        explained, linear: share of the variance that any function of the other image explains (correlation ratio), and that a
            line explains, within the foreground after both were brought together.
    """

    pairs: float
    centres_correlation: float
    positions_correlation: float
    offset_mm: float
    scale: float
    reach_mm: float
    explained: float
    linear: float

    @property
    def alignment(self) -> str:
        """Where pairs start from: as they lie in the world where that is at least as good."""
        return "positions" if self.positions_correlation >= self.centres_correlation else "centres"


def find_pilots(probe: Probe, draft: Plan, coarse: Configuration, budget: Budget, key: str) -> tuple[Pilots, Budget]:
    """The findings and the budget that keeps them: looked up there, or measured now.

    Args:
        coarse: a configuration of some ten thousand voxels.
        key: names the data and options that they belong to.
    """
    names = [entry.name for entry in fields(Pilots)]
    known = {name: budget.found(f"{key} {name}") for name in names}
    if all(value is not None for value in known.values()):
        return Pilots(**known), budget  # type: ignore[arg-type]
    found = measure_pilots(probe.pilots(draft, coarse), coarse)
    kept = tuple(Finding(f"{key} {name}", value) for name, value in asdict(found).items())
    return found, replace(budget, findings=(*budget.findings, *kept))


def pilot_key(fingerprint: Fingerprint, options: RegistrationOptions) -> str:
    """Name of what findings belong to: the data and the options."""
    told = json.dumps([fingerprint.shapes_after_crop, fingerprint.spacings_mm, fingerprint.relative_sizes, asdict(options),
                       [asdict(channel) for case in fingerprint.foreground for channel in case]], sort_keys=True)
    return f"pilots {hashlib.sha256(told.encode()).hexdigest()[:12]}"


def coarse_of(configuration: Configuration) -> Configuration:
    """The configuration with at most `COARSE_SIDE` voxels along each side of its frame."""
    extent = [size * float(mm or 1.0) for size, mm in zip(configuration.patch_size, configuration.spacing_mm, strict=True)]
    step = max(extent) / COARSE_SIDE
    spacing = [max(step, float(mm or 1.0)) for mm in configuration.spacing_mm]
    size = [max(1, math.ceil(length / mm)) if want > 1 else 1
            for length, mm, want in zip(extent, spacing, configuration.patch_size, strict=True)]
    return replace(configuration, spacing_mm=(spacing[0], spacing[1], spacing[2]), patch_size=(size[0], size[1], size[2]))


def measure_pilots(pairs: Sequence[tuple[Arrays, GridRecord]], coarse: Configuration) -> Pilots:
    """Findings on pairs of images (C, Z, Y, X) on the coarse model grid."""
    rows = [_measure_pair(arrays, record, coarse) for arrays, record in pairs]
    column: Callable[[str], NDArray] = lambda name: np.array([row[name] for row in rows])  # noqa: E731
    positions = float(np.mean(column("positions_correlation"))) if (column("positions_correlation") > -1).all() else -1.0
    best = "positions" if positions >= np.mean(column("centres_correlation")) else "centres"
    return Pilots(
        pairs=float(len(rows)), centres_correlation=_rounded(np.mean(column("centres_correlation"))),
        positions_correlation=_rounded(positions), offset_mm=_rounded(np.percentile(column(f"{best}_offset_mm"), 95)),
        scale=_rounded(column("scale").max()), reach_mm=_rounded(np.percentile(column(f"{best}_reach_mm"), 95)),
        explained=_rounded(np.median(column("explained"))), linear=_rounded(np.median(column("linear"))))


def _measure_pair(arrays: Arrays, record: GridRecord, coarse: Configuration) -> dict[str, float]:
    from autoseg.core.errors import GeometryError

    first, second = ({FIXED: np.asarray(arrays[name], np.float32)} for name in (FIXED, MOVING))
    records = (replace(record, further=()), record.further[0])
    spacing = np.array([float(mm or 1.0) for mm in coarse.spacing_mm])
    row: dict[str, float] = {}
    together: tuple[NDArray, NDArray] | None = None
    for start in ("centres", "positions"):
        try:
            placed = place_pair(first, second, records, coarse.patch_size, start)
        except GeometryError:  # nothing in common as they lie
            row |= {f"{start}_correlation": -1.0, f"{start}_offset_mm": math.inf, f"{start}_reach_mm": math.inf}
            continue
        fixed, moving = placed.fixed[FIXED][0], placed.moving[FIXED][0]
        row[f"{start}_correlation"] = _correlation(fixed, moving)
        row |= {f"{start}_{name}": value for name, value in _moments(fixed, moving, spacing).items()}
        if together is None or row[f"{start}_correlation"] > row["centres_correlation"]:
            together = fixed, _brought_together(fixed, moving)
    assert together is not None  # centres can always be laid on each other
    row["scale"] = row["centres_scale"]
    fixed, moving = together
    inside = (fixed > fixed.min()) & (moving > moving.min())  # air is the lowest value of a prepared image
    row["linear"] = _correlation(fixed[inside], moving[inside])**2
    row["explained"] = max(_correlation_ratio(fixed[inside], moving[inside]), _correlation_ratio(moving[inside], fixed[inside]))
    return row


def _moments(fixed: NDArray, moving: NDArray, spacing_mm: NDArray) -> dict[str, float]:
    """Distance of centroids, ratio of extents, and how far a corner of the frame moves by both."""
    (first, wide), (second, other) = (_centroid(image) for image in (fixed, moving))
    ratio = other / wide
    half = np.array([(size - 1) / 2 for size in fixed.shape])
    corner = np.abs(second - first) + np.abs(ratio - 1) * half
    return {"offset_mm": float(np.linalg.norm((second - first) * spacing_mm)), "scale": float(np.maximum(ratio, 1 / ratio).max()),
            "reach_mm": float(np.linalg.norm(corner * spacing_mm))}


def _centroid(image: NDArray) -> tuple[NDArray, NDArray]:
    """Centroid and standard deviations (voxels) of what is brighter than the mean; of everything where nothing is."""
    places = np.argwhere(image > image.mean()).astype(float)
    if not len(places):
        places = np.argwhere(np.ones(image.shape, bool)).astype(float)
    return places.mean(axis=0), np.maximum(places.std(axis=0), 0.5)


def _brought_together(fixed: NDArray, moving: NDArray) -> NDArray:
    """The moving image with the centroid and the extents of the fixed one's foreground."""
    (first, wide), (second, other) = (_centroid(image) for image in (fixed, moving))
    ratio = other / wide
    return ndimage.affine_transform(moving, ratio, second - ratio * first, order=1, mode="nearest")


def _correlation(first: NDArray, second: NDArray) -> float:
    a, b = (values.astype(np.float64).ravel() - values.mean(dtype=np.float64) for values in (first, second))
    norm = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / norm if norm else 0.0


def _correlation_ratio(values: NDArray, given: NDArray) -> float:
    """Share of the variance of values (n,) between bins of the other image's values. Source: Roche et al. 1998."""
    total = float(np.var(values, dtype=np.float64))
    edges = np.unique(np.quantile(given, np.linspace(0, 1, BINS + 1)[1:-1]))
    bins = np.searchsorted(edges, given)
    counts = np.bincount(bins, minlength=len(edges) + 1)
    means = np.bincount(bins, weights=values, minlength=len(edges) + 1) / np.maximum(counts, 1)
    between = float((counts * np.square(means - values.mean(dtype=np.float64))).sum() / len(values))
    return between / total if total else 0.0


def _rounded(value: float) -> float:
    """Four digits: what is kept in a file has no more."""
    return float(f"{float(value):.4g}")


def told(findings: Mapping[str, float]) -> str:
    """Findings as words."""
    return ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in findings.items())
