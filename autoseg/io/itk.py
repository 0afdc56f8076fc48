"""ITK's images, fields and transforms as arrays and grids of autoseg, and back.

Two conventions differ, and this module is where they change: ITK's axes are x, y, z and its world left, posterior, superior,
both the reverse of ours (z, y, x; superior, posterior, left). No sign does. NRRD and MHA files use it, transform files, and
the classical registrations of `inference.classical`.
"""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from autoseg.core.geometry import Geometry, Shape
from autoseg.io.images.stored import geometry_of

sitk.ProcessObject.SetGlobalWarningDisplay(False)


def image_to_itk(voxels: NDArray, geometry: Geometry) -> sitk.Image:
    """A volume (C, Z, Y, X) on a grid as an image of three dimensions; several channels are components of a voxel."""
    image = (sitk.GetImageFromArray(np.ascontiguousarray(voxels[0])) if len(voxels) == 1
             else sitk.GetImageFromArray(np.ascontiguousarray(np.moveaxis(voxels, 0, -1)), isVector=True))
    image.SetSpacing(geometry.spacing_mm[::-1])
    image.SetOrigin(geometry.origin_mm[::-1])
    image.SetDirection(np.asarray(geometry.direction)[::-1, ::-1].ravel().tolist())
    return image


def geometry_of_itk(image: sitk.Image, source: str) -> Geometry:
    """The grid of an image of three dimensions; `source` names it in the message of the GeometryError where it is sheared."""
    shape: Shape = (image.GetDepth(), image.GetHeight(), image.GetWidth())
    direction = np.reshape(image.GetDirection(), (3, 3))
    matrix = np.concatenate([direction * image.GetSpacing(), np.reshape(image.GetOrigin(), (3, 1))], axis=1)
    return geometry_of(shape, matrix[::-1][:, [2, 1, 0, 3]], source)


def field_to_itk(displacement: NDArray, geometry: Geometry) -> sitk.Image:
    """A displacement (3: S, P, L; Z, Y, X) as an image of vectors in float64, which ITK's transforms demand."""
    return image_to_itk(displacement[::-1].astype(np.float64), geometry)


def field_of_itk(image: sitk.Image) -> NDArray[np.float32]:
    """The displacement (3: S, P, L; Z, Y, X) in an image of vectors of three dimensions."""
    return np.ascontiguousarray(np.moveaxis(sitk.GetArrayViewFromImage(image), -1, 0)[::-1], dtype=np.float32)


def affine_to_itk(matrix: NDArray) -> sitk.AffineTransform:
    """An affine map (3, 4) of points (S, P, L) in mm."""
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(np.asarray(matrix, np.float64)[::-1, 2::-1].ravel().tolist())
    transform.SetTranslation(np.asarray(matrix, np.float64)[::-1, 3].tolist())
    return transform


def affine_of_itk(transform: sitk.Transform) -> NDArray[np.float64]:
    """(3, 4) of a linear transform of three dimensions, whatever its centre and parameters."""
    return plane_affine_of_itk(transform, None)


def plane_to_itk(voxels: NDArray, spacing_mm: tuple[float, float, float], flat: int | None) -> sitk.Image:
    """One channel (Z, Y, X) along its own axes from 0 on, as float32; without the axis `flat` of one voxel, where there is one.

    ITK registers flat images as images of two dimensions only: its filters need several planes.
    """
    kept = [axis for axis in range(3) if axis != flat]
    image = sitk.GetImageFromArray(np.ascontiguousarray(voxels if flat is None else voxels.squeeze(flat), dtype=np.float32))
    image.SetSpacing([spacing_mm[axis] for axis in reversed(kept)])
    return image


def plane_field_of_itk(image: sitk.Image, flat: int | None) -> NDArray[np.float64]:
    """A displacement along the axes of a grid (3: z, y, x; Z, Y, X; mm) from an image of vectors of two or three dimensions."""
    vectors = np.moveaxis(sitk.GetArrayViewFromImage(image), -1, 0)[::-1].astype(np.float64)
    if flat is None:
        return vectors
    return np.insert(np.expand_dims(vectors, 1 + flat), flat, 0.0, axis=0)


def plane_affine_to_itk(matrix: NDArray, flat: int | None) -> sitk.AffineTransform:
    """An affine map (3, 4) of points along the axes of a grid (z, y, x; mm), without the flat axis."""
    kept = [axis for axis in range(3) if axis != flat]
    part = np.asarray(matrix, np.float64)[np.ix_(kept, [*kept, 3])]
    transform = sitk.AffineTransform(len(kept))
    transform.SetMatrix(part[::-1, len(kept) - 1::-1].ravel().tolist())
    transform.SetTranslation(part[::-1, -1].tolist())
    return transform


def plane_affine_of_itk(transform: sitk.Transform, flat: int | None) -> NDArray[np.float64]:
    """(3, 4) along the axes of a grid of a linear transform of two or three dimensions; along the flat axis nothing moves."""
    kept = [axis for axis in range(3) if axis != flat]
    origin = np.array(transform.TransformPoint([0.0] * len(kept)))
    ends = [np.array(transform.TransformPoint(end)) - origin for end in np.eye(len(kept)).tolist()]
    matrix = np.eye(3, 4)
    matrix[np.ix_(kept, kept)] = np.stack(ends, axis=1)[::-1, ::-1]
    matrix[kept, 3] = origin[::-1]
    return matrix
