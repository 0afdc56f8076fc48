from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image as PillowImage

from autoseg.core.errors import GeometryError, ReadError
from autoseg.core.geometry import Geometry
from autoseg.core.image import Image
from autoseg.io.images import read_geometry, read_image, read_label_map, write_label_map, write_volume

GREY = np.arange(15, dtype=np.uint8).reshape(3, 5)
COLOUR = np.arange(45, dtype=np.uint8).reshape(3, 5, 3)


def save(path, pixels, **options):
    PillowImage.fromarray(pixels).save(path, **options)
    return path


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def hand_made_png(path, width, height, bits, colour_type, rows, more=b""):
    """A PNG from its packed rows, without a library that could reinterpret them."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + more + chunk(b"IDAT", body) + chunk(b"IEND", b""))
    return path


@pytest.mark.parametrize("ending", [".png", ".bmp", ".PNG"])
def test_a_grey_picture_is_one_slice_of_one_millimetre(tmp_path, ending):
    image = read_image([save(tmp_path / f"a{ending}", GREY)])
    assert image.voxels.dtype == np.float32
    np.testing.assert_array_equal(image.voxels, GREY[None, None])
    assert image.geometry == image.stored == Geometry((1, 3, 5), (1.0, 1.0, 1.0))
    assert read_geometry(tmp_path / f"a{ending}") == image.stored


@pytest.mark.parametrize("ending", [".png", ".bmp"])
def test_a_colour_picture_has_three_channels(tmp_path, ending):
    image = read_image([save(tmp_path / f"a{ending}", COLOUR)], channels=3)
    np.testing.assert_array_equal(image.voxels[:, 0], np.moveaxis(COLOUR, -1, 0))


def test_one_channel_per_file_still_works(tmp_path):
    paths = [save(tmp_path / f"a_000{index}.png", GREY + index) for index in range(2)]
    np.testing.assert_array_equal(read_image(paths, channels=2).voxels[:, 0], [GREY, GREY + 1])


def test_sixteen_bits_keep_their_values_in_grey_and_in_colour(tmp_path):
    deep = np.arange(15, dtype=np.uint16).reshape(3, 5) * 4001
    np.testing.assert_array_equal(read_image([save(tmp_path / "g.png", deep)]).voxels[0, 0], deep)
    colour = np.stack([deep, deep + 1, deep // 3], axis=-1)
    sitk.WriteImage(sitk.GetImageFromArray(colour, isVector=True), str(tmp_path / "c.png"))
    np.testing.assert_array_equal(read_image([tmp_path / "c.png"]).voxels[:, 0], np.moveaxis(colour, -1, 0))


def test_grey_of_two_bits_fills_eight_in_an_image_and_is_the_label_in_a_label_map(tmp_path):
    path = hand_made_png(tmp_path / "a.png", 4, 1, 2, 0, [bytes([0b00_01_10_11])])
    np.testing.assert_array_equal(read_image([path]).voxels[0, 0], [[0, 85, 170, 255]])
    np.testing.assert_array_equal(read_label_map(path).voxels[0, 0], [[0, 1, 2, 3]])


def test_one_bit_is_0_and_1(tmp_path):
    path = save(tmp_path / "a.png", GREY > 7)
    np.testing.assert_array_equal(read_image([path]).voxels[0, 0], GREY > 7)
    np.testing.assert_array_equal(read_label_map(path, values=[1]).voxels[0, 0], GREY > 7)


def test_opaque_alpha_is_left_out_and_transparency_is_refused(tmp_path):
    alpha = np.full((3, 5, 1), 200, np.uint8)
    opaque = save(tmp_path / "opaque.png", np.concatenate([COLOUR, alpha], axis=2))
    assert len(read_image([opaque]).voxels) == 3
    assert len(read_image([opaque], channels=4).voxels) == 4  # nnU-Net's reading, when the specification has four
    alpha[0, 0] = 7
    varying = save(tmp_path / "varying.png", np.concatenate([COLOUR, alpha], axis=2))
    with pytest.raises(ReadError, match="varying.png has an alpha channel with values from 7 to 200.*without alpha") as caught:
        read_image([varying], channels=3)
    assert caught.value.code == "E_ALPHA"
    np.testing.assert_array_equal(read_image([varying], channels=4).voxels[3, 0], alpha[:, :, 0])


def test_colour_with_equal_channels_is_grey_where_one_channel_is_expected(tmp_path):
    path = save(tmp_path / "a.png", np.repeat(GREY[:, :, None], 3, axis=2))
    np.testing.assert_array_equal(read_image([path], channels=1).voxels, GREY[None, None])
    assert len(read_image([path], channels=3).voxels) == 3
    with pytest.raises(ReadError, match=r"3 channels found, 1 expected.*\[red, green, blue\]"):
        read_image([save(tmp_path / "b.png", COLOUR)], channels=1)


def test_a_palette_image_has_its_colours(tmp_path):
    picture = PillowImage.fromarray(GREY % 3, mode="P")
    picture.putpalette([0, 0, 0, 10, 20, 30, 200, 100, 50])
    picture.save(tmp_path / "a.png")
    voxels = read_image([tmp_path / "a.png"]).voxels[:, 0]
    np.testing.assert_array_equal(voxels[:, 0, :3].T, [[0, 0, 0], [10, 20, 30], [200, 100, 50]])


def test_cut_and_damaged_png_are_told_apart(tmp_path):
    whole = save(tmp_path / "a.png", GREY).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[:-20])
    (tmp_path / "bit.png").write_bytes(whole[:50] + bytes([whole[50] ^ 1]) + whole[51:])
    for name, code in (("cut", "E_TRUNCATED"), ("bit", "E_DAMAGED")):
        with pytest.raises(ReadError, match="copy or download it again") as caught:
            read_image([tmp_path / f"{name}.png"])
        assert caught.value.code == code


def test_cut_bmp_is_refused(tmp_path):
    whole = save(tmp_path / "a.bmp", COLOUR).read_bytes()
    (tmp_path / "a.bmp").write_bytes(whole[:-15])
    with pytest.raises(ReadError, match="a.bmp is truncated.* at least 12 bytes are missing;"):
        read_image([tmp_path / "a.bmp"])


def indexed(pixels, bits, palette):
    """A BMP of 4 or 8 bits whose palette has no more colours than are used; rows from the bottom, of a multiple of four bytes."""
    rows = b""
    for row in pixels[::-1].tolist():
        pairs = zip(row[::2], [*row[1::2], 0], strict=False)
        packed = bytes(row) if bits == 8 else bytes(16 * left + right for left, right in pairs)
        rows += packed + bytes(-len(packed) % 4)
    colours = b"".join(bytes([*colour[::-1], 0]) for colour in palette)
    header = struct.pack("<IiiHHIIiiII", 40, pixels.shape[1], pixels.shape[0], 1, bits, 0, 0, 0, 0, len(palette), 0)
    start = 14 + len(header) + len(colours)
    return b"BM" + struct.pack("<IHHI", start + len(rows), 0, 0, start) + header + colours + rows


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("start_said", [None, 0, 54])
def test_a_mask_with_a_palette_of_black_and_white_is_read(tmp_path, bits, start_said):
    """Pillow took each bit of it for a pixel. The pixels may be said to start at the palette, or nowhere."""
    mask = np.array([[0, 1, 1, 0, 0], [1, 1, 1, 1, 0], [0, 0, 0, 1, 1]], np.uint8)
    content = bytearray(indexed(mask, bits, [(0, 0, 0), (255, 255, 255)]))
    if start_said is not None:
        struct.pack_into("<I", content, 10, start_said)
    (tmp_path / "a.bmp").write_bytes(content)
    np.testing.assert_array_equal(read_label_map(tmp_path / "a.bmp", values=[1], notes=[]).voxels, mask[None, None])
    np.testing.assert_array_equal(read_image([tmp_path / "a.bmp"]).voxels[:, 0], np.repeat(255.0 * mask[None], 3, 0))


def test_the_last_row_of_a_bmp_may_lack_what_fills_it_up(tmp_path):
    whole = save(tmp_path / "a.bmp", COLOUR).read_bytes()
    padding = -3 * COLOUR.shape[1] % 4
    assert padding
    (tmp_path / "a.bmp").write_bytes(whole[:-padding])
    np.testing.assert_array_equal(read_image([tmp_path / "a.bmp"]).voxels[:, 0], np.moveaxis(COLOUR, -1, 0))


def test_a_cut_mask_with_a_palette_of_two_colours_lacks_its_own_bytes(tmp_path):
    """And not those of the palette that is filled up for Pillow."""
    (tmp_path / "a.bmp").write_bytes(indexed(np.ones((4, 8), np.uint8), 8, [(0, 0, 0), (255, 255, 255)])[:-13])
    for read in (lambda path: read_image([path]), read_geometry):
        with pytest.raises(ReadError, match="of its 8 x 4 pixels .* at least 10 bytes are missing"):
            read(tmp_path / "a.bmp")


def run_lengths(shape, pairs):
    """A BMP of 8 bits in run lengths, with all greys as its palette."""
    palette = b"".join(bytes([grey, grey, grey, 0]) for grey in range(256))
    header = struct.pack("<IiiHHIIiiII", 40, shape[1], shape[0], 1, 8, 1, len(pairs), 0, 0, 256, 256)
    start = 14 + len(header) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(pairs), 0, 0, start) + header + palette + pairs


def test_bmp_in_run_lengths_is_read_also_where_it_skips_pixels(tmp_path):
    """Rows come from the bottom; the end of a line is 0 0, that of the picture 0 1, and 0 2 X Y goes on there."""
    (tmp_path / "a.bmp").write_bytes(run_lengths((2, 255), bytes([255, 9, 0, 0, 255, 7, 0, 1])))
    voxels = read_image([tmp_path / "a.bmp"]).voxels
    np.testing.assert_array_equal(voxels[0, 0], [[7] * 255, [9] * 255])
    (tmp_path / "skips.bmp").write_bytes(run_lengths((3, 600), bytes([1, 9, 0, 0, 0, 2, 255, 0, 1, 7, 0, 0, 1, 5, 0, 0, 0, 1])))
    voxels = read_image([tmp_path / "skips.bmp"]).voxels[0, 0]
    assert (voxels[2, 0], voxels[1, 255], voxels[0, 0]) == (9, 7, 5) and voxels.sum() == 21


def test_an_animation_is_refused(tmp_path):
    frames = [PillowImage.fromarray(GREY + index) for index in range(3)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    with pytest.raises(ReadError, match="animation of 3 pictures"):
        read_image([tmp_path / "a.png"])


def test_jpeg_is_refused_by_name_and_by_content(tmp_path):
    stream = io.BytesIO()
    PillowImage.fromarray(GREY).save(stream, format="JPEG")
    for name in ("a.jpg", "a.png"):
        (tmp_path / name).write_bytes(stream.getvalue())
        with pytest.raises(ReadError, match="original images"):
            read_image([tmp_path / name])


def test_other_content_than_the_name_says_is_refused(tmp_path):
    save(tmp_path / "a.bmp", GREY)
    (tmp_path / "a.bmp").rename(tmp_path / "a.png")
    with pytest.raises(ReadError, match="begins with b'BM") as caught:
        read_image([tmp_path / "a.png"])
    assert caught.value.code == "E_FORMAT"


def test_a_picture_beyond_pillows_limit_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(PillowImage, "MAX_IMAGE_PIXELS", 4)
    path = save(tmp_path / "a.png", GREY)
    np.testing.assert_array_equal(read_image([path]).voxels[0, 0], GREY)
    assert read_geometry(path).shape == (1, 3, 5)


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path):
    path = hand_made_png(tmp_path / "a.png", 60000, 60000, 8, 0, [b"\0"])
    for read in (lambda: read_image([path]), lambda: read_geometry(path)):
        with pytest.raises(ReadError, match="60000 x 60000 pixels.*tiles"):
            read()


@pytest.mark.parametrize(("ending", "largest"), [(".png", 255), (".png", 65535), (".bmp", 255)])
def test_label_maps_come_back_with_their_values(tmp_path, ending, largest):
    label = np.zeros((1, 3, 5), np.int32)
    label[0, 1, 2:] = (1, 2, largest)
    image = Image.canonical(label[None].astype(np.float32), Geometry(label.shape, (1.0, 1.0, 1.0)))
    write_label_map(tmp_path / f"a{ending}", label, image)
    np.testing.assert_array_equal(read_label_map(tmp_path / f"a{ending}").voxels[0], label)
    np.testing.assert_array_equal(np.asarray(PillowImage.open(tmp_path / f"a{ending}")), label[0])


def test_what_a_png_cannot_hold_is_refused_and_leaves_no_file(tmp_path):
    flat = Image.canonical(np.zeros((1, 1, 3, 5), np.float32), Geometry((1, 3, 5), (1.0, 1.0, 1.0)))
    deep = Image.canonical(np.zeros((1, 2, 3, 5), np.float32), Geometry((2, 3, 5), (1.0, 1.0, 1.0)))
    placed = Image.canonical(flat.voxels, Geometry((1, 3, 5), (1.0, 1.0, 1.0), (5.0, 6.0, 7.0)))
    for image, value, kind in ((flat, -1, ReadError), (flat, 70000, ReadError), (deep, 1, GeometryError),
                               (placed, 1, GeometryError)):
        with pytest.raises(kind):
            write_label_map(tmp_path / "a.png", np.full(image.geometry.shape, value), image)
    with pytest.raises(ReadError, match="as .tif"):
        write_volume(tmp_path / "a.png", flat.voxels, flat)
    assert list(tmp_path.iterdir()) == []
