"""Pictures of one slice with the contours of prediction and reference, as a radiologist expects to see them.

The canonical array axes run to superior (z), posterior (y) and left (x). In a picture the patient's left is on the
right, anterior is above (axial) or on the left (sagittal), and superior is above (coronal, sagittal).
"""

from __future__ import annotations

import colorsys
import io
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import ImageDraw, ImageFont

from autoseg.core.geometry import Spacing
from autoseg.core.task import Picture

# Okabe and Ito 2008 (colours that colour-blind readers can tell apart), without black, the most vivid on grey first.
LABEL_COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (204, 121, 167), (240, 228, 66), (213, 94, 0),
                 (0, 114, 178))
WINDOW_PERCENTILES = (0.5, 99.5)
SHORTEST_SIDE_PX = 320
LONGEST_SIDE_PX = 1024
PREDICTION_WIDTH_PX = 3
REFERENCE_WIDTH_PX = 1
REFERENCE_WHITENESS = 0.5
FONT_PX = 13
WHITE = (255, 255, 255)

PLANE_NAMES = ("axial", "coronal", "sagittal")
# (top, right, bottom, left) of the picture for a slice across axis 0, 1, 2.
LETTERS = (("A", "L", "P", "R"), ("S", "L", "I", "R"), ("S", "P", "I", "A"))


def worst_pictures(image: NDArray, prediction: NDArray, reference: NDArray | None, label_names: Mapping[int, str],
                   spacing_mm: Spacing) -> tuple[Picture, ...]:
    """One overlay across each axis, at the slice of largest error; a 2-D image (Z = 1) gives one picture.

    Args: as for `overlay`.
    """
    axes = (0,) if image.shape[0] == 1 else (0, 1, 2)
    pictures = []
    for axis in axes:
        index = worst_slice(prediction, reference, axis)
        pixels = overlay(image, prediction, reference, label_names, spacing_mm, axis, index)
        pictures.append(Picture(pixels, _caption(prediction, reference, axis, index)))
    return tuple(pictures)


def worst_slice(prediction: NDArray, reference: NDArray | None, axis: int) -> int:
    """Index along `axis` of the slice where most voxels (Z, Y, X) have the wrong label.

    Without an error, or without a reference, the slice with the most foreground; in an empty image the middle one.
    Of equal slices the first.
    """
    others = tuple(a for a in range(3) if a != axis)
    candidates = [prediction > 0] if reference is None else [prediction != reference, reference > 0]
    for voxels in candidates:
        counts = np.count_nonzero(voxels, axis=others)
        if counts.any():
            return int(np.argmax(counts))
    return prediction.shape[axis] // 2


def overlay(image: NDArray, prediction: NDArray, reference: NDArray | None, label_names: Mapping[int, str],
            spacing_mm: Spacing, axis: int, index: int) -> NDArray[np.uint8]:
    """Picture (Y, X, 3) uint8 of one slice: grey image, thick contours of the prediction, thin ones of the reference.

    The slice fills the top of the picture, with orientation letters and a scale bar; the legend stands below it.

    Args:
        image: (Z, Y, X) canonical, one channel; windowed at the percentiles `WINDOW_PERCENTILES` of the whole volume.
        prediction, reference: label maps on the same grid; 0 is background.
        label_names: label value -> name; labels without a name are not drawn.
        spacing_mm: of z, y, x; pixels of the picture are square in millimetres.
        axis, index: the slice across `axis` at `index`.
    """
    row_mm, column_mm = (spacing_mm[a] for a in range(3) if a != axis)
    grey = _view(window(image), axis, index)
    shape = picture_shape((grey.shape[0], grey.shape[1]), (row_mm, column_mm))
    resized = PillowImage.fromarray(grey).resize((shape[1], shape[0]), PillowImage.Resampling.BICUBIC)
    pixels = np.repeat(np.asarray(resized)[:, :, None], 3, axis=2)
    colours = {value: label_colour(place) for place, value in enumerate(sorted(label_names))}
    lines = [(prediction, PREDICTION_WIDTH_PX, 0.0), (reference, REFERENCE_WIDTH_PX, REFERENCE_WHITENESS)]
    for labels, width, whiteness in lines:
        if labels is not None:
            _draw_contours(pixels, _enlarge(_view(labels, axis, index), shape), colours, width, whiteness)
    canvas = PillowImage.fromarray(pixels)
    _draw_letters(canvas, LETTERS[axis])
    _draw_scale_bar(canvas, millimetres_per_pixel=grey.shape[1] * column_mm / shape[1])
    legend = _legend(shape[1], {name: colours[value] for value, name in label_names.items()}, reference is not None)
    return np.concatenate([np.asarray(canvas), legend])


def window(image: NDArray) -> NDArray[np.uint8]:
    """Grey values 0..255 of an image (Z, Y, X): its percentiles `WINDOW_PERCENTILES` become black and white.

    A constant image is black.
    """
    low, high = np.percentile(image, WINDOW_PERCENTILES)
    if high <= low:
        low, high = float(image.min()), float(image.max())
    scale = 255.0 / (high - low) if high > low else 0.0
    return np.rint(np.clip((image.astype(np.float64) - low) * scale, 0.0, 255.0)).astype(np.uint8)


def picture_shape(shape: tuple[int, int], spacing_mm: tuple[float, float]) -> tuple[int, int]:
    """Rows and columns of the picture of a slice with square pixels.

    One pixel per voxel of the finer axis, more for small images (shorter side `SHORTEST_SIDE_PX`), fewer for large ones
    (longer side at most `LONGEST_SIDE_PX`).
    """
    sides_mm = (shape[0] * spacing_mm[0], shape[1] * spacing_mm[1])
    pixel_mm = min(*spacing_mm, min(sides_mm) / SHORTEST_SIDE_PX)
    pixel_mm = max(pixel_mm, max(sides_mm) / LONGEST_SIDE_PX)
    return max(1, round(sides_mm[0] / pixel_mm)), max(1, round(sides_mm[1] / pixel_mm))


def contour(mask: NDArray[np.bool_], *, width: int = 1) -> NDArray[np.bool_]:
    """The outermost `width` pixels of a mask (Y, X): those at most `width` steps (up, down, left, right) from outside.

    Beyond the border of the picture is outside.
    """
    inside = np.pad(mask, width)
    for _ in range(width):
        padded = np.pad(inside, 1)
        inside = (inside & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:])
    return mask & ~inside[width:-width, width:-width]


def label_colour(place: int) -> tuple[int, int, int]:
    """Colour of the `place`-th label; beyond the palette, hues that stay far apart (steps of the golden section)."""
    if place < len(LABEL_COLOURS):
        return LABEL_COLOURS[place]
    red, green, blue = colorsys.hsv_to_rgb(place * 0.618034 % 1.0, 0.65, 0.95)
    return round(red * 255), round(green * 255), round(blue * 255)


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """A picture (Y, X, 3) as the bytes of a PNG file."""
    stream = io.BytesIO()
    PillowImage.fromarray(pixels).save(stream, format="PNG", optimize=True)
    return stream.getvalue()


def _view(voxels: NDArray, axis: int, index: int) -> NDArray:
    """The slice as it is looked at: superior above where z runs along the rows."""
    plane = np.take(voxels, index, axis=axis)
    return np.ascontiguousarray(plane if axis == 0 else plane[::-1])


def _enlarge(plane: NDArray, shape: tuple[int, int]) -> NDArray:
    """Nearest-neighbour enlargement of a label slice; every pixel takes the voxel that its centre lies in."""
    rows, columns = ((np.arange(size) * 2 + 1) * plane.shape[a] // (2 * size) for a, size in enumerate(shape))
    return plane[rows[:, None], columns[None, :]]


def _draw_contours(pixels: NDArray[np.uint8], labels: NDArray, colours: Mapping[int, tuple[int, int, int]], width: int,
                   whiteness: float) -> None:
    for value, colour in colours.items():
        line = np.asarray(colour) * (1.0 - whiteness) + 255.0 * whiteness
        pixels[contour(labels == value, width=width)] = np.rint(line).astype(np.uint8)


def _draw_letters(canvas: PillowImage.Image, letters: tuple[str, str, str, str]) -> None:
    width, height = canvas.size
    places = (((width / 2, 3), "ma"), ((width - 4, height / 2), "rm"), ((width / 2, height - 4), "md"),
              ((4, height / 2), "lm"))
    draw = ImageDraw.Draw(canvas)
    for letter, (place, anchor) in zip(letters, places, strict=True):
        draw.text(place, letter, fill=WHITE, font=_font(), anchor=anchor, stroke_width=1, stroke_fill=(0, 0, 0))


def _draw_scale_bar(canvas: PillowImage.Image, *, millimetres_per_pixel: float) -> None:
    width, height = canvas.size
    length_mm = scale_bar_mm(width * millimetres_per_pixel)
    length_px = round(length_mm / millimetres_per_pixel)
    draw = ImageDraw.Draw(canvas)
    left, top = 8, height - 9
    draw.rectangle((left - 1, top - 1, left + length_px, top + 3), fill=(0, 0, 0))
    draw.rectangle((left, top, left + length_px - 1, top + 2), fill=WHITE)
    draw.text((left, top - 4), f"{length_mm:g} mm", fill=WHITE, font=_font(), anchor="ld", stroke_width=1,
              stroke_fill=(0, 0, 0))


def scale_bar_mm(width_mm: float) -> float:
    """Length of the scale bar: the largest 1, 2 or 5 times a power of ten within a quarter of the picture's width."""
    power = 10.0 ** np.floor(np.log10(width_mm / 4))
    return float(max(step * power for step in (1, 2, 5) if step * power <= width_mm / 4 * (1 + 1e-9)))


def _legend(width: int, colours: Mapping[str, tuple[int, int, int]], has_reference: bool) -> NDArray[np.uint8]:
    """Strip (Y, `width`, 3): what the lines mean, and the colour of each label, in as many rows as they need."""
    entries = [("thick: prediction", None)] + [("thin: reference", None)] * has_reference + list(colours.items())
    font, line_px, gap, swatch = _font(), FONT_PX + 5, 12, 10
    places, left, top = [], 6, 3
    for text, colour in entries:
        needed = round(font.getlength(text)) + (swatch + 5 if colour else 0)
        if left > 6 and left + needed > width - 6:
            left, top = 6, top + line_px
        places.append((left, top, text, colour))
        left += needed + gap
    canvas = PillowImage.new("RGB", (width, top + line_px + 2), (24, 24, 24))
    draw = ImageDraw.Draw(canvas)
    for left, top, text, colour in places:
        if colour:
            draw.rectangle((left, top + 3, left + swatch - 1, top + 2 + swatch), fill=colour)
            left += swatch + 5
        draw.text((left, top + line_px / 2), text, fill=(225, 225, 225), font=font, anchor="lm")
    return np.asarray(canvas)


def _caption(prediction: NDArray, reference: NDArray | None, axis: int, index: int) -> str:
    place = f"{PLANE_NAMES[axis]}, slice {index + 1} of {prediction.shape[axis]}"
    if reference is None:
        return place
    wrong = np.count_nonzero(np.take(prediction, index, axis) != np.take(reference, index, axis))
    return f"{place}, {wrong} voxels differ"


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(FONT_PX)
