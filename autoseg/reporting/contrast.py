"""Which channel a picture shows, and which intensities become black and white."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoseg.core.geometry import Box
from autoseg.ops.crop import crop
from autoseg.reporting.anatomy import view
from autoseg.reporting.numbers import short_number

WINDOW_PERCENTILES = (0.5, 99.5)
# Black and white of a radiologist's windows in HU, the narrowest first (Radiopaedia, "Windowing (CT)": width and level
# 80, 40; 400, 50; 1500, -600; 1800, 400).
CT_WINDOWS = {"brain": (0.0, 80.0), "soft-tissue": (-150.0, 250.0), "lung": (-1350.0, 150.0), "bone": (-500.0, 1300.0)}
# Share of the labelled voxels that a window must show as a grey between black and white.
SHOWN_SHARE = 0.9
# Intensities from which percentiles are taken; they then vary by less than a hundredth of a grey step.
SAMPLES = 4_000_000
COLOUR_CHANNELS = 3
COLOUR_LIMIT = 255.0


@dataclass(frozen=True)
class Backdrop:
    """What lies behind the contours.

    Attributes:
        channels: (1, Z, Y, X) shown in grey, or (3, Z, Y, X) shown as red, green and blue.
        window: intensities that become black and white.
        note: what is shown, for the caption.
    """

    channels: NDArray
    window: tuple[float, float]
    note: str

    def slice(self, axis: int, index: int) -> NDArray[np.uint8]:
        """Red, green and blue (rows, columns, 3) of the slice across `axis`, as it is looked at."""
        planes = [grey(view(channel, axis, index), self.window) for channel in self.channels]
        return np.stack(planes * (COLOUR_CHANNELS // len(planes)), axis=-1)


def choose_backdrop(voxels: NDArray, names: Sequence[str], ct: Sequence[bool], labels: NDArray,
                    structures: Sequence[Sequence[int]], around: Box) -> Backdrop:
    """The backdrop of a case: the image in colour, or the one channel in which the structures stand out most.

    Args:
        voxels: (C, Z, Y, X).
        names, ct: of every channel: its name, and whether it holds HU.
        labels: label indices (Z, Y, X).
        structures: the indices of each structure.
        around: the part of the image in which the structures are compared with what surrounds them.
    """
    if is_colour(voxels):
        return Backdrop(voxels, (0.0, COLOUR_LIMIT), "in colour")
    near = crop(labels, around)
    place = 0 if len(voxels) == 1 else int(np.argmax([contrast(crop(channel, around), near, structures) for channel in voxels]))
    channel = voxels[place]
    if ct[place]:
        indices = [index for structure in structures for index in structure]
        window, note = ct_window(crop(channel, around)[np.isin(near, indices)], sampled(channel))
    else:
        window = percentiles(sampled(channel))
        note = f"grey from {short_number(window[0])} to {short_number(window[1])}"
    return Backdrop(channel[None], window, note if len(voxels) == 1 else f"{names[place]}, {note}")


def is_colour(voxels: NDArray) -> bool:
    """Three channels of one slice with values from 0 to 255: red, green and blue of a photograph or a stained section."""
    return (len(voxels) == COLOUR_CHANNELS and min(voxels.shape[1:]) == 1 and float(voxels.min()) >= 0.0
            and 1.0 < float(voxels.max()) <= COLOUR_LIMIT)


def contrast(channel: NDArray, labels: NDArray, structures: Sequence[Sequence[int]]) -> float:
    """Mean over the structures of the difference between inside and outside, in standard deviations (Cohen's d).

    0 where no structure has both.
    """
    found = []
    for indices in structures:
        inside = np.isin(labels, indices)
        if inside.any() and not inside.all():
            one, other = channel[inside].astype(np.float64), channel[~inside].astype(np.float64)
            spread = np.sqrt((one.var() + other.var()) / 2)
            found.append(abs(one.mean() - other.mean()) / spread if spread > 0 else 0.0)
    return float(np.mean(found)) if found else 0.0


def ct_window(labelled: NDArray, anywhere: NDArray) -> tuple[tuple[float, float], str]:
    """Black and white in HU and what to call it: the narrowest window that shows the labelled voxels.

    Soft tissue where nothing is labelled; the range of the image where no window shows half of the labelled voxels.
    """
    if not len(labelled):
        chosen = "soft-tissue"
    else:
        shares = {name: float(np.mean((labelled >= low) & (labelled <= high))) for name, (low, high) in CT_WINDOWS.items()}
        enough = [name for name, share in shares.items() if share >= SHOWN_SHARE]
        chosen = enough[0] if enough else max(shares, key=lambda name: shares[name])
        if shares[chosen] < 0.5:
            window = percentiles(anywhere)
            return window, f"CT, grey from {window[0]:.0f} to {window[1]:.0f} HU"
    low, high = CT_WINDOWS[chosen]
    return (low, high), f"CT, {chosen} window {low:.0f} to {high:.0f} HU"


def percentiles(values: NDArray) -> tuple[float, float]:
    """Black and white at `WINDOW_PERCENTILES`; the extremes where these are equal."""
    low, high = np.percentile(values, WINDOW_PERCENTILES)
    return (float(low), float(high)) if high > low else (float(values.min()), float(values.max()))


def sampled(channel: NDArray) -> NDArray:
    """Evenly spaced voxels, about `SAMPLES` at most, without the value that fills the border where that is the lowest.

    Air that was set to one value would otherwise push the percentiles of a small head in a large image together.
    """
    step = max(1, int(np.ceil((channel.size / SAMPLES) ** (1 / 3))))
    values = channel[::step, ::step, ::step].ravel()
    inside = values[values > values.min()]
    return inside if len(inside) else values


def grey(plane: NDArray, window: tuple[float, float]) -> NDArray[np.uint8]:
    """Grey values 0..255 of intensities; all black where the window is empty."""
    low, high = window
    scale = 255.0 / (high - low) if high > low else 0.0
    return np.rint(np.clip((plane.astype(np.float64) - low) * scale, 0.0, 255.0)).astype(np.uint8)
