from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from fields import smooth_displacement, stored_grid, turned

from autoseg.io.itk import (
    affine_of_itk,
    affine_to_itk,
    field_of_itk,
    field_to_itk,
    geometry_of_itk,
    image_to_itk,
    plane_affine_of_itk,
    plane_affine_to_itk,
    plane_field_of_itk,
    plane_to_itk,
)

GRID = stored_grid(shape=(4, 5, 6), angles_deg=(15, -25, 40))
MATRIX = np.concatenate([np.array(turned((5, -8, 12))) * 1.1, [[3.0], [-2.0], [1.0]]], axis=1)


def test_a_voxel_lies_at_the_same_place_for_itk():
    voxels = np.arange(240, dtype=np.float32).reshape(2, *GRID.shape)
    image = image_to_itk(voxels, GRID)
    assert image.GetPixel(5, 3, 2) == tuple(voxels[:, 2, 3, 5])
    np.testing.assert_allclose(image.TransformIndexToPhysicalPoint((5, 3, 2))[::-1], GRID.position_mm((2, 3, 5)))
    assert geometry_of_itk(image, "test").agrees_with(GRID, tolerance=1e-9)


def test_a_displacement_goes_to_itk_and_back_and_moves_points_as_it_says():
    displacement = smooth_displacement(GRID, 3.0)
    field = field_to_itk(displacement, GRID)
    np.testing.assert_array_equal(field_of_itk(field), displacement)
    point = np.array(GRID.position_mm((2, 3, 4)))
    moved = sitk.DisplacementFieldTransform(field).TransformPoint(point[::-1].tolist())[::-1]
    np.testing.assert_allclose(moved, point + displacement[:, 2, 3, 4], atol=1e-5)


def test_an_affine_map_goes_to_itk_and_back_whatever_its_centre():
    point = np.array([7.0, -3.0, 11.0])
    moved = affine_to_itk(MATRIX).TransformPoint(point[::-1].tolist())[::-1]
    np.testing.assert_allclose(moved, MATRIX[:, :3] @ point + MATRIX[:, 3])
    rigid = sitk.Euler3DTransform((4.0, 5.0, 6.0), 0.1, -0.2, 0.3, (1.0, 2.0, 3.0))
    matrix = affine_of_itk(rigid)
    np.testing.assert_allclose(matrix[:, :3] @ point + matrix[:, 3], rigid.TransformPoint(point[::-1].tolist())[::-1])


@pytest.mark.parametrize("flat", [0, 1, 2])
def test_a_flat_image_is_one_of_two_dimensions_without_its_flat_axis(flat):
    shape = tuple(1 if axis == flat else size for axis, size in enumerate((4, 5, 6)))
    spacing = (3.0, 2.0, 0.5)
    kept = [axis for axis in range(3) if axis != flat]
    image = plane_to_itk(np.arange(np.prod(shape)).reshape(shape), spacing, flat)
    assert image.GetSize() == tuple(shape[axis] for axis in reversed(kept))
    assert image.GetSpacing() == tuple(spacing[axis] for axis in reversed(kept))
    matrix = np.eye(3, 4)
    matrix[np.ix_(kept, [*kept, 3])] = [[1.1, 0.2, 3.0], [-0.3, 0.9, -4.0]]
    transform = plane_affine_to_itk(matrix, flat)
    assert transform.TransformPoint((2.0, 1.0)) == pytest.approx((-0.3 * 1 + 0.9 * 2 - 4, 1.1 * 1 + 0.2 * 2 + 3))
    np.testing.assert_allclose(plane_affine_of_itk(transform, flat), matrix)
    field = sitk.TransformToDisplacementField(transform, sitk.sitkVectorFloat64, image.GetSize(), image.GetOrigin(),
                                              image.GetSpacing())
    found = plane_field_of_itk(field, flat)
    assert found.shape == (3, *shape) and (found[flat] == 0).all()
    index = np.array([0 if axis == flat else 2 for axis in range(3)])
    point = index * spacing
    np.testing.assert_allclose(point + found[(slice(None), *index)], matrix[:, :3] @ point + matrix[:, 3])
