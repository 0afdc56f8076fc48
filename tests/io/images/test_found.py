"""What fuzzing found: each input ended in a traceback, a hang or gigabytes of memory before it was refused."""

from __future__ import annotations

import gzip
import logging
import os
import struct
import time
import zlib

import numpy as np
import pytest
import tifffile
from bad_inputs import SCALE, nifti_bytes, patched

from autoseg.core.errors import ReadError
from autoseg.io.images import read_geometry, read_image

VOXELS = np.arange(60, dtype=np.int16).reshape(5, 4, 3)


def refused(path, content, code):
    """Both readers refuse, soon, and name the file."""
    path.write_bytes(content)
    start = time.monotonic()
    for read in (lambda: read_image([path]), lambda: read_geometry(path)):
        with pytest.raises(ReadError, match=path.name) as caught:
            read()
        assert caught.value.code == code
    assert time.monotonic() - start < 2


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_a_nifti_2_that_ends_inside_its_header(tmp_path, ending):
    """nibabel: WrapStructError, which is none of its header errors."""
    content = struct.pack("<i", 540) + b"n+2\0\r\n\x1a\n" + bytes(400)
    refused(tmp_path / f"a{ending}", gzip.compress(content) if ending == ".nii.gz" else content, "E_TRUNCATED")


def tiff(*pages: tuple[int, bytes], entries: int = 0) -> bytes:
    """A little-endian TIFF of pages without tags, each with the offset of the next."""
    return b"II*\0" + struct.pack("<I", 8) + b"".join(struct.pack("<H", entries) + tags + struct.pack("<I", following)
                                                     for following, tags in pages)


def test_a_tiff_whose_pages_go_in_a_circle(tmp_path):
    """tifffile follows them for ever."""
    refused(tmp_path / "a.tif", tiff((14, b""), (8, b"")), "E_DAMAGED")


def test_a_big_tiff_whose_first_page_lies_beyond_all_memory(tmp_path):
    """struct: OverflowError."""
    refused(tmp_path / "a.tif", b"II+\0" + struct.pack("<HHQ", 8, 0, 2**64 - 1) + bytes(64), "E_TRUNCATED")


def test_a_tiff_without_width(tmp_path):
    """tifffile: ZeroDivisionError."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, VOXELS.astype(np.uint16), photometric="minisblack", compression="zlib")
    with tifffile.TiffFile(path) as file:
        place = file.pages.first.tags["ImageWidth"].valueoffset
    content = path.read_bytes()
    path.write_bytes(patched(content, place, "<H", 0))
    with pytest.raises(ReadError, match=r"a\.tif"):
        read_image([path])


def test_a_tiff_that_is_no_image_is_told_in_one_sentence(tmp_path, caplog, capfd):
    """tifffile logs a line for every tag."""
    tags = struct.pack("<HHII", 256, 0, 1, 1) * 20
    with caplog.at_level(logging.DEBUG):
        refused_or_read = tmp_path / "a.tif"
        refused_or_read.write_bytes(tiff((0, tags), entries=20))
        with pytest.raises(ReadError):
            read_image([refused_or_read])
    assert not caplog.records and capfd.readouterr() == ("", "")


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def test_a_png_of_many_pixels_and_few_bytes(tmp_path):
    """4 x 167,772,165 pixels in 84 bytes: Pillow takes the memory before it finds that nothing is there."""
    body = zlib.compress(bytes(15))
    path = tmp_path / "a.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 167772165, 8, 0, 0, 0, 0))
                     + chunk(b"IDAT", body) + chunk(b"IEND", b""))
    with pytest.raises(ReadError, match=r"a\.png.*cannot hold its 4 x 167772165 pixels") as caught:
        read_image([path])
    assert caught.value.code == "E_TRUNCATED"


def test_a_deep_png_with_a_transparent_colour_has_three_channels(tmp_path):
    """SimpleITK makes the transparency a fourth channel. Here no pixel has that colour."""
    pixels = np.arange(60, dtype=">u2").reshape(4, 5, 3)
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    (tmp_path / "a.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 5, 4, 16, 2, 0, 0, 0)) + chunk(b"tRNS", b"\xff" * 6)
        + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
    np.testing.assert_array_equal(read_image([tmp_path / "a.png"]).voxels[:, 0], np.moveaxis(pixels, -1, 0))


def header(columns, rows):
    """The IHDR chunk of a PNG in 8-bit colour."""
    return chunk(b"IHDR", struct.pack(">IIBBBBB", columns, rows, 8, 2, 0, 0, 0))


@pytest.mark.parametrize(("before", "after"), [(header(2**29, 1), header(4, 5)), (chunk(b"tIME", bytes(7)) + header(4, 5), b"")])
def test_a_png_with_two_headers_or_with_one_behind_other_chunks(tmp_path, before, after):
    """Pillow believes the first, of which nobody had asked whether its pixels fit: MemoryError."""
    path = tmp_path / "a.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + before + chunk(b"IDAT", zlib.compress(bytes(80))) + after + chunk(b"IEND", b""))
    with pytest.raises(ReadError, match=r"a\.png.*IHDR") as caught:
        read_image([path])
    assert caught.value.code == "E_HEADER"


def test_a_png_whose_rows_are_longer_than_pillow_counts(tmp_path):
    """Pillow: MemoryError, with any memory."""
    columns = 2**31 // 24
    content = b"\x89PNG\r\n\x1a\n" + header(columns, 1) + chunk(b"IDAT", bytes(columns // 1032 + 1)) + chunk(b"IEND", b"")
    refused(tmp_path / "a.png", content, "E_TOO_LARGE")


@pytest.mark.parametrize(("bits", "compression", "code"), [(24, 1, "E_TOO_LARGE"), (8, 1, "E_TOO_LARGE"), (4, 2, "E_TOO_LARGE"),
                                                           (24, 0, "E_TRUNCATED"), (1, 0, "E_TRUNCATED")])
def test_a_bmp_of_many_pixels_and_few_bytes(tmp_path, bits, compression, code):
    """60,000,000 x 5 pixels in some thousand bytes: Pillow fills rows up, pixel by pixel, for 10 s."""
    head = struct.pack("<IiiHHIIiiII", 40, 60_000_000, 5, 1, bits, compression, 0, 0, 0, 0, 0)
    start = 1078 if bits == 8 else 54
    content = b"BM" + struct.pack("<IHHI", 114, 0, 0, start) + head + bytes(start - 54) + b"\1\0\0\0" * 5 + b"\0\1"
    refused(tmp_path / "a.bmp", content, code)


def test_a_tiff_of_many_pixels_and_few_bytes(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((64, 64), np.uint8), compression="zlib", metadata=None)
    content = bytearray((tmp_path / "a.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        places = [file.pages.first.tags[name].valueoffset for name in ("ImageWidth", "ImageLength", "RowsPerStrip")]
        kinds = [file.pages.first.tags[name].dtype for name in ("ImageWidth", "ImageLength", "RowsPerStrip")]
    for place, kind in zip(places, kinds, strict=True):
        struct.pack_into("<H" if kind == 3 else "<I", content, place, 30000)
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(ReadError, match=r"a\.tif.*cannot hold its image of \(30000, 30000\)"):
        read_image([tmp_path / "a.tif"])


def test_numbers_that_cannot_be_scaled_are_no_warning_of_a_library(tmp_path, recwarn):
    """numpy: RuntimeWarning, "invalid value encountered in cast", of a signalling nan."""
    content = nifti_bytes(VOXELS.astype(np.float32))
    content = patched(patched(content, SCALE, "<ff", 2.0, 0.0), 352, "<I", 0x7F800001)
    (tmp_path / "a.nii").write_bytes(content)
    with pytest.raises(ReadError, match="1 nan"):
        read_image([tmp_path / "a.nii"])
    assert not [warning for warning in recwarn if warning.category is RuntimeWarning]


def nrrd(field: str = "encoding: raw", skip: bytes = b"") -> bytes:
    """A sound NRRD of 3 x 4 x 5 voxels with one more line, or with one of its lines changed."""
    lines = dict.fromkeys(("type: short", "dimension: 3", "sizes: 3 4 5", "endian: little", "encoding: raw"))
    kept = [line for line in lines if line.partition(":")[0] != field.partition(":")[0]]
    return ("NRRD0004\n" + "\n".join([*kept, field]) + "\n\n").encode("latin-1") + skip + VOXELS.tobytes()


def mha(field: str = "Comment = none") -> bytes:
    """A sound MHA of 3 x 4 x 5 voxels with one more line, or with one of its lines changed."""
    lines = ("ObjectType = Image", "NDims = 3", "BinaryData = True", "DimSize = 3 4 5", "ElementType = MET_SHORT")
    kept = [line for line in lines if line.partition(" ")[0] != field.partition(" ")[0]]
    return ("\n".join([*kept, field]) + "\nElementDataFile = LOCAL\n").encode("latin-1") + VOXELS.tobytes()


def many(line: str) -> str:
    return "\n".join(line.format(place) for place in range(60_000))


@pytest.mark.parametrize(("ending", "content", "code"), [
    # NrrdIO formats messages that repeat the line into a buffer on its stack: a crash, with an address from the file.
    (".nrrd", nrrd("type: " + "s" * 1100), "E_HEADER"), (".nrrd", nrrd("y" * 1100), "E_HEADER"),
    (".nrrd", nrrd("spacings: 1 " + "9" * 100_000), "E_HEADER"), (".nrrd", nrrd("kinds: x" + " " * 500_000), "E_HEADER"),
    # It counts to 2^31 - 1 in integers that cannot exceed it; and opens whatever is named.
    (".nrrd", nrrd("data file: a%d.raw 0 2147483647 1"), "E_DETACHED"), (".nrrd", nrrd("datafile: LIST"), "E_DETACHED"),
    # It compares every key with every other: minutes.
    (".nrrd", nrrd(many("k{}:=v")), "E_HEADER"), (".nrrd", nrrd(many("# {}")), "E_HEADER"),
    # It ends lines at a carriage return, and texts at a zero.
    (".nrrd", nrrd("k:=v\r" + "y" * 1100), "E_HEADER"), (".nrrd", nrrd("k:=\0v"), "E_HEADER"),
    # Skipped bytes were not skipped where we inflate.
    (".nrrd", nrrd("encoding: gzip\nbyte skip: 4"), "E_HEADER"),
    # MetaIO never ends, or ends the process.
    (".mha", mha("NDims = -1"), "E_HEADER"), (".mha", mha("NDims = 5000"), "E_HEADER"),
    # It copies texts into 255 bytes: a crash, or another origin.
    (".mha", mha("Name = " + "n" * 400), "E_HEADER"), (".mha", mha("ObjectSubType = " + "o" * 400), "E_HEADER"),
    (".mha", mha("Name\nkey = " + "n" * 400), "E_HEADER"), (".mha", mha("\v Name = " + "n" * 400), "E_HEADER"),
    # It took bytes of the header for voxels.
    (".mha", mha("HeaderSize = 4"), "E_HEADER"),
    # It keeps 9 kB for every line.
    (".mha", mha(many("k{} = v")), "E_HEADER"),
    # Without the right first bytes SimpleITK tries all of its twenty formats.
    (".nrrd", b"\x89HDF\r\n\x1a\n" + bytes(2000), "E_FORMAT"), (".mha", bytes(128) + b"DICM" + bytes(2000), "E_FORMAT"),
], ids=lambda value: None if isinstance(value, bytes) else value)
def test_a_header_that_a_native_parser_does_not_survive(tmp_path, ending, content, code):
    refused(tmp_path / f"a{ending}", content, code)


def test_a_nrrd_whose_voxels_are_in_a_pipe(tmp_path):
    """NrrdIO waits for somebody to write into it."""
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "a.nrrd", nrrd("data file: pipe"), "E_DETACHED")


@pytest.mark.parametrize(("name", "content"), [
    ("a.nrrd", nrrd()), ("a.nrrd", nrrd("note:=it says: " + "v" * 5000)), ("a.nrrd", nrrd("# " + "v" * 5000)),
    ("a.nrrd", nrrd("byte skip: 4", bytes(4))), ("a.nrrd", nrrd("byte skip: -1")), ("a.nrrd", nrrd("content: heart", b"")),
    ("a.nrrd", nrrd().replace(b"\n", b"\r\n", 7)),
    ("a.mha", mha()), ("a.mha", mha("note = " + "v" * 5000)), ("a.mha", mha("Name = " + "n" * 254)), ("a.mha", mha("Comment =")),
    ("a.mha", mha("HeaderSize = -1")),
])
def test_headers_that_are_long_but_ordinary_are_read(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    # Without a place in the patient both formats point to the left, posterior and superior.
    np.testing.assert_array_equal(read_image([path], notes=[]).voxels[0], VOXELS)
