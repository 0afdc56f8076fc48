"""Lines and letters on a picture (Y, X, 3): contours, dashes, letters at the borders, scale bar, numbers."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import ImageDraw, ImageFont

from autoseg.reporting.anatomy import Letters
from autoseg.reporting.colours import Colour

# Sizes in pixels of the picture.
DASH_PX, GAP_PX = 7, 6
FONT_PX, NUMBER_PX = 14, 13
MARGIN_PX = 4
BAR_HEIGHT_PX = 3
CAPTION_LINE_PX, NARROWEST_CAPTION_PX = 18, 340
WHITE, BLACK = (255, 255, 255), (0, 0, 0)
CAPTION_GROUND = (24, 24, 24)


def contour(mask: NDArray[np.bool_], *, width: int = 1) -> NDArray[np.bool_]:
    """The outermost `width` pixels of a mask (Y, X): those at most `width` steps (up, down, left, right) from outside.

    Beyond the border of the picture is outside.
    """
    inside = np.pad(mask, width)
    for _ in range(width):
        padded = np.pad(inside, 1)
        inside = (inside & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:])
    return mask & ~inside[width:-width, width:-width]


def dashes(mask: NDArray[np.bool_], *, width: int = 1) -> NDArray[np.bool_]:
    """Every other piece of the contour of a mask: `DASH_PX` drawn, `GAP_PX` left out, from a dash on.

    Beyond the border of the picture is outside.
    """
    from skimage.measure import find_contours

    padded = np.pad(mask, 1)
    drawn = np.zeros_like(padded)
    for path in find_contours(padded.astype(np.float32), 0.5):
        lower, upper = np.floor(path).astype(int), np.ceil(path).astype(int)
        inside = np.where(padded[tuple(lower.T)][:, None], lower, upper)  # a point lies between a pixel inside and one outside
        steps = np.linalg.norm(np.diff(path, axis=0, prepend=path[:1]), axis=1).cumsum()
        on = inside[steps % (DASH_PX + GAP_PX) < DASH_PX]
        drawn[tuple(on.T)] = True
    for _ in range(width - 1):
        drawn = dilate(drawn)
    return drawn[1:-1, 1:-1] & contour(mask, width=width)


def dilate(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A mask (Y, X) with the pixels above, below, left and right of it."""
    padded = np.pad(mask, 1)
    return mask | padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]


def enlarge(plane: NDArray, shape: tuple[int, int]) -> NDArray:
    """Nearest-neighbour enlargement of a label slice; every pixel takes the voxel that its centre lies in."""
    rows, columns = ((np.arange(size) * 2 + 1) * plane.shape[a] // (2 * size) for a, size in enumerate(shape))
    return plane[rows[:, None], columns[None, :]]


def resize(pixels: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """A picture (Y, X, 3) with `shape` rows and columns, smoothly."""
    resized = PillowImage.fromarray(pixels).resize((shape[1], shape[0]), PillowImage.Resampling.BICUBIC)
    return np.array(resized)


def draw_letters(pixels: NDArray[np.uint8], letters: Letters) -> NDArray[np.uint8]:
    """The picture with letters in the middle of its top, right, bottom and left border."""
    height, width = pixels.shape[:2]
    places = (((width / 2, MARGIN_PX), "mt"), ((width - MARGIN_PX, height / 2), "rm"),
              ((width / 2, height - MARGIN_PX), "mb"), ((MARGIN_PX, height / 2), "lm"))
    canvas = PillowImage.fromarray(pixels)
    for letter, (place, anchor) in zip(letters, places, strict=True):
        _write(canvas, place, letter, anchor, WHITE, FONT_PX)
    return np.array(canvas)


def draw_text(pixels: NDArray[np.uint8], text: str) -> NDArray[np.uint8]:
    """The picture with a text in its upper left corner."""
    canvas = PillowImage.fromarray(pixels)
    _write(canvas, (MARGIN_PX, MARGIN_PX), text, "lt", WHITE, FONT_PX)
    return np.array(canvas)


def draw_scale_bar(pixels: NDArray[np.uint8], length_px: int, text: str) -> NDArray[np.uint8]:
    """The picture with a bar of `length_px` white pixels in its lower left corner, and its length above it."""
    canvas = PillowImage.fromarray(pixels)
    draw = ImageDraw.Draw(canvas)
    left, top = 2 * MARGIN_PX, pixels.shape[0] - 2 * MARGIN_PX - 1
    draw.rectangle((left - 1, top - 1, left + length_px, top + BAR_HEIGHT_PX), fill=BLACK)
    draw.rectangle((left, top, left + length_px - 1, top + BAR_HEIGHT_PX - 1), fill=WHITE)
    _write(canvas, (left, top - MARGIN_PX), text, "lb", WHITE, FONT_PX)
    return np.array(canvas)


def draw_numbers(pixels: NDArray[np.uint8], masks: Mapping[int, NDArray[np.bool_]],
                 colours: Sequence[Colour]) -> NDArray[np.uint8]:
    """The picture with the number of each structure in its thickest place; one that would cover another is left out.

    Args:
        masks: (Y, X) by place in the legend, from 0; the number drawn is one more. Large structures go first.
    """
    from scipy.ndimage import distance_transform_edt

    canvas = PillowImage.fromarray(pixels)
    taken: list[tuple[float, float, float, float]] = []
    for place, mask in sorted(masks.items(), key=lambda entry: (-np.count_nonzero(entry[1]), entry[0])):
        if not mask.any():
            continue
        depth = distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
        row, column = np.unravel_index(int(np.argmax(depth)), mask.shape)
        middle = (float(column), float(row))
        box = ImageDraw.Draw(canvas).textbbox(middle, str(place + 1), font=_font(NUMBER_PX), anchor="mm", stroke_width=1)
        if all(box[2] <= b[0] or b[2] <= box[0] or box[3] <= b[1] or b[3] <= box[1] for b in taken):
            taken.append(box)
            _write(canvas, middle, str(place + 1), "mm", lighter(colours[place], 0.5), NUMBER_PX)
    return np.array(canvas)


def lighter(colour: Colour, whiteness: float) -> Colour:
    """A colour mixed with white: 0 leaves it, 1 is white."""
    red, green, blue = (round(value + (255 - value) * whiteness) for value in colour)
    return red, green, blue


def captioned(pixels: NDArray[np.uint8], lines: Sequence[tuple[str, Colour]]) -> NDArray[np.uint8]:
    """The picture with lines of text below it, each in its colour, broken between words where they are wider than the picture.

    A narrow picture gets room beside it, so that words fit.
    """
    width = max(pixels.shape[1], NARROWEST_CAPTION_PX)
    broken = [(part, colour) for text, colour in lines for part in _broken(text, width - 2 * MARGIN_PX)]
    canvas = PillowImage.new("RGB", (width, pixels.shape[0] + 2 * MARGIN_PX + CAPTION_LINE_PX * len(broken)), CAPTION_GROUND)
    canvas.paste(PillowImage.fromarray(pixels), (0, 0))
    for place, (text, colour) in enumerate(broken):
        _write(canvas, (MARGIN_PX, pixels.shape[0] + MARGIN_PX + place * CAPTION_LINE_PX), text, "la", colour, NUMBER_PX)
    return np.array(canvas)


def _broken(text: str, width: int) -> list[str]:
    """Lines of whole words that are no wider than `width` pixels, where words are not."""
    font, lines = _font(NUMBER_PX), [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def encode_png(pixels: NDArray[np.uint8], *, quickly: bool = False) -> bytes:
    """A picture (Y, X, 3) as the bytes of a PNG file, as few as can be or, `quickly`, a little more in a fifth of the time."""
    stream = io.BytesIO()
    PillowImage.fromarray(pixels).save(stream, format="PNG", optimize=not quickly)
    return stream.getvalue()


def _write(canvas: PillowImage.Image, place: tuple[float, float], text: str, anchor: str, colour: Colour, size: int) -> None:
    ImageDraw.Draw(canvas).text(place, text, fill=colour, font=_font(size), anchor=anchor, stroke_width=1, stroke_fill=BLACK)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
