"""Pictures of a registered pair: do the images fit, what is left of their difference, and how the map stretches, shrinks and
folds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from autoseg.core.errors import GeometryError
from autoseg.core.geometry import Box, Geometry
from autoseg.core.task import Legend, Picture
from autoseg.reporting import drawing
from autoseg.reporting.anatomy import is_placed, view
from autoseg.reporting.colours import OKABE_ITO, Colour
from autoseg.reporting.contrast import Backdrop, choose_backdrop, percentiles, sampled
from autoseg.reporting.figures import (
    GAP_PX,
    SIDES,
    body_box,
    flat_axis,
    length_text,
    pixel_size,
    plane_name,
    scale_bar_length,
    shown_part,
    thick_axis,
    with_letters_and_scale,
)
from autoseg.reporting.numbers import short_number

# Squares along the shorter side of a slice: small enough that every structure crosses a border, large enough to be seen.
SQUARES = 8
# Lines of the grid along the shorter side of a slice, at least; our choice.
LINES = 12
# From less to more volume: blue over nearly white to red, which colour-blind readers can tell apart. ColorBrewer (Harrower and
# Brewer 2003), "RdBu" of seven classes.
DIVERGING: tuple[Colour, ...] = ((33, 102, 172), (103, 169, 207), (209, 229, 240), (247, 247, 247), (253, 219, 199),
                                 (239, 138, 98), (178, 24, 43))
FOLDED, FOLDED_LINE = (0, 0, 0), OKABE_ITO[4]
GRID_COLOUR = OKABE_ITO[4]
# Brightness that the image keeps below the grid.
BELOW_GRID = 0.6
# What the ends of the colours mean: the first of these factors of volume that covers this share of the voxels.
FACTORS, COVERED = (1.5, 2.0, 4.0, 8.0), 0.95
BACKGROUND = 24


@dataclass(frozen=True)
class Pair:
    """What is drawn of a pair; everything on the canonical grid of the fixed image.

    Attributes:
        fixed: (C, Z, Y, X).
        before: the moving image (C, Z, Y, X) as it lay before the registration.
        warped: the moving image (C, Z, Y, X) after it.
        displacement: (3, Z, Y, X) in mm (S, P, L).
        determinants: (Z, Y, X) of `ops.displacement.jacobian_determinant`.
        names, ct: of every channel: its name, and whether it holds HU.
    """

    fixed: NDArray
    before: NDArray
    warped: NDArray
    displacement: NDArray
    determinants: NDArray
    geometry: Geometry
    names: tuple[str, ...]
    ct: tuple[bool, ...]

    def __post_init__(self) -> None:
        for what, voxels in (("fixed image", self.fixed), ("moving image before", self.before), ("warped image", self.warped),
                             ("displacement", self.displacement), ("Jacobian", self.determinants[None])):
            if voxels.shape[1:] != self.geometry.shape:
                raise GeometryError(f"the {what} has {voxels.shape[1:]} voxels (z, y, x) and the fixed grid "
                                    f"{self.geometry.shape}; bring it to that grid first")

    @cached_property
    def backdrop(self) -> Backdrop:
        """The fixed image as it is shown."""
        return choose_backdrop(self.fixed, self.names, self.ct, np.zeros(self.geometry.shape, np.uint8), (), self.whole)

    @property
    def whole(self) -> Box:
        z, y, x = self.geometry.shape
        return ((0, z), (0, y), (0, x))

    @cached_property
    def box(self) -> Box:
        return self.whole if 1 in self.geometry.shape else body_box(self.backdrop.channels[0])

    @cached_property
    def places(self) -> list[tuple[int, int]]:
        """(axis, index) of the slices to show: the middle ones of what is shown; of thick slices in their plane only."""
        axes = [axis for axis in (flat_axis(self.geometry), thick_axis(self.geometry)) if axis is not None][:1] or [0, 1, 2]
        return [(axis, sum(self.box[axis]) // 2) for axis in axes]

    @cached_property
    def pixel_mm(self) -> float:
        return pixel_size(self.geometry, self.box, [axis for axis, _ in self.places])

    def shown(self, voxels: NDArray) -> Backdrop:
        """One of the images in the channels of the backdrop, with black and white of its own where it holds no HU."""
        channels = voxels if len(self.backdrop.channels) > 1 else voxels[self.channel][None]
        own = len(channels) == 1 and not self.ct[self.channel]
        return Backdrop(channels, percentiles(sampled(channels[0])) if own else self.backdrop.window, "")

    @cached_property
    def channel(self) -> int:
        return next((place for place, channel in enumerate(self.fixed) if np.shares_memory(channel, self.backdrop.channels)), 0)

    def share(self, voxels: NDArray) -> NDArray[np.float32]:
        """The shown channel (Z, Y, X) between its black (0) and its white (1)."""
        low, high = self.shown(voxels).window
        return np.clip((voxels[self.channel].astype(np.float32) - low) / ((high - low) or 1.0), 0.0, 1.0)


def registration_pictures(pair: Pair) -> tuple[Picture, ...]:
    """Checkerboard of fixed and warped image, their difference before and after, the deformed grid, and the Jacobian map.

    Each shows the same slices side by side.
    """
    return checkerboard(pair), difference(pair), deformed_grid(pair), jacobian_map(pair)


def checkerboard(pair: Pair) -> Picture:
    """Squares of the fixed image and of the warped one in turn: outlines that go on across borders fit."""
    tiles, warped = [], pair.shown(pair.warped)
    for axis, index in pair.places:
        one, other = (_pixels(pair, backdrop.slice(axis, index), axis) for backdrop in (pair.backdrop, warped))
        rows, columns = (np.arange(size) // max(1, min(one.shape[:2]) // SQUARES) for size in one.shape[:2])
        is_other = ((rows[:, None] + columns) % 2).astype(bool)
        tiles.append(_finished(pair, np.where(is_other[..., None], other, one), axis))
    return Picture(side_by_side(tiles), _caption(pair, "fixed and warped image in turn", pair.backdrop.note), _legend(pair))


def difference(pair: Pair) -> Picture:
    """Fixed minus moving image, before (above) and after (below), in shares of what is between black and white."""
    rows = []
    for voxels, text in ((pair.before, "before"), (pair.warped, "after")):
        tiles = []
        for axis, index in pair.places:
            wrong = view(pair.share(pair.fixed) - pair.share(voxels), axis, index)
            pixels = _pixels(pair, np.rint(_ramp((wrong + 1) / 2)).astype(np.uint8), axis)
            tiles.append(drawing.draw_text(_finished(pair, pixels, axis), text))
        rows.append(side_by_side(tiles))
    gap = np.full((GAP_PX, rows[0].shape[1], 3), BACKGROUND, np.uint8)
    means = [float(np.abs(pair.share(pair.fixed) - pair.share(voxels)).mean()) for voxels in (pair.before, pair.warped)]
    text = f"mean difference {means[0]:.3f} before, {means[1]:.3f} after"
    entries = (("fixed image brighter", DIVERGING[-1]), ("equal", DIVERGING[3]), ("moving image brighter", DIVERGING[0]))
    return Picture(np.concatenate([rows[0], gap, rows[1]]), _caption(pair, "difference of grey values", text),
                   _legend(pair, entries))


def deformed_grid(pair: Pair) -> Picture:
    """Lines that are straight in the moving image, as they lie in the warped one."""
    turn = np.asarray(pair.geometry.direction)
    tiles, steps, warped = [], [], pair.shown(pair.warped)
    for axis, index in pair.places:
        pixels = _pixels(pair, warped.slice(axis, index), axis)
        step = _grid_step(pair, axis)
        line = np.zeros(pixels.shape[:2], dtype=bool)
        for place, along in enumerate(a for a in range(3) if a != axis):
            moved = np.tensordot(turn[:, along], np.take(pair.displacement, index, axis=1 + axis), axes=1)
            line |= _lines(pair, moved, axis, place, step)
        pixels = np.rint(pixels * BELOW_GRID).astype(np.uint8)
        pixels[line] = GRID_COLOUR
        tiles.append(_finished(pair, pixels, axis))
        steps.append(step)
    sizes = ", ".join(dict.fromkeys(length_text(step) for step in steps))
    length = np.linalg.norm(pair.displacement, axis=0)
    text = (f"lines {sizes} apart; displacement {short_number(float(length.mean()))} mm on average, "
            f"{short_number(float(length.max()))} mm at most")
    return Picture(side_by_side(tiles), _caption(pair, "grid of the moving image in the warped image", text),
                   _legend(pair, (("line of the moving image", GRID_COLOUR),)))


def jacobian_map(pair: Pair) -> Picture:
    """How much volume grows (red) or shrinks (blue) from the fixed to the moving image, and where it folds (black)."""
    positive = np.maximum(pair.determinants, np.finfo(np.float32).tiny)
    change = np.abs(np.log2(positive))
    factor = next((factor for factor in FACTORS if (change <= np.log2(factor)).mean() >= COVERED), FACTORS[-1])
    tiles = []
    for axis, index in pair.places:
        part, shape = shown_part(pair.geometry, pair.box, axis, pair.pixel_mm)
        share = (np.log2(view(positive, axis, index)[part]) / np.log2(factor) + 1) / 2
        pixels = drawing.resize(np.rint(_ramp(share)).astype(np.uint8), shape)
        folded = drawing.enlarge(view(pair.determinants <= 0, axis, index)[part], shape)
        pixels[folded] = FOLDED
        pixels[drawing.contour(folded, width=2)] = FOLDED_LINE
        tiles.append(_finished(pair, pixels, axis))
    folds = float(np.mean(pair.determinants <= 0))
    shares = np.linspace(-1, 1, 5)
    beyond = {-1: " and less", 1: " and more"}
    entries = [(f"volume times {short_number(float(factor**share))}{beyond.get(int(share), '') if abs(share) == 1 else ''}",
                _colour((share + 1) / 2)) for share in shares]
    text = f"{short_number(100 * folds)} % of the voxels fold" if folds else "no voxel folds"
    return Picture(side_by_side(tiles), _caption(pair, "Jacobian determinant", text),
                   _legend(pair, (*entries, ("folded (black, with this outline)", FOLDED_LINE))))


def side_by_side(tiles: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Pictures (Y, X, 3) of any size in one row on dark grey, their upper borders in line."""
    height, width = max(len(tile) for tile in tiles), sum(tile.shape[1] + GAP_PX for tile in tiles) - GAP_PX
    row, left = np.full((height, width, 3), BACKGROUND, np.uint8), 0
    for tile in tiles:
        row[:len(tile), left:left + tile.shape[1]] = tile
        left += tile.shape[1] + GAP_PX
    return row


def _pixels(pair: Pair, plane: NDArray[np.uint8], axis: int) -> NDArray[np.uint8]:
    """The shown part of a slice (rows, columns, 3) in the size of its picture."""
    part, shape = shown_part(pair.geometry, pair.box, axis, pair.pixel_mm)
    return drawing.resize(np.ascontiguousarray(plane[part]), shape)


def _finished(pair: Pair, pixels: NDArray[np.uint8], axis: int) -> NDArray[np.uint8]:
    return with_letters_and_scale(np.ascontiguousarray(pixels), pair.geometry, pair.box, axis)


def _lines(pair: Pair, moved_mm: NDArray, axis: int, place: int, step_mm: float) -> NDArray[np.bool_]:
    """Pixels of a slice where the coordinate in the moving image passes a multiple of the step.

    The coordinate runs along the rows (`place` 0) or the columns (1).

    Args:
        moved_mm: displacement along that axis (rows, columns) of the slice, not yet turned to be looked at.
    """
    part, shape = shown_part(pair.geometry, pair.box, axis, pair.pixel_mm)
    upright = np.ascontiguousarray(moved_mm if axis == 0 else moved_mm[::-1], np.float32)[part]
    smooth = np.array(PillowImage.fromarray(upright).resize((shape[1], shape[0]), PillowImage.Resampling.BILINEAR))
    along = [a for a in range(3) if a != axis][place]
    start, stop = (edge * pair.geometry.spacing_mm[along] for edge in pair.box[along])
    own = start + (np.arange(shape[place]) + 0.5) * (stop - start) / shape[place]
    if axis != 0 and place == 0:
        own = own[::-1]
    cell = np.floor((smooth + (own[:, None] if place == 0 else own)) / step_mm)
    line = np.zeros(shape, dtype=bool)
    line[1:] |= cell[1:] != cell[:-1]
    line[:, 1:] |= cell[:, 1:] != cell[:, :-1]
    return line


def _grid_step(pair: Pair, axis: int) -> float:
    sides = [(stop - start) * mm for (start, stop), mm in zip(pair.box, pair.geometry.spacing_mm, strict=True)]
    sides.pop(axis)
    return scale_bar_length(4 * min(sides) / LINES)


def _ramp(shares: NDArray) -> NDArray[np.float64]:
    """Red, green and blue (..., 3) of shares (...) between the ends of `DIVERGING`."""
    ends = np.linspace(0, 1, len(DIVERGING))
    return np.stack([np.interp(shares, ends, primary) for primary in zip(*DIVERGING, strict=True)], axis=-1)


def _colour(share: float) -> Colour:
    red, green, blue = (round(float(value)) for value in _ramp(np.array(share)))
    return red, green, blue


def _legend(pair: Pair, entries: Sequence[tuple[str, Colour]] = ()) -> Legend:
    return Legend(tuple(entries), (SIDES,) if is_placed(pair.geometry) else ())


def _caption(pair: Pair, title: str, *parts: str) -> str:
    shape = pair.geometry.shape
    slices = [f"{plane_name(pair.geometry, axis)} {index + 1} of {shape[axis]}" for axis, index in pair.places if shape[axis] > 1]
    return "; ".join([title, *([", ".join(slices)] if slices else []), *parts])
