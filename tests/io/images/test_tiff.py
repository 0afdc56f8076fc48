from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile
from PIL import Image as PillowImage

from autoseg.core.errors import GeometryError, ReadError
from autoseg.core.geometry import Geometry
from autoseg.core.image import Image
from autoseg.io.images import (
    companion_file,
    grids_agree,
    read_geometry,
    read_image,
    read_label_map,
    write_label_map,
    write_volume,
)

VOLUME = np.random.default_rng(0).integers(0, 60000, (5, 6, 9)).astype(np.uint16)
UNKNOWN = (1.0, 1.0, 1.0)
SPACING = (3.0, 0.25, 0.5)


def write_pages(path, pages, **options):
    pictures = [PillowImage.fromarray(page) for page in pages]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], **options)


WRITERS = {
    "shaped": lambda path: tifffile.imwrite(path, VOLUME),
    "deflate": lambda path: tifffile.imwrite(path, VOLUME, compression="zlib", predictor=True),
    "big": lambda path: tifffile.imwrite(path, VOLUME, bigtiff=True, byteorder=">"),
    "tiles": lambda path: tifffile.imwrite(path, VOLUME, tile=(16, 16), metadata=None),
    "imagej": lambda path: tifffile.imwrite(path, VOLUME, imagej=True, metadata={"axes": "ZYX"}),
    "ome": lambda path: tifffile.imwrite(path, VOLUME, ome=True, metadata={"axes": "ZYX"}),
    "pages": lambda path: write_pages(path, VOLUME),
    "lzw": lambda path: write_pages(path, VOLUME, compression="tiff_lzw"),
    "packbits": lambda path: write_pages(path, VOLUME, compression="packbits"),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_pages_are_slices(tmp_path, kind):
    WRITERS[kind](tmp_path / "a.tif")
    image = read_image([tmp_path / "a.tif"], channels=1)
    np.testing.assert_array_equal(image.voxels[0], VOLUME)
    assert image.geometry == read_geometry(tmp_path / "a.tif") == Geometry((5, 6, 9), UNKNOWN)


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("share", [0.97, 0.6, 0.1])
def test_a_file_that_was_cut_anywhere_is_refused(tmp_path, kind, share):
    WRITERS[kind](tmp_path / "a.tif")
    whole = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(whole[:int(len(whole) * share)])
    with pytest.raises(ReadError, match="a.tif"):
        read_image([tmp_path / "a.tif"])


@pytest.mark.parametrize("pixels", [
    np.arange(54, dtype=np.uint8).reshape(6, 9), np.arange(54, dtype=np.float32).reshape(6, 9) / 7,
    np.arange(54).reshape(6, 9) % 2 == 0, np.arange(54, dtype=np.int16).reshape(6, 9) - 30,
], ids=["uint8", "float32", "bit", "int16"])
def test_a_2d_file_keeps_its_values(tmp_path, pixels):
    tifffile.imwrite(tmp_path / "a.tiff", pixels, photometric="minisblack")
    np.testing.assert_array_equal(read_image([tmp_path / "a.tiff"]).voxels[0, 0], pixels)


@pytest.mark.parametrize("options", [{}, {"planarconfig": "separate"}], ids=["pixel by pixel", "plane by plane"])
def test_colour_of_one_and_of_several_pages(tmp_path, options):
    colour = np.random.default_rng(1).integers(0, 255, (2, 6, 9, 3)).astype(np.uint8)
    stored = np.moveaxis(colour, -1, 1) if options else colour
    tifffile.imwrite(tmp_path / "one.tif", stored[0], photometric="rgb", **options)
    tifffile.imwrite(tmp_path / "two.tif", stored, photometric="rgb", **options)
    np.testing.assert_array_equal(read_image([tmp_path / "one.tif"], channels=3).voxels[:, 0], np.moveaxis(colour[0], -1, 0))
    np.testing.assert_array_equal(read_image([tmp_path / "two.tif"], channels=3).voxels, np.moveaxis(colour, -1, 0))


def test_lzw_colour_alpha_and_palette(tmp_path):
    colour = np.random.default_rng(1).integers(0, 255, (6, 9, 4)).astype(np.uint8)
    PillowImage.fromarray(colour[:, :, :3]).save(tmp_path / "rgb.tif", compression="tiff_lzw")
    np.testing.assert_array_equal(read_image([tmp_path / "rgb.tif"]).voxels[:, 0], np.moveaxis(colour[:, :, :3], -1, 0))
    PillowImage.fromarray(colour).save(tmp_path / "rgba.tif")
    with pytest.raises(ReadError, match="alpha channel"):
        read_image([tmp_path / "rgba.tif"], channels=3)
    palette = PillowImage.fromarray(colour[:, :, 0] % 2, mode="P")
    palette.putpalette([0, 0, 0, 9, 8, 7])
    palette.save(tmp_path / "p.tif")
    np.testing.assert_array_equal(read_label_map(tmp_path / "p.tif", values=[1]).voxels[0, 0], colour[:, :, 0] % 2)
    assert read_image([tmp_path / "p.tif"]).voxels.max(axis=(1, 2, 3)).tolist() == [9, 8, 7]


def test_spacing_is_that_of_imagej_and_ome(tmp_path):
    tifffile.imwrite(tmp_path / "ij.tif", VOLUME, imagej=True, resolution=(2000, 4000),
                     metadata={"axes": "ZYX", "spacing": 0.003, "unit": "m"})
    tifffile.imwrite(tmp_path / "ome.tif", VOLUME, ome=True, metadata={
        "axes": "ZYX", "PhysicalSizeX": 500, "PhysicalSizeY": 0.25, "PhysicalSizeYUnit": "mm", "PhysicalSizeZ": 3000})
    for name in ("ij.tif", "ome.tif"):
        assert read_image([tmp_path / name]).geometry.spacing_mm == pytest.approx(SPACING)
        assert read_geometry(tmp_path / name) == read_image([tmp_path / name]).stored


def test_resolution_for_printing_is_no_spacing(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", VOLUME[0], resolution=(72, 72), resolutionunit="INCH")
    assert read_geometry(tmp_path / "a.tif").spacing_mm == UNKNOWN


def test_a_volume_of_which_only_the_pixel_is_known_has_no_spacing_and_a_warning(tmp_path, caplog):
    tifffile.imwrite(tmp_path / "a.tif", VOLUME, imagej=True, resolution=(2, 2), metadata={"axes": "ZYX", "unit": "mm"})
    assert read_image([tmp_path / "a.tif"]).geometry.spacing_mm == UNKNOWN
    assert "does not say a spacing along all axes" in caplog.text
    tifffile.imwrite(tmp_path / "b.tif", VOLUME[0], imagej=True, resolution=(2, 2), metadata={"unit": "mm"})
    assert read_image([tmp_path / "b.tif"]).geometry.spacing_mm == (1.0, 0.5, 0.5)


def test_nnunets_companion_file_says_the_spacing_of_image_and_label(tmp_path):
    tifffile.imwrite(tmp_path / "case_0000.tif", VOLUME)
    tifffile.imwrite(tmp_path / "case.tif", VOLUME)
    (tmp_path / "case.json").write_text(json.dumps({"spacing": SPACING}))
    for name in ("case_0000.tif", "case.tif"):
        assert read_image([tmp_path / name]).geometry.spacing_mm == SPACING
        assert companion_file(tmp_path / name) == tmp_path / "case.json"
    (tmp_path / "case.json").write_text(json.dumps({"spacing": [1, 0, 2]}))
    with pytest.raises(GeometryError, match=r"case.json: spacing must be three positive numbers.*\[1, 0, 2\]"):
        read_image([tmp_path / "case.tif"])
    (tmp_path / "case.json").write_text(json.dumps({"age": 3}))
    assert companion_file(tmp_path / "case.tif") is None


def test_label_maps_and_volumes_come_back_on_their_grid(tmp_path):
    geometry = Geometry((5, 6, 9), (3.3, 0.7, 0.123456))
    image = Image.canonical(VOLUME[None].astype(np.float32), geometry)
    write_label_map(tmp_path / "l.tif", VOLUME, image)
    write_volume(tmp_path / "v.tif", np.stack([VOLUME / 7, VOLUME / 9]), image)
    label, volume = read_label_map(tmp_path / "l.tif"), read_image([tmp_path / "v.tif"])
    np.testing.assert_array_equal(label.voxels[0], VOLUME)
    np.testing.assert_array_equal(volume.voxels, np.stack([VOLUME / 7, VOLUME / 9]).astype(np.float32))
    assert label.geometry.agrees_with(geometry) and volume.geometry.agrees_with(geometry)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "l.tif"), VOLUME)


def test_writing_is_repeatable_to_the_byte(tmp_path):
    image = Image.canonical(VOLUME[None].astype(np.float32), Geometry((5, 6, 9), SPACING))
    for name in ("a.tif", "b.tif"):
        write_label_map(tmp_path / name, VOLUME, image)
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()


def test_a_label_map_without_spacing_lies_on_the_grid_of_its_image(tmp_path):
    tifffile.imwrite(tmp_path / "image.tif", VOLUME, imagej=True, resolution=(2, 4),
                     metadata={"axes": "ZYX", "spacing": 3, "unit": "mm"})
    tifffile.imwrite(tmp_path / "label.tif", (VOLUME > 9).astype(np.uint8))
    image = read_image([tmp_path / "image.tif"])
    label = read_label_map(tmp_path / "label.tif", reference=image.geometry)
    assert label.geometry == image.geometry and image.geometry.spacing_mm == pytest.approx(SPACING)
    assert grids_agree(tmp_path / "image.tif", tmp_path / "label.tif")
    tifffile.imwrite(tmp_path / "one_mm.tif", VOLUME, imagej=True, resolution=(1, 1),
                     metadata={"axes": "ZYX", "spacing": 1, "unit": "mm"})
    assert not grids_agree(tmp_path / "image.tif", tmp_path / "one_mm.tif")
    tifffile.imwrite(tmp_path / "other.tif", VOLUME[:2])
    assert not grids_agree(tmp_path / "image.tif", tmp_path / "other.tif")
    with pytest.raises(GeometryError, match="resample"):
        read_label_map(tmp_path / "other.tif", reference=image.geometry)


@pytest.mark.parametrize(("write", "code"), [
    (lambda path: tifffile.imwrite(path, VOLUME, imagej=True, metadata={"axes": "TYX"}), "E_DIMENSIONS"),
    (lambda path: [tifffile.imwrite(path, VOLUME[0, :, :size], append=True) for size in (3, 5)], "E_DIMENSIONS"),
    (lambda path: tifffile.imwrite(path, VOLUME[0].astype(np.uint8), photometric="miniswhite"), "E_COLOUR"),
    (lambda path: tifffile.imwrite(path, VOLUME[0].astype(np.complex64)), "E_DTYPE"),
    (lambda path: write_pages(path, VOLUME.astype(np.uint8), compression="jpeg"), "E_LOSSY"),
    (lambda path: path.write_bytes(b"not a TIFF at all"), "E_FORMAT"),
    (lambda path: path.touch(), "E_EMPTY"),
], ids=["time", "two images", "white is zero", "complex", "jpeg", "text", "empty"])
def test_what_is_not_one_image_of_numbers_is_refused(tmp_path, write, code):
    write(tmp_path / "a.tif")
    with pytest.raises(ReadError, match="a.tif") as caught:
        read_image([tmp_path / "a.tif"])
    assert caught.value.code == code


def test_labels_beyond_16_bits_and_grids_in_a_patient_are_refused(tmp_path):
    flat = Image.canonical(np.zeros((1, 5, 6, 9), np.float32), Geometry((5, 6, 9), SPACING))
    placed = Image.canonical(flat.voxels, Geometry((5, 6, 9), SPACING, (1.0, 20.0, 3.0)))
    with pytest.raises(ReadError, match="0 to 65535"):
        write_label_map(tmp_path / "a.tif", VOLUME.astype(np.int32) * -1, flat)
    with pytest.raises(GeometryError, match="nii.gz"):
        write_label_map(tmp_path / "a.tif", VOLUME, placed)
    assert list(tmp_path.iterdir()) == []
