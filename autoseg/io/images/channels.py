"""The channels of stored images: colours, palettes, and opacity that does not belong to them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autoseg.core.errors import ReadError
from autoseg.io.images.stored import StoredImage


def image_channels(paths: Sequence[Path], files: Sequence[StoredImage], expected: int | None) -> list[NDArray]:
    """The channels (C, Z, Y, X) of every file, in order; together `expected` of them.

    Opacity (alpha) is left out when it is the same everywhere; where a specification expects one channel more it is that
    channel, as in nnU-Net. A colour image whose red, green and blue are equal is one grey channel where one is expected.

    Raises:
        ReadError: another number of channels, or opacity that differs between pixels.
    """
    with_alpha = sum(_count(file) + (file.alpha is not None) for file in files)
    if with_alpha == expected:
        return [_with_alpha(path, file) for path, file in zip(paths, files, strict=True)]
    for path, file in zip(paths, files, strict=True):
        require_opaque(path, file)
    found = [_colours(path, file) for path, file in zip(paths, files, strict=True)]
    if expected not in (None, sum(map(len, found))):
        merged = [channels[:1] if _is_colour(file) and is_grey(channels) else channels
                  for channels, file in zip(found, files, strict=True)]
        if sum(map(len, merged)) != expected:
            raise ReadError(f"{', '.join(map(str, paths))}: {sum(map(len, found))} channels found, {expected} expected"
                            + _advice(files), code="E_CHANNELS")
        return merged
    return found


def require_opaque(path: Path, file: StoredImage) -> None:
    """Raises a ReadError where opacity differs between pixels: the colour below a transparent pixel is not defined."""
    if file.alpha is not None and file.alpha.min() != file.alpha.max():
        raise ReadError(f"{path} has an alpha channel with values from {file.alpha.min()} to {file.alpha.max()}, so that "
                        "some pixels are transparent; flatten it onto a background and save it without alpha",
                        code="E_ALPHA")


def is_grey(channels: NDArray) -> bool:
    """True when all channels (C, Z, Y, X) are equal."""
    return bool((channels[1:] == channels[:1]).all())


def _count(file: StoredImage) -> int:
    return 3 if file.palette is not None else len(file.voxels)


def _is_colour(file: StoredImage) -> bool:
    return file.is_colour or file.palette is not None


def _with_alpha(path: Path, file: StoredImage) -> NDArray:
    colours = _colours(path, file)
    return colours if file.alpha is None else np.concatenate([colours, file.alpha[None]])


def _colours(path: Path, file: StoredImage) -> NDArray:
    if file.palette is None:
        return file.voxels * file.voxels.dtype.type(file.step) if file.step > 1 else file.voxels
    if file.voxels.max() >= len(file.palette):
        raise ReadError(f"{path}: a pixel has colour {file.voxels.max()} of a palette with {len(file.palette)} colours; "
                        "the file is damaged, copy or download it again", code="E_DAMAGED")
    return np.moveaxis(file.palette[file.voxels[0]], -1, 0)


def _advice(files: Sequence[StoredImage]) -> str:
    if not any(_is_colour(file) for file in files):
        return ""
    return ". A colour image has three: write `channels: [red, green, blue]` with one file pattern in the specification"
