from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from autoseg.core.errors import ReadError
from autoseg.io.images import read_image


def test_two_dimensional_itk_image_gets_one_slice(tmp_path):
    image = sitk.GetImageFromArray(np.arange(20, dtype=np.float32).reshape(4, 5))
    image.SetSpacing((1.3, 0.7))
    sitk.WriteImage(image, str(tmp_path / "a.nrrd"))
    read = read_image([tmp_path / "a.nrrd"])
    assert read.voxels.shape == (1, 1, 4, 5) and read.geometry.spacing_mm == (1.0, 0.7, 1.3)


def test_four_dimensional_itk_image_holds_channels(tmp_path):
    array = np.arange(120, dtype=np.float32).reshape(2, 3, 4, 5)
    image = sitk.GetImageFromArray(array, isVector=False)
    sitk.WriteImage(image, str(tmp_path / "a.mha"))
    np.testing.assert_array_equal(read_image([tmp_path / "a.mha"], channels=2).voxels, array)


def test_complex_itk_image_is_refused(tmp_path):
    image = sitk.Cast(sitk.GetImageFromArray(np.ones((3, 4, 5), np.float32)), sitk.sitkComplexFloat32)
    sitk.WriteImage(image, str(tmp_path / "a.nrrd"))
    with pytest.raises(ReadError):
        read_image([tmp_path / "a.nrrd"])


@pytest.mark.parametrize("name", ["text.nrrd", "text.mha"])
def test_a_file_that_is_no_image_is_refused_with_its_name(tmp_path, name):
    (tmp_path / name).write_text("not an image")
    with pytest.raises(ReadError, match=name) as caught:
        read_image([tmp_path / name])
    assert caught.value.code == "E_FORMAT"
