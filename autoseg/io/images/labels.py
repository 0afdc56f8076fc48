"""Which integers a stored label map means: palettes, colours, masks of 0 and 255, floats."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autoseg.core.errors import ReadError
from autoseg.io.images.channels import is_grey, require_opaque
from autoseg.io.images.stored import Note, StoredImage

_LABEL_TYPES = (np.uint8, np.int16, np.uint16, np.int32)
# Label maps that went through a float format or a scale factor: farther from an integer they were interpolated.
_LABEL_TOLERANCE = 1e-4
# White in masks that are meant to be looked at: the largest value of 8 and of 16 bits.
_WHITE = (255, 65535)
# Colours that a message lists; more would bury the sentence.
_LISTED = 5


def label_integers(path: Path, file: StoredImage, values: Collection[int] | None, notes: list[Note]) -> NDArray:
    """The labels (1, Z, Y, X) that a file holds, in the smallest integer type.

    - A palette image holds its indices, or its grey levels where all colours in use are grey; of both the one that the
      specification lists.
    - Red, green and blue that are equal everywhere are one channel.
    - A mask of nothing but 0 and white (255, or 65535 in 16 bits) is 0 and 1 where the specification has exactly one
      label, of value 1.
    - Nothing else is reinterpreted: values are what the file says.

    Args:
        values: those of the specification's labels; None: no specification, so neither grey levels nor white are tried.
        notes: receives that values were rounded.
    Raises:
        ReadError: colours, transparency, several channels, values that are not integers, or a palette that can be read
            in two ways.
    """
    if file.palette is not None:
        return _from_palette(path, file, values)
    require_opaque(path, file)
    if file.is_colour and not is_grey(file.voxels):
        raise ReadError(f"{path} is a colour image, with {_colour_text(file.voxels)} (red, green, blue); a label map has "
                        "one channel of whole numbers. Give each colour its number and save it as 8-bit greyscale",
                        code="E_LABEL_COLOUR")
    channels = file.voxels[:1] if file.is_colour else file.voxels
    if len(channels) != 1:
        raise ReadError(f"{path} has {len(channels)} channels; a label map has one", code="E_CHANNELS")
    label = _integers(path, channels)
    if channels.dtype.kind == "f" and (changed := int(np.count_nonzero(label != channels))):
        notes.append(Note("W_LABEL_ROUNDED", f"{changed} voxels of the label map were not quite integers and were rounded, by at "
                          f"most {_LABEL_TOLERANCE:g}"))
    return _white_as_one(label, values)


def smallest_type(label: NDArray, path: Path) -> type[np.integer]:
    """The smallest of the types of label maps that holds all values.

    Raises:
        ReadError: they do not fit into 32 bits.
    """
    low, high = (label.min(), label.max()) if label.size else (0, 0)
    for kind in _LABEL_TYPES:
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return kind
    raise ReadError(f"{path}: label values from {low} to {high} do not fit into 32 bits", code="E_LABEL_VALUE")


def require_up_to(largest: int, label: NDArray, path: Path, holder: str) -> None:
    """Raises a ReadError where values of a label map that is to be written are negative or beyond what its format holds."""
    if label.min() < 0 or label.max() > largest:
        raise ReadError(f"{path}: {holder} holds label values from 0 to {largest}, found {label.min()} to {label.max()}; change "
                        "the values in the specification and the references", code="E_LABEL_VALUE")


def _from_palette(path: Path, file: StoredImage, values: Collection[int] | None) -> NDArray:
    indices = _integers(path, file.voxels)
    used = np.unique(indices)
    colours = file.palette[used] if file.palette is not None and used[-1] < len(file.palette) else None
    if values is None or colours is None or (colours != colours[:, :1]).any():
        return indices
    levels = _white_as_one(_integers(path, file.palette[:, 0][file.voxels]), values)  # type: ignore[index]
    fits = [set(np.unique(reading).tolist()) <= {0, *values} for reading in (indices, levels)]
    if fits == [True, True] and not np.array_equal(indices, levels):
        pairs = ", ".join(f"{index} = grey {colour[0]}" for index, colour in list(zip(used, colours, strict=True))[:_LISTED])
        raise ReadError(f"{path} has a palette ({pairs}) that can be read in two ways: by index or by grey level, and the "
                        "specification lists both. Save it as 8-bit greyscale with the label values",
                        code="E_LABEL_PALETTE")
    return levels if fits == [False, True] else indices


def _white_as_one(label: NDArray, values: Collection[int] | None) -> NDArray:
    if values is None or set(values) != {1} or not label.size or label.max() not in _WHITE:
        return label
    white = label == label.max()
    return white.astype(np.uint8) if not label[~white].any() else label


def _integers(path: Path, values: NDArray) -> NDArray:
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            raise ReadError(f"{path}: a label map must not hold nan or infinite values", code="E_NONFINITE")
        rounded = np.rint(values)
        wrong = np.abs(values - rounded) > _LABEL_TOLERANCE
        if wrong.any():
            raise ReadError(f"{path}: {np.count_nonzero(wrong)} voxels of the label map are not integers, for example "
                            f"{float(values[wrong][0]):g}; it may have been resampled with interpolation", code="E_LABEL_VALUE")
        values = rounded
    return values.astype(smallest_type(values, path), copy=False)


def _colour_text(voxels: NDArray) -> str:
    colours, counts = np.unique(voxels.reshape(3, -1), axis=1, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:_LISTED]
    listed = ", ".join(f"{tuple(int(v) for v in colours[:, place])} in {counts[place]} pixels" for place in order)
    return listed + (f" and {len(counts) - _LISTED} more" if len(counts) > _LISTED else "")
