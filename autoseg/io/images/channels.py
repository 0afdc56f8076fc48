"""The channels of stored images: colours, palettes, and opacity that does not belong to them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autoseg.core.errors import ReadError
from autoseg.io.images.stored import STRICTLY, Accepted, Note, StoredImage

# Weights of red, green and blue in luma (ITU-R BT.601-7, section 2.5.1), as Pillow and OpenCV convert to grey.
_LUMA = (0.299, 0.587, 0.114)
_GREY_IN_COLOURS = Note("W_GREY", "the file has three equal channels, which are read as one of grey")
_COLOURS_TO_GREY = Note("W_LUMINANCE", "the file has colours, of which the luminance is read, as the specification says")


def image_channels(paths: Sequence[Path], files: Sequence[StoredImage], expected: int | None, *,
                   accepted: Accepted = STRICTLY, notes: list[tuple[Path, Note]] | None = None) -> list[NDArray]:
    """The channels (C, Z, Y, X) of every file, in order; together `expected` of them.

    Opacity (alpha) is left out when it is the same everywhere; where a specification expects one channel more it is that
    channel, as in nnU-Net. A colour image whose red, green and blue are equal is one grey channel where one is expected,
    and so is the luminance of any colour image where that is accepted.

    Args:
        notes: receives which files were taken as grey.
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
        merged = [_grey(channels, accepted) if _is_colour(file) else (channels, None)
                  for channels, file in zip(found, files, strict=True)]
        if sum(len(channels) for channels, _ in merged) != expected:
            raise ReadError(f"{', '.join(map(str, paths))}: {sum(map(len, found))} channels found, {expected} expected"
                            + _advice(files), code="E_CHANNELS")
        if notes is not None:
            notes += [(path, note) for path, (_, note) in zip(paths, merged, strict=True) if note is not None]
        return [channels for channels, _ in merged]
    return found


def _grey(channels: NDArray, accepted: Accepted) -> tuple[NDArray, Note | None]:
    """One channel (1, Z, Y, X) of three colours, and what was done; all three where neither way is open."""
    if is_grey(channels):
        return channels[:1], _GREY_IN_COLOURS
    if not accepted.luminance or len(channels) != 3:
        return channels, None
    luma = sum(weight * channel.astype(np.float32) for weight, channel in zip(_LUMA, channels, strict=True))
    return np.rint(luma)[None].astype(channels.dtype), _COLOURS_TO_GREY


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
    return (". A colour image has three: write `channels: [red, green, blue]` with one file pattern in the specification; or, "
            "for grey images of which some carry colours (a marker, a tint), `colour: luminance` at the input")
