"""Pictures of a case: slices of largest error and an overview, with the contours of prediction and reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoseg.core.geometry import Box, Geometry
from autoseg.core.task import Legend, Picture
from autoseg.reporting import drawing
from autoseg.reporting.anatomy import PLANE_NAMES, has_size, is_placed, side_letters, tilt_deg, view
from autoseg.reporting.colours import OKABE_ITO, label_colours
from autoseg.reporting.contrast import Backdrop, choose_backdrop
from autoseg.reporting.numbers import counted

# Slices three times as far apart as their pixels are not cut across: nnU-Net 2.8.1 (ANISO_THRESHOLD) treats them apart too.
THICK_SLICE_RATIO = 3.0
# Sizes in pixels: what stands side by side on the page (1072 wide, with gaps), and how tall and how small a picture may be.
ROW_PX, GAP_PX, TALLEST_PX, SMALLEST_PX = 1040, 4, 640, 340
WORST_SLICES = 3
OVERVIEW_COLUMNS, OVERVIEW_ROWS = 4, 2
# Part of the image around the structures that is shown: a quarter of their size on every side, so that they fill two thirds
# of the picture, and at least half of the longest side; from four fifths of the image on, the whole image.
MARGIN_SHARE, NARROWEST_SHARE, WHOLE_FROM = 0.25, 0.5, 0.8
# Width of the lines of prediction and reference, and where a voxel has less than `THIN_BELOW_PX` pixels and lines would fill
# small structures.
LINES_PX, THIN_LINES_PX, THIN_BELOW_PX = (3, 2), (2, 1), 2
REFERENCE_WHITENESS = 0.4
# Pixels beside a line keep this part of their brightness, so that lines stand out on white too.
HALO_BRIGHTNESS = 0.4

LINES = "solid line: prediction; light dashes: reference (on a solid line: both agree)"
SIDES = "radiological convention: the patient's left is on the right of axial and coronal pictures"
NUMBERS = "numbers in the pictures are those of this list"


@dataclass(frozen=True)
class Structure:
    """A label or a region: what it is called, and the label indices that belong to it."""

    name: str
    indices: tuple[int, ...]


@dataclass(frozen=True)
class Scene:
    """What is drawn: label maps (Z, Y, X) on one canonical grid, over a backdrop; index 0 is background.

    Attributes:
        reference: None where there is none; indices that belong to no label are neither drawn nor counted.
        structures: drawn in this order, the largest first where they overlap.
    """

    prediction: NDArray
    reference: NDArray | None
    structures: tuple[Structure, ...]
    geometry: Geometry

    @property
    def label_maps(self) -> tuple[NDArray, ...]:
        return (self.prediction,) if self.reference is None else (self.prediction, self.reference)


def case_pictures(voxels: NDArray, names: Sequence[str], ct: Sequence[bool], scene: Scene) -> tuple[Picture, ...]:
    """The slices of largest error, then an overview of the whole image; one picture of a flat image.

    Across each axis one slice; of thick slices (`THICK_SLICE_RATIO`) the worst ones, in their plane only.

    Args:
        voxels: (C, Z, Y, X); one channel is shown, the one with most contrast, or all three of a colour image.
        names, ct: of every channel: its name, and whether it holds HU.
    """
    around = zoom_box(scene)
    backdrop = choose_backdrop(voxels, names, ct, scene.label_maps[-1], [s.indices for s in scene.structures], around)
    wrong = errors(scene)
    places = worst_places(scene, wrong)
    pixel = pixel_size(scene.geometry, around, [axis for axis, _ in places])
    pictures = [Picture(overlay(scene, backdrop, around, axis, index, pixel), _caption(scene, backdrop, wrong, axis, index),
                        legend_of(scene)) for axis, index in places]
    return tuple(pictures) if min(scene.geometry.shape) == 1 else (*pictures, overview(scene, backdrop, places[0][0]))


def errors(scene: Scene) -> NDArray[np.bool_]:
    """Voxels (Z, Y, X) where prediction and reference belong to other structures; without a reference none."""
    if scene.reference is None:
        return np.zeros(scene.prediction.shape, dtype=bool)
    known = max((index for structure in scene.structures for index in structure.indices), default=0)
    members = np.zeros((known + 1, len(scene.structures)), dtype=bool)
    for place, structure in enumerate(scene.structures):
        members[list(structure.indices), place] = True
    kinds = np.unique(members, axis=0, return_inverse=True)[1].ravel().astype(np.uint16)
    is_known = scene.reference <= known
    return is_known & (kinds[np.minimum(scene.prediction, known)] != kinds[np.where(is_known, scene.reference, 0)])


def worst_places(scene: Scene, wrong: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """(axis, index) of the slices to show, those across the first axis first."""
    flat, thick = flat_axis(scene.geometry), thick_axis(scene.geometry)
    if flat is not None:
        return [(flat, 0)]
    if thick is not None:
        chosen = apart(worst_slices(scene, wrong, thick), scene.geometry.shape[thick] // WORST_SLICES // WORST_SLICES)
        return [(thick, index) for index in chosen[:WORST_SLICES]]
    return [(axis, worst_slices(scene, wrong, axis)[0]) for axis in range(3)]


def worst_slices(scene: Scene, wrong: NDArray[np.bool_], axis: int) -> list[int]:
    """Indices along `axis`, the slice with most wrong voxels first, of equal ones that with most labelled voxels.

    Slices with neither are left out; without any, the middle one.
    """
    others = tuple(a for a in range(3) if a != axis)
    counts = np.count_nonzero(wrong, axis=others)
    labelled = np.sum([np.count_nonzero(labels, axis=others) for labels in scene.label_maps], axis=0)
    order = np.lexsort((-labelled, -counts))
    return [int(index) for index in order if counts[index] or labelled[index]] or [scene.prediction.shape[axis] // 2]


def apart(indices: Sequence[int], distance: int) -> list[int]:
    """Those of the slices that are more than `distance` away from all before them: neighbours show the same."""
    chosen: list[int] = []
    for index in indices:
        if all(abs(index - other) > distance for other in chosen):
            chosen.append(index)
    return chosen


def flat_axis(geometry: Geometry) -> int | None:
    """The axis of a single slice; None for a volume."""
    return geometry.shape.index(1) if 1 in geometry.shape else None


def thick_axis(geometry: Geometry) -> int | None:
    """The axis across thick slices; None where voxels are nearly cubes."""
    spacing = geometry.spacing_mm
    axis = int(np.argmax(spacing))
    return axis if spacing[axis] > THICK_SLICE_RATIO * max(spacing[a] for a in range(3) if a != axis) else None


def zoom_box(scene: Scene) -> Box:
    """The part of the image to show: around the structures with a margin; all of a flat image, and of an empty one."""
    shape, spacing = scene.geometry.shape, scene.geometry.spacing_mm
    labelled = np.any([labels > 0 for labels in scene.label_maps], axis=0)
    extents = [extent(labelled, axis) for axis in range(3)]
    if 1 in shape or any(found is None for found in extents):
        return ((0, shape[0]), (0, shape[1]), (0, shape[2]))
    bounds = [found for found in extents if found is not None]
    sides_mm = [(1 + 2 * MARGIN_SHARE) * (stop - start) * mm for (start, stop), mm in zip(bounds, spacing, strict=True)]
    box = []
    for (start, stop), size, mm, side_mm in zip(bounds, shape, spacing, sides_mm, strict=True):
        half = max(side_mm, NARROWEST_SHARE * max(sides_mm)) / mm / 2
        first, last = (start + stop) / 2 - half, (start + stop) / 2 + half
        cut = (max(0, int(np.floor(first))), min(size, int(np.ceil(last))))
        box.append((0, size) if cut[1] - cut[0] > WHOLE_FROM * size else cut)
    return (box[0], box[1], box[2])


def body_box(channel: NDArray) -> Box:
    """The part of an image (Z, Y, X) that is not filled with its lowest value."""
    body = channel > channel.min()
    extents = [extent(body, axis) or (0, size) for axis, size in enumerate(channel.shape)]
    return (extents[0], extents[1], extents[2])


def extent(mask: NDArray[np.bool_], axis: int) -> tuple[int, int] | None:
    """Half-open range along `axis` that holds a mask (Z, Y, X); None for an empty one."""
    found = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
    return (int(found[0]), int(found[-1]) + 1) if len(found) else None


def pixel_size(geometry: Geometry, box: Box, axes: Sequence[int]) -> float:
    """Millimetres per pixel at which pictures across `axes` stand side by side on the page.

    One picture alone is neither smaller than `SMALLEST_PX` nor taller or wider than `TALLEST_PX`.
    """
    sides = [(stop - start) * mm for (start, stop), mm in zip(box, geometry.spacing_mm, strict=True)]
    shown = [[sides[a] for a in range(3) if a != axis] for axis in axes]
    if len(axes) == 1:
        return max(min(shown[0]) / SMALLEST_PX, max(shown[0]) / TALLEST_PX)
    return max(sum(width for _, width in shown) / ROW_PX, max(height for height, _ in shown) / TALLEST_PX)


def overlay(scene: Scene, backdrop: Backdrop, box: Box, axis: int, index: int, pixel_mm: float) -> NDArray[np.uint8]:
    """Picture (Y, X, 3) of one slice inside `box`, with contours, letters at the borders and a scale bar.

    Pixels are square in millimetres. Letters are left out where the place in the patient is not known.
    """
    part, shape = shown_part(scene.geometry, box, axis, pixel_mm)
    pixels = drawing.resize(np.ascontiguousarray(backdrop.slice(axis, index)[part]), shape)
    planes = [drawing.enlarge(view(labels, axis, index)[part], shape) for labels in scene.label_maps]
    is_fine = min(mm for a, mm in enumerate(scene.geometry.spacing_mm) if a != axis) / pixel_mm < THIN_BELOW_PX
    pixels = draw_structures(pixels, planes, scene.structures, THIN_LINES_PX if is_fine else LINES_PX)
    return with_letters_and_scale(pixels, scene.geometry, box, axis)


def shown_part(geometry: Geometry, box: Box, axis: int, pixel_mm: float) -> tuple[tuple[slice, slice], tuple[int, int]]:
    """Rows and columns of a slice as it is looked at (`view`) that lie in a box, and the rows and columns of its picture."""
    row, column = (a for a in range(3) if a != axis)
    spacing, rows, columns = geometry.spacing_mm, box[row], box[column]
    if axis != 0:  # such slices are turned upside down to be looked at
        rows = (geometry.shape[row] - rows[1], geometry.shape[row] - rows[0])
    shape = (max(1, round((rows[1] - rows[0]) * spacing[row] / pixel_mm)),
             max(1, round((columns[1] - columns[0]) * spacing[column] / pixel_mm)))
    return (slice(*rows), slice(*columns)), shape


def with_letters_and_scale(pixels: NDArray[np.uint8], geometry: Geometry, box: Box, axis: int) -> NDArray[np.uint8]:
    """A picture of the slice across `axis` inside a box with the letters of the patient's sides and a scale bar."""
    column = 1 if axis == 2 else 2
    units_per_pixel = (box[column][1] - box[column][0]) * geometry.spacing_mm[column] / pixels.shape[1]
    if is_placed(geometry):
        pixels = drawing.draw_letters(pixels, side_letters(geometry.direction, axis))
    length = scale_bar_length(pixels.shape[1] * units_per_pixel)
    text = length_text(length) if has_size(geometry) else f"{length:g} px"
    return drawing.draw_scale_bar(pixels, round(length / units_per_pixel), text)


def draw_structures(pixels: NDArray[np.uint8], planes: Sequence[NDArray], structures: Sequence[Structure],
                    widths_px: tuple[int, int]) -> NDArray[np.uint8]:
    """The picture with contours, solid for the first label slice (Y, X) and dashed for the second, smaller ones on top.

    More structures than colours that everybody can tell apart are numbered too.
    """
    colours = label_colours(len(structures))
    drawn = pixels.copy()
    is_line = np.zeros(pixels.shape[:2], dtype=bool)
    places: dict[int, NDArray[np.bool_]] = {}
    for number, plane in enumerate(planes):
        masks = {place: np.isin(plane, structure.indices) for place, structure in enumerate(structures)}
        for place, mask in sorted(masks.items(), key=lambda entry: (-np.count_nonzero(entry[1]), entry[0])):
            if mask.any():
                if number == 0:
                    line, colour = drawing.contour(mask, width=widths_px[0]), colours[place]
                else:
                    line = drawing.dashes(mask, width=widths_px[1])
                    colour = drawing.lighter(colours[place], REFERENCE_WHITENESS)
                drawn[line] = colour
                is_line |= line
                places[place] = mask  # the reference, which comes last, where both have it
    halo = drawing.dilate(is_line) & ~is_line
    drawn[halo] = drawn[halo] * HALO_BRIGHTNESS
    return drawing.draw_numbers(drawn, places, colours) if len(structures) > len(OKABE_ITO) else drawn


def overview(scene: Scene, backdrop: Backdrop, axis: int) -> Picture:
    """Slices across `axis`, evenly through the reference, with all of the patient that was imaged, as one picture.

    Through the prediction where there is no reference, or an empty one.
    """
    shape = scene.geometry.shape
    whole = body_box(backdrop.channels[0])
    ranges = [extent(labels > 0, axis) for labels in reversed(scene.label_maps)]
    found = next((bounds for bounds in ranges if bounds is not None), (0, shape[axis]))
    wanted = OVERVIEW_COLUMNS * OVERVIEW_ROWS
    places = found[0] + (np.arange(wanted) + 0.5) * (found[1] - found[0]) / wanted
    indices = sorted({int(place) for place in places})
    row, column = (a for a in range(3) if a != axis)
    sides = [(whole[a][1] - whole[a][0]) * scene.geometry.spacing_mm[a] for a in (row, column)]
    tile_px = (ROW_PX - (OVERVIEW_COLUMNS - 1) * GAP_PX) // OVERVIEW_COLUMNS
    pixel_mm = max(sides[1] / tile_px, sides[0] / TALLEST_PX * OVERVIEW_ROWS)
    tiles = [drawing.draw_text(overlay(scene, backdrop, whole, axis, index, pixel_mm), f"{index + 1}")
             for index in indices]
    numbers = ", ".join(str(index + 1) for index in indices)
    return Picture(tiled(tiles), f"overview: {plane_name(scene.geometry, axis)} {numbers} of {shape[axis]}; {backdrop.note}",
                   legend_of(scene))


def tiled(tiles: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Tiles of one size in rows of `OVERVIEW_COLUMNS`, on dark grey."""
    height, width = tiles[0].shape[:2]
    columns = min(OVERVIEW_COLUMNS, len(tiles))
    rows = -(-len(tiles) // columns)
    sheet = np.full((rows * (height + GAP_PX) - GAP_PX, columns * (width + GAP_PX) - GAP_PX, 3), 24, dtype=np.uint8)
    for place, tile in enumerate(tiles):
        top, left = place // columns * (height + GAP_PX), place % columns * (width + GAP_PX)
        sheet[top: top + height, left: left + width] = tile
    return sheet


def legend_of(scene: Scene) -> Legend:
    """The colour of every structure, and what the reader must know of lines, sides and numbers."""
    numbered = len(scene.structures) > len(OKABE_ITO)
    colours = label_colours(len(scene.structures))
    entries = tuple((f"{place} {structure.name}" if numbered else structure.name, colour)
                    for place, (structure, colour) in enumerate(zip(scene.structures, colours, strict=True), start=1))
    is_shown = {LINES: scene.reference is not None, NUMBERS: numbered, SIDES: is_placed(scene.geometry)}
    return Legend(entries, tuple(note for note, shown in is_shown.items() if shown))


def scale_bar_length(width: float) -> float:
    """Length of the scale bar: the largest 1, 2 or 5 times a power of ten within a quarter of the picture's width."""
    power = 10.0 ** np.floor(np.log10(width / 4))
    return float(max(step * power for step in (1, 2, 5) if step * power <= width / 4 * (1 + 1e-9)))


def length_text(length_mm: float) -> str:
    """A length in the unit in which it is a short number: cm, mm or micrometres."""
    if length_mm >= 10.0:
        return f"{length_mm / 10:g} cm"
    return f"{length_mm:g} mm" if length_mm >= 0.1 else f"{length_mm * 1000:g} µm"


def _caption(scene: Scene, backdrop: Backdrop, wrong: NDArray[np.bool_], axis: int, index: int) -> str:
    placed, count = is_placed(scene.geometry), scene.geometry.shape[axis]
    parts = [f"{plane_name(scene.geometry, axis)} {index + 1} of {count}"] if placed or count > 1 else []
    if scene.reference is not None:
        count = int(np.count_nonzero(np.take(wrong, index, axis)))
        parts.append(f"{counted(count, 'voxel' if placed else 'pixel')} differ{'s' if count == 1 else ''}")
    parts.append(backdrop.note)
    tilt = round(tilt_deg(scene.geometry.direction))
    if placed and tilt:
        parts.append(f"oblique by {tilt}°")
    if not placed:
        parts.append("orientation not known" + ("" if has_size(scene.geometry) else ", pixel size not known"))
    return "; ".join(parts)


def plane_name(geometry: Geometry, axis: int) -> str:
    """`axial slice`, or `slice across z` where the orientation is not known."""
    return f"{PLANE_NAMES[axis]} slice" if is_placed(geometry) else f"slice across {'zyx'[axis]}"
