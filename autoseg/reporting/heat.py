"""Pictures of a case with a heat map over it: where a network found what speaks for its answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoseg.core.errors import GeometryError
from autoseg.core.geometry import Box, Geometry
from autoseg.core.task import Legend, Picture
from autoseg.reporting import drawing
from autoseg.reporting.anatomy import is_placed, view
from autoseg.reporting.colours import Colour
from autoseg.reporting.contrast import Backdrop, choose_backdrop
from autoseg.reporting.figures import (
    HALO_BRIGHTNESS,
    SIDES,
    body_box,
    flat_axis,
    pixel_size,
    plane_name,
    shown_part,
    thick_axis,
    with_letters_and_scale,
)
from autoseg.reporting.numbers import short_number

# From no evidence to the largest: the upper part of the colour map "inferno" (van der Walt and Smith 2015, matplotlib), which
# grows lighter all the way, so that it reads the same in print and to colour-blind readers.
RAMP: tuple[Colour, ...] = ((87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164))
# How much the largest evidence hides of the image; our choice, so that what lies below can still be told.
OPACITY = 0.5
# Share of the largest evidence at which a line is drawn, as for the extent of a peak (full width at half maximum).
LINE_AT = 0.5
LINE_COLOUR: Colour = (255, 255, 255)
LEGEND_SHARES = (0.25, 0.5, 0.75, 1.0)
LINE_NOTE = "white line: half of the largest evidence"
OUTLINE_PX = 2


@dataclass(frozen=True)
class Outline:
    """A box to draw over a heat map: ranges along the canonical z, y, x of the image, and what it is called in the legend."""

    sides: Sequence[tuple[float, float]]
    name: str
    colour: Colour
    dashed: bool = False


def heat_pictures(voxels: NDArray, names: Sequence[str], ct: Sequence[bool], heat: NDArray, geometry: Geometry, *,
                  title: str, outlines: Sequence[Outline] = ()) -> tuple[Picture, ...]:
    """The slices with most evidence, with the evidence in colour over the image; one picture of a flat image.

    Across each axis one slice; of thick slices one in their plane.

    Args:
        voxels: (C, Z, Y, X); shown as in `figures.case_pictures`.
        names, ct: of every channel: its name, and whether it holds HU.
        heat: (Z, Y, X) on the image's grid; what is above 0 is evidence, the rest is not drawn.
        title: begins every caption.
        outlines: boxes, drawn in the slices that they reach into.
    Raises:
        GeometryError: the heat map is not on the image's grid.
    """
    if heat.shape != geometry.shape or voxels.shape[1:] != geometry.shape:
        raise GeometryError(f"the heat map has {heat.shape} and the image {voxels.shape[1:]} voxels (z, y, x), its grid "
                            f"{geometry.shape}; bring the heat map back to the grid of the image first")
    evidence = np.maximum(heat, 0)
    whole: Box = ((0, heat.shape[0]), (0, heat.shape[1]), (0, heat.shape[2]))
    backdrop = choose_backdrop(voxels, names, ct, np.zeros(geometry.shape, np.uint8), (), whole)
    box = whole if 1 in geometry.shape else body_box(backdrop.channels[0])
    axes = [axis for axis in (flat_axis(geometry), thick_axis(geometry)) if axis is not None][:1] or [0, 1, 2]
    pixel = pixel_size(geometry, box, axes)
    pictures = []
    for axis in axes:
        index = largest_slice(evidence, axis)
        caption = "; ".join([title, *_place(geometry, axis, index), _amount(evidence), backdrop.note])
        pixels = heat_overlay(evidence, backdrop, geometry, box, axis, index, pixel, outlines)
        pictures.append(Picture(pixels, caption, legend(geometry, outlines)))
    return tuple(pictures)


def largest_slice(evidence: NDArray, axis: int) -> int:
    """The slice across `axis` with the largest sum of evidence; the middle one where there is none."""
    sums = evidence.sum(axis=tuple(a for a in range(3) if a != axis), dtype=np.float64)
    return int(np.argmax(sums)) if sums.max() > 0 else len(sums) // 2


def heat_overlay(evidence: NDArray, backdrop: Backdrop, geometry: Geometry, box: Box, axis: int, index: int,
                 pixel_mm: float, outlines: Sequence[Outline] = ()) -> NDArray[np.uint8]:
    """Picture (Y, X, 3) of one slice inside `box`: colours and opacity grow with the share of the largest evidence anywhere."""
    part, shape = shown_part(geometry, box, axis, pixel_mm)
    pixels = drawing.resize(np.ascontiguousarray(backdrop.slice(axis, index)[part]), shape)
    largest = float(evidence.max())
    if largest > 0:
        shares = np.rint(255 * (view(evidence, axis, index)[part] / largest)).astype(np.uint8)
        smooth = drawing.resize(np.stack([shares] * 3, axis=-1), shape)[..., 0] / 255.0
        opacity = OPACITY * smooth[..., None]
        pixels = np.rint(pixels * (1 - opacity) + ramp(smooth) * opacity).astype(np.uint8)
        line = drawing.contour(smooth >= LINE_AT)
        halo = drawing.dilate(line) & ~line
        pixels[halo] = pixels[halo] * HALO_BRIGHTNESS
        pixels[line] = LINE_COLOUR
    for outline in outlines:
        draw_outline(pixels, outline, geometry, box, axis, index)
    return with_letters_and_scale(pixels, geometry, box, axis)


def ramp(shares: NDArray) -> NDArray[np.float64]:
    """Red, green and blue (..., 3) of shares (...) of the largest evidence, between the colours of `RAMP`."""
    places = np.linspace(0, 1, len(RAMP))
    return np.stack([np.interp(shares, places, primary) for primary in zip(*RAMP, strict=True)], axis=-1)


def draw_outline(pixels: NDArray[np.uint8], outline: Outline, geometry: Geometry, box: Box, axis: int, index: int) -> None:
    """Draws a box into a picture of a slice, where it reaches into the slice."""
    first, last = outline.sides[axis]
    if not (first < index + 1 and last > index):
        return
    row, column = (a for a in range(3) if a != axis)
    rows, columns = outline.sides[row], outline.sides[column]
    if axis != 0:  # such slices are turned upside down to be looked at
        rows = (box[row][0] + box[row][1] - rows[1], box[row][0] + box[row][1] - rows[0])
    top, bottom = _pixels(rows, box[row], pixels.shape[0])
    left, right = _pixels(columns, box[column], pixels.shape[1])
    inside = np.zeros(pixels.shape[:2], bool)
    inside[top:bottom, left:right] = True
    line = drawing.dashes(inside, width=OUTLINE_PX) if outline.dashed else drawing.contour(inside, width=OUTLINE_PX)
    halo = drawing.dilate(line) & ~line
    pixels[halo] = pixels[halo] * HALO_BRIGHTNESS
    pixels[line] = outline.colour


def _pixels(side: tuple[float, float], shown: tuple[int, int], size: int) -> tuple[int, int]:
    """First and behind the last pixel of a range of voxels, in a picture of `size` pixels that shows other voxels."""
    scale = size / (shown[1] - shown[0])
    first, last = (min(max(round((place - shown[0]) * scale), 0), size) for place in side)
    return first, last


def legend(geometry: Geometry, outlines: Sequence[Outline] = ()) -> Legend:
    """What the colours and the line mean."""
    colours = [tuple(round(float(value)) for value in ramp(np.array(share))) for share in LEGEND_SHARES]
    entries = tuple((f"{share:.0%} of the largest evidence", (colour[0], colour[1], colour[2]))
                    for share, colour in zip(LEGEND_SHARES, colours, strict=True))
    boxes = tuple(dict.fromkeys((outline.name, outline.colour) for outline in outlines))
    return Legend(entries + boxes, (LINE_NOTE, SIDES) if is_placed(geometry) else (LINE_NOTE,))


def _place(geometry: Geometry, axis: int, index: int) -> list[str]:
    count = geometry.shape[axis]
    return [f"{plane_name(geometry, axis)} {index + 1} of {count}"] if is_placed(geometry) or count > 1 else []


def _amount(evidence: NDArray) -> str:
    largest = float(evidence.max())
    return f"largest evidence {short_number(largest)}" if largest > 0 else "no evidence"
