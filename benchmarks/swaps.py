"""How many single cases with two swapped channels would be found in prediction, and how many sound ones suspected.

    python -m benchmarks.swaps --data DATASET_FOLDER

Without labels, which a case to predict has none of: each case beside all others and beside all but one of them, as it is and
in other appearances (gamma, bias field, noise, field of view, sharpness), as it is and swapped. Takes two minutes for six cases.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from autoseg.core.profiles import ChannelProfile, find_suspects, measure_profile
from autoseg.io.dataset import scan
from autoseg.io.images import read_image
from autoseg.io.specs import load_spec
from benchmarks.measure import begin

Profiles = list[ChannelProfile]
REPEATS, SEED = 6, 0


def gamma(channel: NDArray, rng: np.random.Generator) -> NDArray:
    return channel ** math.exp(rng.uniform(math.log(0.7), math.log(1.5)))


def bias_field(channel: NDArray, rng: np.random.Generator) -> NDArray:
    """A field of second order that changes intensities by up to half."""
    axes = np.meshgrid(*(np.linspace(-1, 1, size) for size in channel.shape), indexing="ij", sparse=True)
    field = sum(rng.normal() * axis + rng.normal() * axis**2 for axis in axes)
    return channel * np.exp(0.4 * field / np.abs(field).max())


def noise(channel: NDArray, rng: np.random.Generator) -> NDArray:
    return np.where(channel > 0, channel + rng.normal(0, 0.03, channel.shape), channel)


def field_of_view(channel: NDArray, rng: np.random.Generator) -> NDArray:
    starts, stops = rng.uniform(0, 0.3, 3), rng.uniform(0.7, 1, 3)
    return channel[tuple(slice(int(start * size), int(stop * size))
                         for start, stop, size in zip(starts, stops, channel.shape, strict=True))]


def smoothed(channel: NDArray, rng: np.random.Generator) -> NDArray:
    return gaussian_filter(channel, rng.uniform(0.5, 1.5))


APPEARANCES: tuple[Callable[[NDArray, np.random.Generator], NDArray], ...] = (gamma, bias_field, noise, field_of_view, smoothed)


def appearances(image: NDArray, rng: np.random.Generator) -> Iterator[tuple[str, Profiles]]:
    """Profiles of an image (C, Z, Y, X) as it is, and of others that it might have been."""
    yield "as it is", [measure_profile(channel) for channel in image]
    for change in APPEARANCES:
        for _ in range(REPEATS):
            shares = ((channel - channel.min()) / np.ptp(channel) for channel in image)
            yield change.__name__, [measure_profile(change(share, rng)) for share in shares]


def is_suspected(case: Profiles, others: Sequence[Profiles]) -> bool:
    return any(suspect.case == len(others) for suspect in find_suspects([*others, case]))


def main() -> None:
    begin()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="a dataset of two channels")
    folder = parser.parse_args().data
    rng, spec = np.random.default_rng(SEED), load_spec(str(folder))
    images = [read_image(case.inputs[spec.inputs[0].role], notes=[]).voxels for case in scan(spec, folder).cases]
    found = [list(appearances(image, rng)) for image in images]
    known = [entries[0][1] for entries in found]
    for fewer in (0, 1):
        counts: dict[str, list[tuple[bool, bool]]] = {}
        for place, entries in enumerate(found):
            for others in combinations(known[:place] + known[place + 1:], len(known) - 1 - fewer):
                for name, case in entries:
                    counts.setdefault(name, []).append((is_suspected(case, others), is_suspected(case[::-1], others)))
        for name, pairs in counts.items():
            wrongly, rightly = (sum(column) for column in zip(*pairs, strict=True))
            print(f"{len(known) - 1 - fewer} other cases, {name:13}: {wrongly:3} of {len(pairs)} sound ones suspected, "
                  f"{rightly:3} of {len(pairs)} swapped ones found", flush=True)


if __name__ == "__main__":
    main()
