"""Colours of labels that stay apart on grey, also for colour-blind readers."""

from __future__ import annotations

from functools import cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Colour: TypeAlias = tuple[int, int, int]

# Okabe and Ito 2008 (colours that colour-blind readers can tell apart), without black, the most vivid on grey first.
OKABE_ITO: tuple[Colour, ...] = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (204, 121, 167), (240, 228, 66), (213, 94, 0),
                                 (0, 114, 178))
# Linear RGB as seen without the cones for red, and without those for green, which are nearly all cases of colour
# blindness. Machado, Oliveira and Fernandes 2009, table 1, severity 1.
PROTANOPIA = ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998))
DEUTERANOPIA = ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881))
# Further colours are picked from a grid of this many steps per primary; finer ones change no choice that can be seen.
GRID_STEPS = 9
# CIELAB lightness from which a thin line stands out on a dark picture, and above which it looks white like the letters.
LIGHTNESS = (40.0, 92.0)


@cache
def label_colours(count: int) -> tuple[Colour, ...]:
    """As many different colours: those of Okabe and Ito, then each time the one farthest from all before.

    Distance: the smallest CIELAB difference (CIE 1976) that a reader with normal sight, without red and without green cones
    sees. The grey of the picture counts as a colour to stay away from.
    """
    if count <= len(OKABE_ITO):
        return OKABE_ITO[:count]
    steps = np.linspace(0, 255, GRID_STEPS).round().astype(int)
    candidates = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    lightness = seen(candidates)[0, :, 0]
    candidates = candidates[(lightness >= LIGHTNESS[0]) & (lightness <= LIGHTNESS[1])]
    views = seen(candidates)
    taken = [*OKABE_ITO, *((grey, grey, grey) for grey in (64, 128, 192))]
    nearest = np.min([differences(views, seen(np.array([colour]))) for colour in taken], axis=0)
    chosen = list(OKABE_ITO)
    while len(chosen) < count:
        place = int(np.argmax(nearest))
        chosen.append(_colour(candidates[place]))
        nearest = np.minimum(nearest, differences(views, views[:, place:place + 1]))
    return tuple(chosen)


def seen(colours: NDArray) -> NDArray[np.float64]:
    """CIELAB (3 readers, n, 3) of sRGB colours (n, 3) in 0..255: normal sight, no red cones, no green cones."""
    from skimage.color import rgb2lab

    rgb = colours / 255.0
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)  # IEC 61966-2-1
    views = []
    for matrix in (np.eye(3), PROTANOPIA, DEUTERANOPIA):
        light = np.clip(linear @ np.asarray(matrix).T, 0.0, 1.0)
        views.append(rgb2lab(np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)))
    return np.stack(views)


def differences(views: NDArray, others: NDArray) -> NDArray[np.float64]:
    """Smallest difference (n,) over the readers between colours seen as (3, n, 3) and as (3, n or 1, 3)."""
    return np.linalg.norm(views - others, axis=-1).min(axis=0)


def _colour(values: NDArray) -> Colour:
    return int(values[0]), int(values[1]), int(values[2])
