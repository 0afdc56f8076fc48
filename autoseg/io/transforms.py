"""Displacements and affine maps as files that ITK, ANTs and 3D Slicer read and apply.

| ending | holds | read by |
|---|---|---|
| `.nii.gz`, `.nii` | a displacement, as vectors (dimension 5, intent 1007) | ITK, ANTs, 3D Slicer |
| `.mha` | a displacement, as an image of three components | ITK |
| `.h5` | a displacement or an affine map, as a transform | ITK, ANTs, 3D Slicer |
| `.tfm` | an affine map, as a transform in text | ITK, ANTs, 3D Slicer |

Components are those of ITK (left, posterior, superior; mm) in every one: for intent 1007 the components are taken as they stand,
by ITK and ANTs; of intent 1006 programs disagree about the signs, so it is neither written nor read. Fields lie on the stored
grid of the fixed image, voxel by voxel, and pull: the fixed point x corresponds to x + u(x) in the moving image.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from autoseg.core.errors import GeometryError, ReadError
from autoseg.core.geometry import Geometry, canonical_orientation
from autoseg.core.image import Image
from autoseg.core.text import printable
from autoseg.io.atomic import replacing
from autoseg.io.documents import read_content
from autoseg.io.images.endings import NIFTI_ENDINGS
from autoseg.io.images.steady import unchanged
from autoseg.io.images.stored import MAX_VOXELS, StoredImage

if TYPE_CHECKING:
    import SimpleITK as sitk

FIELD_ENDINGS = (*NIFTI_ENDINGS, ".mha", ".h5")
AFFINE_ENDINGS = (".tfm", ".h5")
# Three components of 8 bytes and the header; a larger file cannot hold a field of as many voxels as are read at all.
_MOST_BYTES = 24 * MAX_VOXELS + 2**20
_HEADS = {".h5": (b"\x89HDF\r\n\x1a\n", "an HDF5 file"), ".tfm": (b"#Insight Transform File V1.0", "an ITK transform in text")}


def write_displacement(path: Path, displacement: NDArray, like: Image) -> None:
    """Write a displacement on the stored grid of the fixed image, atomically.

    Args:
        path: its ending decides the format.
        displacement: (3, Z, Y, X) on the canonical grid of `like`, mm (S, P, L).
        like: the fixed image.
    Raises:
        GeometryError: the displacement is not on the grid of `like`. ReadError: another ending, or not every number is finite.
        ResourceError: the disk is full, read-only or forbidden.
    """
    ending = _ending(path, FIELD_ENDINGS, "a displacement")
    if displacement.shape != (3, *like.geometry.shape):
        raise GeometryError(f"{path}: a displacement of {displacement.shape} (S, P, L; z, y, x) does not lie on the grid of the "
                            f"fixed image, {like.geometry.shape}")
    _require_finite(displacement, f"{path} is not written")
    vectors = like.orientation.undo(np.asarray(displacement[::-1], np.float32))  # to left, posterior, superior
    with replacing(path, needed_bytes=vectors.nbytes * (2 if ending == ".h5" else 1)) as part:
        if ending in NIFTI_ENDINGS:
            from autoseg.io.images import nifti

            part.write_bytes(nifti.encode(path, vectors, like.stored, is_field=True))
        elif ending == ".h5":
            import SimpleITK as sitk

            from autoseg.io.itk import image_to_itk

            _write_transform(part, sitk.DisplacementFieldTransform(image_to_itk(vectors.astype(np.float64), like.stored)), ending)
        else:
            from autoseg.io.images import itk

            itk.write(part, vectors, like.stored, ending)


def read_displacement(path: Path) -> tuple[NDArray[np.float32], Geometry]:
    """The displacement in a file, (3, Z, Y, X) in mm (S, P, L), and its grid, both in canonical orientation.

    Raises:
        ReadError: missing, empty, damaged, or no displacement of a volume; the message says what it is instead.
        GeometryError: the header does not say one sound grid.
    """
    ending = _ending(path, FIELD_ENDINGS, "a displacement")
    with unchanged([path]):
        vectors, stored = _transform_field(path) if ending == ".h5" else _image_field(path, ending)
    _require_finite(vectors, f"{path} cannot be used")
    orientation = canonical_orientation(stored.direction)
    displacement = np.ascontiguousarray(orientation.apply(vectors)[::-1], np.float32)
    return displacement, orientation.apply_to_geometry(stored)


def write_affine(path: Path, matrix: NDArray) -> None:
    """Write an affine map (3, 4) of points (S, P, L; mm), from the fixed image to the moving one, as an ITK transform,
    atomically.

    Raises:
        ReadError: another ending, or not every number is finite. ResourceError: as in `write_displacement`.
    """
    from autoseg.io.itk import affine_to_itk

    ending = _ending(path, AFFINE_ENDINGS, "an affine map")
    _require_finite(np.asarray(matrix), f"{path} is not written")
    with replacing(path) as part:
        _write_transform(part, affine_to_itk(matrix), ending)


def read_affine(path: Path) -> NDArray[np.float64]:
    """The affine map (3, 4) of points (S, P, L; mm) in an ITK transform file: affine, rigid, similar, or a shift.

    Raises:
        ReadError: missing, damaged, or a transform that is not linear.
    """
    from autoseg.io.itk import affine_of_itk

    _ending(path, AFFINE_ENDINGS, "an affine map")
    with unchanged([path]):
        transform = _transform(path)
    if not transform.IsLinear():
        raise ReadError(f"{path} holds a {transform.GetName()}, an affine map is expected; read it as a displacement",
                        code="E_TRANSFORM")
    matrix = affine_of_itk(transform)
    _require_finite(matrix, f"{path} cannot be used")
    return matrix


def read_transform_onto(path: Path, fixed: Geometry) -> NDArray[np.float32]:
    """What any ITK transform of volumes, also one made of several, does on a grid: a displacement (3, *fixed.shape), mm (S, P,
    L).

    Raises:
        ReadError: missing, damaged, or of two dimensions.
    """
    import SimpleITK as sitk

    from autoseg.io.itk import field_of_itk

    _ending(path, AFFINE_ENDINGS, "a transform")
    with unchanged([path]):
        transform = _transform(path)
    field = sitk.TransformToDisplacementField(transform, sitk.sitkVectorFloat64, fixed.shape[::-1], fixed.origin_mm[::-1],
                                              fixed.spacing_mm[::-1], np.asarray(fixed.direction)[::-1, ::-1].ravel().tolist())
    displacement = field_of_itk(field)
    _require_finite(displacement, f"{path} cannot be used")
    return displacement


def _image_field(path: Path, ending: str) -> tuple[NDArray, Geometry]:
    """Components left, posterior, superior (3, Z, Y, X) in stored order, from an image of vectors."""
    content = read_content(path, _size(path))
    if ending in NIFTI_ENDINGS:
        from autoseg.io.images import nifti

        image = nifti.decode(path, content)
        nifti.require_field(path, content)
    else:
        from autoseg.io.images import itk

        image = itk.decode(path)
    _require_vectors(path, image)
    return image.voxels, image.geometry


def _size(path: Path) -> int:
    """Bytes of a file that is there and not empty, at most `_MOST_BYTES`."""
    if not path.is_file():
        raise ReadError(f"{path} does not exist or is not a regular file", code="E_MISSING")
    size = path.stat().st_size
    if not size:
        raise ReadError(f"{path} is empty; copy or download it again", code="E_EMPTY")
    return min(size, _MOST_BYTES)


def _require_vectors(path: Path, image: StoredImage) -> None:
    if len(image.voxels) != 3 or image.voxels.dtype.kind != "f":
        raise ReadError(f"{path} has {len(image.voxels)} channels of {image.voxels.dtype}; a displacement has three of floats "
                        "(left, posterior, superior; mm). Is it an image?", code="E_TRANSFORM")


def _transform_field(path: Path) -> tuple[NDArray, Geometry]:
    """As `_image_field`, from a transform file."""
    import SimpleITK as sitk

    from autoseg.io.itk import geometry_of_itk

    transform = _transform(path)
    if transform.GetName() != "DisplacementFieldTransform":
        raise ReadError(f"{path} holds a {transform.GetName()}, a DisplacementFieldTransform is expected: it has no grid of its "
                        "own",
                        code="E_TRANSFORM")
    field = sitk.DisplacementFieldTransform(transform).GetDisplacementField()
    return np.moveaxis(sitk.GetArrayFromImage(field), -1, 0), geometry_of_itk(field, str(path))


def _transform(path: Path) -> sitk.Transform:
    """The transform of volumes in a file whose first bytes were looked at: left to itself, ITK tries every parser it knows."""
    import SimpleITK as sitk

    import autoseg.io.itk  # noqa: F401  # keeps ITK from writing warnings to the terminal

    head, what = _HEADS[path.suffix.lower()]
    _size(path)
    with path.open("rb") as file:
        content = file.read(len(head))
    if content != head:
        raise ReadError(f"{path} is not {what}: it begins with {content!r}; copy or download it again, or correct its ending",
                        code="E_FORMAT")
    try:
        transform = sitk.ReadTransform(str(path)).Downcast()
    except (RuntimeError, ValueError, MemoryError) as error:  # ValueError: bytes that are no text, repeated in the message
        raise ReadError(f"{path} cannot be read as a transform: {printable(str(error).strip()[-100:])}; copy or download "
                        "it again", code="E_DAMAGED") from error
    if transform.GetDimension() != 3:
        raise ReadError(f"{path} holds a transform of {transform.GetDimension()} dimensions; three are expected, also for slices",
                        code="E_TRANSFORM")
    return transform


def _write_transform(part: Path, transform: sitk.Transform, ending: str) -> None:
    """Writes to a temporary name, which does not have the ending by which the library chooses the format."""
    import SimpleITK as sitk

    named = part.with_name(part.name + ending)
    try:
        sitk.WriteTransform(transform, str(named))
        named.replace(part)
    except RuntimeError as error:
        raise OSError(f"{part} cannot be written: {str(error).strip().splitlines()[-1].strip()}") from error
    finally:
        named.unlink(missing_ok=True)


def _ending(path: Path, known: tuple[str, ...], what: str) -> str:
    ending = next((ending for ending in known if path.name.lower().endswith(ending)), None)
    if ending is None:
        raise ReadError(f"{path}: {what} is kept in a file that ends in {', '.join(known)}", code="E_FORMAT")
    return ending


def _require_finite(numbers: NDArray, what: str) -> None:
    count = int(np.count_nonzero(~np.isfinite(numbers)))
    if count:
        raise ReadError(f"{what}: {count} of {numbers.size} numbers of the transform are not finite; make it again",
                        code="E_NONFINITE")
