"""Fuzzes one image reader: any bytes become a sound image or a refusal, nothing else.

    PYTHONPATH=.:tests python tests/io/images/fuzz_readers.py hypothesis .nii.gz EXAMPLES
    PYTHONPATH=.:tests python tests/io/images/fuzz_readers.py atheris .nii.gz RUNS [SEED]

A process of its own, because readers of native code can end it. Ends with 0 when nothing was found. What was found is
printed; it becomes a file of `test_found.py`. Runs are counted, not seconds, so that a slow machine tries as many.
"""

from __future__ import annotations

import gzip
import io
import logging
import os
import struct
import sys
import tempfile
import zlib
from importlib import import_module
from pathlib import Path

RSS_LIMIT_MB = 4096
# Native parsers keep lines, names and messages in buffers of 255 to 4096 bytes.
REPEATED = 600
# What native parsers look for, which no coverage leads to.
WORDS = {".nrrd": ("data file: ", "LIST", "%d 0 9 1", "line skip: ", "byte skip: ", "kinds: ", "space: ", "dimension: ", ":=",
                   "-1", "2147483648", "\\x0a\\x0a"),
         ".mha": ("NDims = ", "Name = ", "ObjectSubType = ", "HeaderSize = ", "ElementNumberOfChannels = ", "LIST", "-1",
                  "CompressedDataSize = ", "2147483648", "TransformMatrix = ")}


def seeds(ending: str) -> list[bytes]:
    """Small sound files of a format, of several kinds."""
    import numpy as np
    import tifffile
    from bad_inputs import forms, itk_bytes, nifti_bytes
    from PIL import Image

    voxels = np.arange(60, dtype=np.int16).reshape(5, 4, 3)
    if ending.startswith(".nii"):
        plain = [nifti_bytes(voxels), nifti_bytes(voxels.astype(np.float32)), gzip.decompress(forms(None, None)(voxels))]
        return [gzip.compress(content, mtime=0) for content in plain] if ending == ".nii.gz" else plain
    if ending in (".nrrd", ".mha"):
        return [itk_bytes(voxels, ending, compressed) for compressed in (False, True)]
    pictures = [Image.fromarray(pixels) for pixels in (voxels[:, :, 0].astype(np.uint8), voxels.astype(np.uint8))]
    if ending == ".png":
        pictures += [pictures[0].convert("1"), pictures[1].convert("P"), Image.fromarray(voxels[:, :, 0].astype(np.uint16))]
    streams = []
    for picture in pictures:
        streams.append(io.BytesIO())
        picture.save(streams[-1], format={".png": "PNG", ".bmp": "BMP", ".tif": "TIFF"}[ending])
    if ending == ".tif":
        for options in ({"imagej": True}, {"ome": True}, {"compression": "zlib"}, {"bigtiff": True}, {"tile": (16, 16)}):
            streams.append(io.BytesIO())
            tifffile.imwrite(streams[-1], voxels.astype(np.uint16), **options)
    return [stream.getvalue() for stream in streams]


def resigned(content: bytes) -> bytes:
    """A PNG with right checksums, so that what lies behind them is reached."""
    place, parts = 8, [content[:8]]
    while place + 12 <= len(content):
        length = min(struct.unpack(">I", content[place:place + 4])[0], len(content) - place - 12)
        body = content[place + 4:place + 8 + length]
        parts.append(struct.pack(">I", length) + body + struct.pack(">I", zlib.crc32(body)))
        place += 12 + length
    return b"".join(parts)


def read(path: Path, content: bytes) -> None:
    """Reads as every command does; whatever is not said to be bad must be sound."""
    import numpy as np

    from autoseg.core.errors import AutosegError
    from autoseg.io.images import read_geometry, read_image, read_label_map

    path.write_bytes(content)
    try:
        image = read_image([path], notes=[])
    except AutosegError as error:
        assert str(path) in str(error), f"the file is not named: {error}"
        image = None
    if image is not None:
        assert image.voxels.dtype == np.float32 and np.isfinite(image.voxels).all()
        assert image.voxels.shape[1:] == image.geometry.shape
        assert read_geometry(path) == image.stored
    for reader in (read_geometry, lambda path: read_label_map(path, values=[1], notes=[])):
        try:
            reader(path)
        except AutosegError as error:
            assert str(path) in str(error), f"the file is not named: {error}"


def by_hypothesis(ending: str, examples: int, path: Path) -> None:
    """Sound files with bytes changed, put in, put in many times, left out and cut off, at places chosen evenly."""
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st

    sound = seeds(ending)
    kinds = st.sampled_from(("set", "insert", "repeat", "delete", "cut"))
    edits = st.lists(st.tuples(st.floats(0, 1), kinds, st.binary(min_size=1, max_size=8)), min_size=1, max_size=4)

    @settings(max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(range(len(sound))), edits)
    def check(which: int, changes: list[tuple[float, str, bytes]]) -> None:
        content = bytearray(gzip.decompress(sound[which]) if ending == ".nii.gz" else sound[which])
        for share, kind, written in changes:
            place = int(share * len(content))
            stop = {"set": place + len(written), "delete": place + len(written), "cut": len(content)}.get(kind, place)
            content[place:stop] = {"set": written, "insert": written, "repeat": written * REPEATED}.get(kind, b"")
        read(path, packed(ending, bytes(content)))

    check()


def packed(ending: str, content: bytes) -> bytes:
    """Checksums made right, where a format has some."""
    return gzip.compress(content, 1, mtime=0) if ending == ".nii.gz" else resigned(content) if ending == ".png" else content


def by_atheris(ending: str, runs: int, seed: int, path: Path) -> None:
    """Guided by which lines of the Python readers a change reaches."""
    import atheris
    from standstill import SECONDS_PER_INPUT, Standstill

    library, reader = {".nii": ("nibabel", "nifti"), ".gz": ("nibabel", "nifti"), ".nrrd": (None, "itk"), ".mha": (None, "itk"),
                       ".tif": ("tifffile", "tiff")}.get(path.suffix, ("PIL", "raster"))
    with atheris.instrument_imports(include=["autoseg", *([library] if library else [])]):  # SimpleITK is native
        import_module("autoseg.io.images.door")
        import_module(f"autoseg.io.images.{reader}")
    corpus = path.parent / "corpus"
    corpus.mkdir()
    for place, content in enumerate(seeds(ending)):
        (corpus / str(place)).write_bytes(gzip.decompress(content) if ending == ".nii.gz" else content)
    words = path.parent / "words.txt"
    words.write_text("".join(f'"{word}"\n' for word in WORDS.get(ending, ())))
    arguments = [*([f"-dict={words}"] if ending in WORDS else []), f"-runs={runs}", f"-rss_limit_mb={RSS_LIMIT_MB}",
                 f"-timeout={SECONDS_PER_INPUT}", f"-seed={seed}", "-max_len=4096", "-verbosity=0",
                 f"-artifact_prefix={path.parent}/", str(corpus)]

    clock = Standstill()

    def watched(content: bytes) -> None:
        clock.start()
        read(path, packed(ending, content))

    atheris.Setup([sys.argv[0], *arguments], watched)
    atheris.Fuzz()


def main() -> None:
    kind, ending, amount = sys.argv[1], sys.argv[2], int(sys.argv[3])
    logging.disable(logging.CRITICAL)
    folder = Path(tempfile.mkdtemp(dir=os.environ.get("AUTOSEG_FUZZ_FOLDER")))
    path = folder / f"a{ending}"
    if kind == "hypothesis":
        by_hypothesis(ending, amount, path)
    else:
        by_atheris(ending, amount, int(sys.argv[4]) if len(sys.argv) > 4 else 1, path)


if __name__ == "__main__":
    main()
