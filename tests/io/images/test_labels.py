"""Which integers a label map of colours, palettes or white means."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import tifffile
from PIL import Image as PillowImage

from autoseg.core.errors import ReadError
from autoseg.io.images import read_label_map

MASK = np.array([[0, 1, 1], [0, 0, 1]], np.uint8)


def read(path, values):
    return read_label_map(path, values=values).voxels[0, 0]


def save_palette(path, indices, colours):
    picture = PillowImage.fromarray(indices, mode="P")
    picture.putpalette(np.ravel(colours).tolist())
    picture.save(path)
    return path


def save_nifti(path, pixels):
    nib.save(nib.Nifti1Image(pixels.T[:, :, None], np.diag([-1.0, -1.0, 1.0, 1.0])), path)


WRITERS = {
    "a.png": lambda path, pixels: PillowImage.fromarray(pixels).save(path),
    "a.bmp": lambda path, pixels: PillowImage.fromarray(pixels).save(path),
    "a.tif": lambda path, pixels: tifffile.imwrite(path, pixels),
    "a.nii.gz": save_nifti,
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_mask_of_0_and_255_is_the_one_label_of_value_1(tmp_path, name):
    WRITERS[name](tmp_path / name, MASK * 255)
    np.testing.assert_array_equal(read(tmp_path / name, [1]), MASK)


def test_white_in_16_bits_is_the_one_label_of_value_1(tmp_path):
    WRITERS["a.png"](tmp_path / "a.png", MASK.astype(np.uint16) * 65535)
    np.testing.assert_array_equal(read(tmp_path / "a.png", [1]), MASK)


@pytest.mark.parametrize("values", [[255], [1, 255], [1, 2], [2], None])
def test_255_is_255_where_the_specification_does_not_have_exactly_the_label_1(tmp_path, values):
    WRITERS["a.png"](tmp_path / "a.png", MASK * 255)
    np.testing.assert_array_equal(read(tmp_path / "a.png", values), MASK * 255)


@pytest.mark.parametrize("odd", [1, 254, 128])
def test_a_mask_with_a_third_value_is_not_reinterpreted(tmp_path, odd):
    pixels = MASK * 255
    pixels[0, 0] = odd
    WRITERS["a.png"](tmp_path / "a.png", pixels)
    np.testing.assert_array_equal(read(tmp_path / "a.png", [1]), pixels)


def test_an_all_white_and_an_all_black_mask(tmp_path):
    WRITERS["a.png"](tmp_path / "a.png", np.full_like(MASK, 255))
    assert (read(tmp_path / "a.png", [1]) == 1).all()
    WRITERS["a.png"](tmp_path / "a.png", np.zeros_like(MASK))
    assert (read(tmp_path / "a.png", [1]) == 0).all()


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif"])
def test_colour_with_equal_channels_is_one_channel(tmp_path, name):
    WRITERS[name](tmp_path / name, np.repeat(MASK[:, :, None] * 255, 3, axis=2))
    np.testing.assert_array_equal(read(tmp_path / name, [1]), MASK)


def test_other_colours_are_listed_and_refused(tmp_path):
    pixels = np.zeros((2, 3, 3), np.uint8)
    pixels[MASK == 1] = (255, 0, 64)
    WRITERS["a.png"](tmp_path / "a.png", pixels)
    with pytest.raises(ReadError, match=r"\(0, 0, 0\) in 3 pixels, \(255, 0, 64\) in 3 pixels.*8-bit greyscale"):
        read(tmp_path / "a.png", [1])


def test_a_palette_of_colours_means_its_indices(tmp_path):
    path = save_palette(tmp_path / "a.png", MASK * 2, [(0, 0, 0), (128, 0, 0), (0, 128, 0)])
    np.testing.assert_array_equal(read(path, [1, 2]), MASK * 2)


def test_a_palette_of_black_and_white_means_the_mask_that_one_sees(tmp_path):
    path = save_palette(tmp_path / "a.png", MASK, [(0, 0, 0), (255, 255, 255)])
    np.testing.assert_array_equal(read(path, [1]), MASK)
    np.testing.assert_array_equal(read(path, [255]), MASK * 255)


def test_a_palette_of_greys_means_what_the_specification_lists(tmp_path):
    path = save_palette(tmp_path / "a.png", MASK, [(0, 0, 0), (100, 100, 100)])
    np.testing.assert_array_equal(read(path, [1]), MASK)
    np.testing.assert_array_equal(read(path, [100]), MASK * 100)
    np.testing.assert_array_equal(read(path, None), MASK)


def test_a_palette_that_can_be_read_in_two_ways_is_refused(tmp_path):
    path = save_palette(tmp_path / "a.png", MASK, [(255, 255, 255), (0, 0, 0)])  # white first: indices are the negative
    with pytest.raises(ReadError, match="0 = grey 255, 1 = grey 0.*two ways") as caught:
        read(path, [1])
    assert caught.value.code == "E_LABEL_PALETTE"


def test_transparent_colours_of_a_palette_do_not_matter(tmp_path):
    picture = PillowImage.fromarray(MASK, mode="P")
    picture.putpalette([0, 0, 0, 255, 0, 0])
    picture.save(tmp_path / "a.png", transparency=0)
    np.testing.assert_array_equal(read(tmp_path / "a.png", [1]), MASK)


def test_a_mask_with_transparent_pixels_is_refused(tmp_path):
    pixels = np.repeat(MASK[:, :, None] * 255, 4, axis=2)
    WRITERS["a.png"](tmp_path / "a.png", pixels)
    with pytest.raises(ReadError, match="alpha channel with values from 0 to 255"):
        read(tmp_path / "a.png", [1])
