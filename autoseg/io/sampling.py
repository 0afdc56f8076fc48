"""What a few files of an unknown folder hold: label values, number of channels, Hounsfield units."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoseg.core.errors import AutosegError
from autoseg.core.modality import intensity_kind
from autoseg.io.images import Accepted, grids_agree, picture_ending, read_image, read_label_map
from autoseg.io.images.endings import VOLUME_ENDINGS

# Label maps that are opened: enough to meet a label that every seventh case has with 95 % probability.
SAMPLED_LABELS = 20
# Images that are opened per channel; scanners differ, but Hounsfield units are the same everywhere.
SAMPLED_IMAGES = 3
# Largest number of values in a label map; more are numbers of instances, or intensities. TotalSegmentator's 117 labels of
# one map are the most that a public dataset has in common use.
MOST_LABELS = 128


@dataclass(frozen=True)
class Content:
    """What the files of one channel pattern hold.

    Attributes:
        channels: in every file.
        is_colour: the channels are red, green and blue.
        is_grey_in_colour: they are equal everywhere, so that one is enough.
        is_ct: values are Hounsfield units, by their range.
    """

    channels: int
    is_colour: bool
    is_grey_in_colour: bool
    is_ct: bool


def spread(paths: Sequence[Path], count: int) -> list[Path]:
    """Up to `count` of the paths, evenly from first to last."""
    places = np.linspace(0, len(paths) - 1, min(count, len(paths))).round().astype(int)
    return [paths[place] for place in dict.fromkeys(places.tolist())]


def label_values(paths: Sequence[Path]) -> tuple[Counter[int], int]:
    """In how many of the label maps each value other than 0 occurs, and how many could be read.

    Raises:
        AutosegError: none can be read; that of the first.
    """
    found: Counter[int] = Counter()
    errors = []
    for path in paths:
        try:
            found.update(int(value) for value in np.unique(read_label_map(path).voxels) if value != 0)
        except AutosegError as error:
            errors.append(error)
    if errors and len(errors) == len(paths):
        raise errors[0]
    return found, len(paths) - len(errors)


def looks_like_labels(paths: Sequence[Path]) -> bool:
    """True when all files hold few whole numbers from 0 up, in one channel."""
    try:
        maps = [read_label_map(path).voxels for path in paths]
    except AutosegError:
        return False
    values = np.unique(np.concatenate([np.unique(label) for label in maps]))
    # A photograph in grey has up to 256 values, and of many different ones hardly any repeats in neighbours.
    return bool(values.min() == 0 and len(values) <= MOST_LABELS and all(_is_patchy(label) for label in maps))


def content_of(paths: Sequence[Path], *, lossy: bool = False) -> Content:
    """What the images hold; `lossy`: JPEG files are read too.

    Raises:
        AutosegError: one cannot be read.
    """
    images = [read_image([path], accepted=Accepted(lossy), notes=[]).voxels for path in paths]
    is_colour = len(images[0]) == 3 and picture_ending(paths[0]) not in VOLUME_ENDINGS
    is_grey = is_colour and all((voxels == voxels[:1]).all() for voxels in images)
    return Content(len(images[0]), is_colour, bool(is_grey), len(images[0]) == 1 and all(map(_is_ct, images)))


def same_grid(path: Path, other: Path) -> bool:
    """True when both files can be read and lie on one grid."""
    try:
        return grids_agree(path, other)
    except AutosegError:
        return False


def _is_patchy(label: np.ndarray) -> bool:
    """True when at least nine of ten neighbours along x are equal, as inside regions; noise and tissue differ."""
    return bool((label[..., 1:] == label[..., :-1]).mean() >= 0.9) if label.shape[-1] > 1 else True


def _is_ct(voxels: np.ndarray) -> bool:
    """Whole numbers with air and soft tissue where a CT in Hounsfield units has them."""
    return np.array_equal(voxels, np.rint(voxels)) and intensity_kind(voxels) == "hounsfield"
