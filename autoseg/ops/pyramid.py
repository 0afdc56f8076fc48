"""Coarser grids of an image for work from coarse to fine."""

from __future__ import annotations

import math
from collections.abc import Sequence


def axis_factors(shrink: float, spacing_mm: Sequence[float]) -> tuple[float, ...]:
    """By how much each axis shrinks where the finest one shrinks by `shrink`: no axis becomes coarser than that one is then.

    Slices of 8 mm with pixels of 1 mm keep their number until the pixels have 8 mm, too; shrunken alike they would soon be gone.

    Args:
        shrink: 1 or more.
        spacing_mm: voxel size per axis.
    Returns:
        Factors per axis, 1 or more.
    """
    return tuple(max(1.0, shrink * min(spacing_mm) / step) for step in spacing_mm)


def shrink_to(ratio: float, spacing_mm: Sequence[float]) -> float:
    """The `shrink` whose `axis_factors` leave so many times fewer voxels; 1 where there are few enough.

    Args:
        ratio: voxels that there are for each that is wanted.
    """
    finest_first = sorted(spacing_mm)
    shrink = 1.0
    for axes in range(1, len(finest_first) + 1):  # the axes that shrink; all others are coarser than these become
        finer = finest_first[:axes]
        shrink = max(1.0, (ratio * math.prod(finer) / finer[0]**axes) ** (1 / axes))
        if axes == len(finest_first) or shrink * finer[0] <= finest_first[axes]:
            break
    return shrink
