"""One door for all image formats; the ending of a file name says which format it is."""

from __future__ import annotations

import logging
import stat
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autoseg.core.errors import GeometryError, ReadError
from autoseg.core.geometry import Geometry, canonical_orientation
from autoseg.core.image import Image
from autoseg.core.spec import InputSpec
from autoseg.io.atomic import replacing, sha256_bytes
from autoseg.io.images.channels import image_channels
from autoseg.io.images.endings import (
    ENTRY_ENDING,
    ITK_ENDINGS,
    JPEG_ENDINGS,
    NIFTI_ENDINGS,
    RASTER_ENDINGS,
    TIFF_ENDINGS,
    VOLUME_ENDINGS,
    format_advice,
    image_ending,
    picture_ending,
)
from autoseg.io.images.labels import label_integers, smallest_type
from autoseg.io.images.steady import unchanged
from autoseg.io.images.stored import STRICTLY, Accepted, Note, StoredImage, is_plain
from autoseg.io.npz import entry_digest, stored_file

_LOG = logging.getLogger(__name__)
# Notes that `check` gives and that no later command repeats for every file: what the specification says was done.
_AS_SPECIFIED = ("W_GREY", "W_LUMINANCE", "W_ENDING")


def read_image(paths: Sequence[Path], *, channels: int | None = None, digests: dict[Path, str] | None = None,
               compact: bool = False, varied: bool = False, accepted: Accepted = STRICTLY,
               notes: list[Note] | None = None) -> Image:
    """The image in one file, or with one channel per file, in canonical orientation.

    Args:
        paths: one 3-D file per channel, in order, or one 4-D or colour file that holds all channels.
        channels: number of channels that must come out; None: any. Colours and opacity: see `channels.image_channels`.
        digests: receives the SHA-256 of every file, or entry of an archive.
        compact: one file of integers of at most 16 bits, which float32 holds exactly, comes as a view of these.
        varied: refuse a channel that has one value everywhere, which is only noted else.
        accepted: what else pictures may be: JPEG, colours for grey.
        notes: receives what is odd about the files; None: it is logged.
    Returns:
        float32 voxels (C, Z, Y, X), contiguous.
    Raises:
        ReadError: a file is missing, empty, truncated, damaged, not numeric, changes meanwhile, has voxels that are nan or
            infinite as float32, or the number of channels is not `channels`.
        GeometryError: the files do not share one grid, or a header does not say one.
    """
    files = [_read_stored(path, digests, accepted) for path in paths]
    odd = [(path, note) for path, file in zip(paths, files, strict=True) for note in file.notes]
    stored = next((file.geometry for file in files if file.is_grid_stated), files[0].geometry)
    for path, file in zip(paths, files, strict=True):
        _require_same_grid(paths[0], stored, path, _grid_beside(file, stored))
    found = image_channels(paths, files, channels, accepted=accepted, notes=odd)
    orientation = canonical_orientation(stored.direction)
    geometry = orientation.apply_to_geometry(stored)
    if compact and len(found) == 1 and found[0].dtype.kind in "iu" and found[0].dtype.itemsize <= 2:
        voxels = orientation.apply(found[0])
    else:
        voxels = np.empty((sum(map(len, found)), *geometry.shape), np.float32)
        with np.errstate(over="ignore"):  # what does not fit into float32 becomes infinite and is refused below
            np.concatenate([orientation.apply(part) for part in found], out=voxels, casting="unsafe")
        _require_finite(paths, voxels)
    odd += [(path, _constant(path, channel, varied)) for path, channel in zip(_sources(paths, found), voxels, strict=True)
            if _is_constant(channel)]
    _tell(odd, notes)
    return Image(voxels, geometry, orientation, stored)


def accepted_of(entry: InputSpec) -> Accepted:
    """What the specification of an input accepts of pictures."""
    return Accepted(entry.lossy, entry.colour == "luminance")


def read_label_map(path: Path, *, reference: Geometry | None = None, values: Collection[int] | None = None,
                   notes: list[Note] | None = None) -> Image:
    """The label map in a file, or the union of those in a folder, in canonical orientation.

    Where masks of a folder overlap, the larger value counts.

    Args:
        reference: canonical grid of the image that the label map belongs to; None: not compared. A file that says no
            spacing has that of the reference.
        values: of the labels in the specification; they decide how palettes and masks of 0 and 255 are read, see
            `labels.label_integers`. None: values are those of the file.
        notes: receives what is odd about the files; None: it is logged.
    Returns:
        voxels (1, Z, Y, X) of the smallest type among uint8, int16, uint16 and int32 that holds the values.
    Raises:
        ReadError: see `read_image`; also values that are not integers, or beyond 32 bits.
        GeometryError: the grid is not that of `reference`.
    """
    if path.is_dir():
        return _united_masks(path, reference, values, notes)
    file = _read_stored(path, None)
    stored = file.geometry if reference is None else _grid_beside(file, reference)
    orientation = canonical_orientation(stored.direction)
    geometry = orientation.apply_to_geometry(stored)
    if reference is not None and not geometry.agrees_with(reference):
        raise GeometryError(f"{path}: the label map lies on {_grid_text(geometry)}, its image on {_grid_text(reference)}; "
                            "resample the label map to the image", code="E_GRID")
    odd = list(file.notes)
    labels = np.ascontiguousarray(orientation.apply(label_integers(path, file, values, odd)))
    _tell([(path, note) for note in odd], notes)
    return Image(labels, geometry, orientation, stored)


def read_geometry(path: Path) -> Geometry:
    """The stored grid of an image file, from its header only; also of a JPEG."""
    ending = _require_ending(path, Accepted(lossy=True))
    _require_readable(stored_file(path))
    if ending == ENTRY_ENDING:
        from autoseg.io.images import array

        return array.decode_geometry(path)
    # The libraries are loaded where they are used because SimpleITK takes half a second and most datasets never need it.
    if ending in NIFTI_ENDINGS:
        from autoseg.io.images import nifti

        return nifti.decode_geometry(path)
    if ending in (*RASTER_ENDINGS, *JPEG_ENDINGS):
        from autoseg.io.images import raster

        return raster.decode_geometry(path)
    if ending in TIFF_ENDINGS:
        from autoseg.io.images import tiff

        return tiff.decode_geometry(path)
    from autoseg.io.images import itk

    return itk.decode_geometry(path)


def states_spacing(path: Path) -> bool:
    """Whether an image file says how large its voxels are, from its header only: a volume always, a TIFF perhaps.

    Raises:
        ReadError: the header of a TIFF cannot be read.
    """
    if image_ending(path) in TIFF_ENDINGS:
        from autoseg.io.images import tiff

        _require_readable(path)
        return tiff.states_spacing(path)
    return image_ending(path) in VOLUME_ENDINGS


def grids_agree(path: Path, other: Path) -> bool:
    """True when two image files lie on one grid; of files that say no spacing the shapes are compared."""
    first, second = read_geometry(path), read_geometry(other)
    if is_plain(first) and is_plain(second) and not (states_spacing(path) and states_spacing(other)):
        return first.shape == second.shape
    return first.agrees_with(second)


def write_label_map(path: Path, label: NDArray, like: Image) -> None:
    """Write a canonical label map (Z, Y, X) on the stored grid of `like`, atomically, in the smallest integer type.

    Args:
        path: its ending decides the format.
    Raises:
        GeometryError: the shape is not that of `like`.
        ResourceError: the disk is full, read-only or forbidden.
    """
    _write_stored(path, label[None].astype(smallest_type(label, path), copy=False), like)


def write_volume(path: Path, voxels: NDArray, like: Image) -> None:
    """Write canonical voxels (C, Z, Y, X) as float32 on the stored grid of `like`, atomically; see `write_label_map`."""
    _write_stored(path, voxels.astype(np.float32, copy=False), like)


def _united_masks(folder: Path, reference: Geometry | None, values: Collection[int] | None, notes: list[Note] | None) -> Image:
    paths = sorted(path for path in folder.iterdir() if image_ending(path) and not path.name.startswith("."))
    if not paths:
        raise ReadError(f"{folder} holds no mask", code="E_MISSING")
    first = read_label_map(paths[0], reference=reference, values=values, notes=notes)
    united = first.voxels
    for path in paths[1:]:
        mask = read_label_map(path, reference=reference or first.geometry, values=values, notes=notes)
        united = np.maximum(united, mask.voxels)
    return Image(united, first.geometry, first.orientation, first.stored)


def _write_stored(path: Path, voxels: NDArray, like: Image) -> None:
    if voxels.shape[1:] != like.geometry.shape:
        raise GeometryError(f"{path}: an array of {voxels.shape[1:]} (z, y, x) does not lie on the grid of its image, "
                            f"{like.geometry.shape}")
    ending = _require_ending(path)
    stored = like.orientation.undo(voxels)
    if ending in RASTER_ENDINGS and stored.dtype.kind == "f":
        raise ReadError(f"{path}: {ending} holds whole numbers; write floats as .tif", code="E_FORMAT")
    with replacing(path, needed_bytes=stored.nbytes) as part:
        if ending in NIFTI_ENDINGS:
            from autoseg.io.images import nifti

            part.write_bytes(nifti.encode(path, stored, like.stored))
        elif ending in RASTER_ENDINGS:
            from autoseg.io.images import raster

            part.write_bytes(raster.encode_label(path, stored[0], like.stored, ending))
        elif ending in TIFF_ENDINGS:
            from autoseg.io.images import tiff

            tiff.write(part, stored, like.stored, path)
        else:
            from autoseg.io.images import itk

            itk.write(part, stored, like.stored, ending)


def _read_stored(path: Path, digests: dict[Path, str] | None, accepted: Accepted = STRICTLY) -> StoredImage:
    ending = _require_ending(path, accepted)
    _require_file(stored_file(path))
    with unchanged([path]):
        if ending == ENTRY_ENDING:
            from autoseg.io.images import array

            if digests is not None:
                digests[path] = entry_digest(path)
            return array.decode(path)
        content = b"" if ending in ITK_ENDINGS and digests is None else _content(path)
        if digests is not None:
            digests[path] = sha256_bytes(content)
        return _decoded(path, ending, content, accepted)


def _decoded(path: Path, ending: str, content: bytes, accepted: Accepted) -> StoredImage:
    if ending in NIFTI_ENDINGS:
        from autoseg.io.images import nifti

        return nifti.decode(path, content)
    if ending in (*RASTER_ENDINGS, *JPEG_ENDINGS):
        from autoseg.io.images import raster

        return raster.decode(path, content, accepted)
    if ending in TIFF_ENDINGS:
        from autoseg.io.images import tiff

        return tiff.decode(path, content)
    from autoseg.io.images import itk

    _require_readable(path)
    return itk.decode(path)


def _grid_beside(file: StoredImage, other: Geometry) -> Geometry:
    """The grid of a file; where it says no spacing, that of the image of equal shape that it lies beside."""
    is_adopted = not file.is_grid_stated and file.geometry.shape == other.shape and is_plain(other)
    return other if is_adopted else file.geometry


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error


def _require_file(path: Path) -> None:
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        status = None
    except OSError as error:
        raise _unreadable(path, error) from error
    if status is None or not stat.S_ISREG(status.st_mode):
        raise ReadError(f"{path} does not exist or is not a regular file", code="E_MISSING")
    if status.st_size == 0:
        raise ReadError(f"{path} is empty; copy or download it again", code="E_EMPTY")


def _require_readable(path: Path) -> None:
    """For readers that open the file themselves, and say nothing of rights."""
    _require_file(path)
    try:
        path.open("rb").close()
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> ReadError:
    return ReadError(f"{path} cannot be read: {error.strerror}; give yourself the right to read it, or look after its disk")


def _require_ending(path: Path, accepted: Accepted = STRICTLY) -> str:
    ending = picture_ending(path) if accepted.lossy else image_ending(path)
    if ending is None:
        raise ReadError(f"{path} is not an image file that can be read or written; {format_advice(path.suffix)}",
                        code="E_LOSSY" if picture_ending(path) else "E_FORMAT")
    return ending


def _require_same_grid(first: Path, expected: Geometry, path: Path, found: Geometry) -> None:
    if not found.agrees_with(expected):
        raise GeometryError(f"the channels of one image must share a grid: {first} lies on {_grid_text(expected)}, {path} "
                            f"on {_grid_text(found)}; resample one to the other", code="E_GRID")


def _require_finite(paths: Sequence[Path], voxels: NDArray) -> None:
    count = sum(plane.size - int(np.count_nonzero(np.isfinite(plane))) for channel in voxels for plane in channel)
    if count:
        nans = int(np.count_nonzero(np.isnan(voxels)))
        raise ReadError(f"{', '.join(map(str, paths))}: {count} of {voxels.size} voxels are not finite numbers ({nans} nan, "
                        f"{count - nans} infinite or beyond what 32-bit floats hold); replace them, or leave the case out",
                        code="E_NONFINITE")


def _is_constant(channel: NDArray) -> bool:
    """True when all voxels (Z, Y, X) are equal; images are known not to be after their first planes."""
    first = channel[0, 0, 0]
    return not any((plane != first).any() for plane in channel)


def _constant(path: Path, channel: NDArray, refused: bool) -> Note:
    text = f"every voxel of a channel has the value {float(channel[0, 0, 0]):g}"
    if refused:
        raise ReadError(f"{path}: {text}, so there is nothing to be seen in it; give the image that was meant", code="E_CONSTANT")
    return Note("W_CONSTANT", f"{text}, so there is nothing to be seen in it")


def _sources(paths: Sequence[Path], found: Sequence[NDArray]) -> list[Path]:
    """The file of every channel."""
    return [path for path, channels in zip(paths, found, strict=True) for _ in channels]


def _tell(odd: Sequence[tuple[Path, Note]], notes: list[Note] | None) -> None:
    if notes is not None:
        notes += [note for _, note in odd]
        return
    for path, note in odd:
        level = logging.DEBUG if note.code in _AS_SPECIFIED else logging.WARNING
        _LOG.log(level, "%s: %s [%s]", path, note.text, note.code)


def _grid_text(geometry: Geometry) -> str:
    spacing, origin = (tuple(round(value, 4) for value in values) for values in (geometry.spacing_mm, geometry.origin_mm))
    return f"{geometry.shape} voxels of {spacing} mm (z, y, x) from {origin} mm (superior, posterior, left)"
