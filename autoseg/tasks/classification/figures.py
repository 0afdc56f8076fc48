"""Pictures of a unit for the report: the image with what was said of it beside."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from autoseg.core.image import Image
from autoseg.core.spec import DatasetSpec
from autoseg.core.task import Legend, Picture
from autoseg.ops.crop import whole_box
from autoseg.planning.normalization import SCHEME_OF_NAME
from autoseg.reporting.contrast import choose_backdrop
from autoseg.reporting.drawing import draw_text, resize
from autoseg.tasks.classification.kinds import Kind
from autoseg.tasks.classification.target import Answer, Reading

# Height of a picture in pixels, and the room for bars beside it.
HEIGHT, BARS = 300, 260
BAR, LINE, GAP = 24, 32, 8
# Classes whose bars are drawn, the most probable first.
MOST_BARS = 8
SAID, TRUE, EMPTY, PAPER = (70, 130, 180), (46, 139, 87), (90, 90, 90), (30, 30, 30)


def draw_figures(prediction: Answer, target: Answer | None, image: Image, spec: DatasetSpec) -> tuple[Picture, ...]:
    """One picture: the middle slice (of a volume along each axis), and a bar for every class, green where it is the truth."""
    names, ct = channels_of(spec)
    nothing = np.zeros(image.geometry.shape, np.uint8)
    backdrop = choose_backdrop(image.voxels, names, ct, nothing, (), whole_box(image.geometry.shape))
    axes = [0] if image.geometry.shape[0] == 1 else [0, 1, 2]
    views = [_scaled(_colour(backdrop.slice(axis, image.geometry.shape[axis] // 2)), image, axis) for axis in axes]
    pixels = np.concatenate([*views, _bars(prediction, target)], axis=1)
    caption = "; ".join(describe_reading(reading, None if target is None else target.reading(reading.name))
                        for reading in prediction.readings)
    legend = Legend((("predicted", SAID), ("predicted, and true", TRUE)), ("Bars are probabilities, from 0 to 1.",))
    return (Picture(pixels, caption, legend),)


def channels_of(spec: DatasetSpec) -> tuple[list[str], list[bool]]:
    """Of every channel of the first input its name, and whether it holds HU."""
    channels = [channel for entry in spec.inputs[:1] for channel in entry.channels]
    ct = [(SCHEME_OF_NAME.get(channel.name.casefold()) if channel.normalization == "auto" else channel.normalization) == "ct"
          for channel in channels]
    return [channel.name for channel in channels], ct


def describe_reading(said: Reading, true: Reading | None) -> str:
    """What was said of a target and what is true, in words."""
    if said.kind == Kind.CONTINUOUS:
        truth = "" if true is None or not true.is_known else f", true {true.value:.4g}"
        return f"{said.name}: {said.value:.4g}{truth}"
    decided = _names(said)
    chance = "" if said.kind == Kind.MULTILABEL else f" ({said.probabilities[said.decided[0]]:.3f})"
    truth = "" if true is None or not true.is_known else f", true {_names(true)}"
    return f"{said.name}: {decided}{chance}{truth}"


def _names(reading: Reading) -> str:
    return ", ".join(reading.classes[place] for place in reading.decided) or "none"


def _colour(plane: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return plane if plane.ndim == 3 else np.repeat(plane[:, :, None], 3, axis=2)


def _scaled(plane: NDArray[np.uint8], image: Image, axis: int) -> NDArray[np.uint8]:
    """The slice in millimetres that are square, `HEIGHT` pixels high."""
    rows_mm, columns_mm = (image.geometry.spacing_mm[other] for other in range(3) if other != axis)
    width = round(HEIGHT * plane.shape[1] * columns_mm / (plane.shape[0] * rows_mm))
    return resize(plane, (HEIGHT, min(max(width, HEIGHT // 4), 2 * HEIGHT)))


def _bars(prediction: Answer, target: Answer | None) -> NDArray[np.uint8]:
    """(HEIGHT, BARS, 3): names and bars of the most probable classes of all targets, from the top."""
    pixels = np.full((HEIGHT, BARS, 3), PAPER, np.uint8)
    top = GAP
    for reading in prediction.readings:
        true = None if target is None else target.reading(reading.name)
        for name, share in _most_probable(reading):
            if top + LINE > HEIGHT:
                return pixels
            is_true = true is not None and name in [true.classes[place] for place in true.decided]
            pixels[top:top + BAR] = _bar(share, TRUE if is_true else SAID)
            pixels[top:top + LINE] = draw_text(pixels[top:top + LINE], f"{name} {share:.3f}")
            top += LINE
    return pixels


def _most_probable(reading: Reading) -> list[tuple[str, float]]:
    pairs = zip(reading.classes, reading.probabilities, strict=True) if reading.kind != Kind.CONTINUOUS else ()
    return sorted(pairs, key=lambda pair: -pair[1])[:MOST_BARS]


def _bar(share: float, colour: tuple[int, int, int]) -> NDArray[np.uint8]:
    bar = np.full((BAR, BARS, 3), PAPER, np.uint8)
    length = BARS - 2 * GAP
    bar[:, GAP:GAP + length] = EMPTY
    bar[:, GAP:GAP + round(length * share)] = colour
    return bar
