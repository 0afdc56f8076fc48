"""The grid of a task that sees images whole: two or three dimensions or slices, and how many voxels along every axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from autoseg.core.geometry import Shape, Spacing
from autoseg.core.plan import Reason

# Docs/classification.md: slices thicker than three times their pixels, or so few that a volume has no depth.
COARSE_RATIO = 3.0
FEWEST_SLICES_3D = 25
# Up to this side images keep their own size: those of MedMNIST (28 and 64), whose ResNet-18 neither strides nor pools at first.
SMALL_SIDE = 64
# Sides of larger images are multiples of the product of five halvings, as in every ImageNet network.
STEP_2D, STEP_3D = 32, 8
SMALLEST_SIDE = 8
# The 10th percentile of lesions' shorter sides must have so many pixels, and fill one cell of the last map.
LESION_PERCENTILE = 10
LESION_PIXELS = 8
LESION_STEP = 64
# More slices than these are resampled to so many: memory grows with them, and neighbours look alike.
MOST_SLICES = 32

RULES = "rules of the classification planner, docs/classification.md"


@dataclass(frozen=True)
class WholeGrid:
    """The grid of whole images, model axis order.

    Attributes:
        dims: 2 or 3 of the network's convolutions.
        slices: a 2-D network sees every slice by itself.
        size: voxels along every axis.
        spacing_mm: of the median image at that size.
        median_shape: of the images as they are.
    """

    dims: int
    slices: bool
    size: Shape
    spacing_mm: Spacing
    median_shape: tuple[float, float, float]

    @property
    def voxels(self) -> int:
        return math.prod(self.size)

    @property
    def sides(self) -> tuple[int, ...]:
        """Sizes along the axes of the network's convolutions."""
        return self.size[-self.dims:]


def plan_whole_grid(median_shape: Sequence[float], spacing_mm: Sequence[float], *, most_voxels: int,
                    lesions: Sequence[int] = ()) -> tuple[WholeGrid, Reason, Reason]:
    """The grid, why it has these dimensions, and why this size.

    Args:
        median_shape, spacing_mm: of the whole images, model axis order (the coarsest axis first).
        most_voxels: of one image; lesions may ask for more.
        lesions: 10th percentile of lesions' shorter sides, in thousandths of the image's shorter side; empty: not known.
    """
    depth, height, width = median_shape
    coarse = spacing_mm[0] / max(spacing_mm[1:])
    inputs = f"median shape {_list(median_shape)} voxels, spacing {_list(spacing_mm)} mm (model axes)"
    if depth < 2:
        dims, slices, because = 2, False, "images of one slice: a network of two dimensions"
    elif coarse >= COARSE_RATIO or depth < FEWEST_SLICES_3D:
        dims, slices = 2, True
        because = (f"slices are {coarse:.2g} times as thick as their pixels, {depth:.0f} of them; from {COARSE_RATIO:g} times "
                   "on or "
                   f"below {FEWEST_SLICES_3D} slices neighbours share little: each slice by itself, pooled by learned attention")
    else:
        dims, slices, because = 3, False, "fine enough along all axes and deep enough for a network of three dimensions"
    if dims == 3:
        size, why = _volume(median_shape, spacing_mm, most_voxels)
    else:
        count = 1 if not slices else min(round(depth), MOST_SLICES)
        (y, x), why = _plane((height, width), most_voxels / count, lesions)
        size = (count, y, x)
    spacing = tuple(float(step * found / wanted) for step, found, wanted in zip(spacing_mm, median_shape, size, strict=True))
    grid = WholeGrid(dims, slices, size, (spacing[0], spacing[1], spacing[2]), (float(depth), float(height), float(width)))
    return grid, Reason(inputs, because, RULES), Reason(inputs, why, RULES)


def lesion_side(permille: float) -> int:
    """Pixels along the shorter side at which lesions of this size, in thousandths of that side, are large enough.

    They have `LESION_PIXELS` pixels and fill a cell of the last map of a network that halves five times.
    """
    needed = max(LESION_PIXELS, STEP_2D) * 1000 / permille
    return LESION_STEP * math.ceil(needed / LESION_STEP)


def _plane(sides: tuple[float, float], most_pixels: float, lesions: Sequence[int]) -> tuple[tuple[int, int], str]:
    """Height and width of a slice, and why."""
    shorter, longer = min(sides), max(sides)
    if lesions:
        small = _percentile(lesions)
        wanted = min(lesion_side(small), STEP_2D * max(1, round(shorter / STEP_2D)))
        why = (f"the 10th percentile of the shorter sides of {len(lesions)} lesions is {small / 10:.3g} % of the image's "
               "shorter side; "
               f"at {wanted} pixels it has {small * wanted / 1000:.3g} pixels, at least {LESION_PIXELS} and one cell of "
               f"{STEP_2D} "
               f"pixels of the last map, in steps of {LESION_STEP}, but no more than the images have")
    elif longer <= SMALL_SIDE:
        return ((_multiple(sides[0], 4), _multiple(sides[1], 4)),
                f"images of at most {SMALL_SIDE} pixels keep their size, rounded to multiples of 4 so that it can be halved "
                "twice")
    else:
        budget = math.sqrt(most_pixels * shorter / longer)
        wanted = STEP_2D * max(1, round(min(shorter, budget) / STEP_2D))
        why = (f"the shorter side is the smaller one of that of the median image and of what a step affords ({most_pixels:.4g} "
               f"pixels), in steps of {STEP_2D}")
    scale = wanted / shorter
    found = [STEP_2D * max(1, round(side * scale / STEP_2D)) for side in sides]
    return (found[0], found[1]), why + "; the other side keeps the proportions"


def _volume(shape: Sequence[float], spacing_mm: Sequence[float], most_voxels: float) -> tuple[Shape, str]:
    """Sizes of a volume whose voxels are as nearly cubes as its own resolution allows."""
    extent = [size * spacing for size, spacing in zip(shape, spacing_mm, strict=True)]
    step = min(spacing_mm)

    def sizes(spacing: float) -> list[float]:
        return [min(own, length / spacing) for own, length in zip(shape, extent, strict=True)]

    while math.prod(sizes(step)) > most_voxels:
        step *= 1.01
    found = [_multiple(size, STEP_3D) for size in sizes(step)]
    return (found[0], found[1], found[2]), (
        f"voxels of {step:.3g} mm along every axis that is not coarser already, the finest that a step affords "
        f"({most_voxels:.4g} "
        f"voxels) and the images have; multiples of {STEP_3D}, so that sizes can be halved three times")


def _percentile(values: Sequence[int]) -> float:
    """10th percentile, linear between neighbours, as numpy's."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * LESION_PERCENTILE / 100
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def _multiple(size: float, step: int) -> int:
    return max(SMALLEST_SIDE, step * max(1, round(size / step)))


def _list(values: Sequence[float]) -> str:
    return " x ".join(f"{float(value):.4g}" for value in values)
