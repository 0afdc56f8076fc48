"""Images that no program should trust, each built from a sound one; with the code that names what is wrong.

Array order in here is that of NIfTI: x, y, z.
"""

from __future__ import annotations

import gzip
import io
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

AFFINE = np.array([[1.3, 0, 0, 10], [0, 0.7, 0, -20], [0, 0, 2.5, 30], [0, 0, 0, 1.0]])
NAN, INF = float("nan"), float("inf")
# Offsets in a NIfTI-1 header (nifti1.h).
DIM, DATATYPE, PIXDIM, VOX_OFFSET, SCALE, UNITS, FORMS, QUATERNION, SROW, MAGIC = 40, 70, 76, 108, 112, 123, 252, 256, 280, 344


@dataclass(frozen=True)
class Bad:
    """How a bad file is made from sound voxels, and the code it is refused with."""

    ending: str
    build: Callable[[NDArray], bytes]
    code: str


def nifti_bytes(voxels: NDArray, affine: NDArray = AFFINE) -> bytes:
    """A plain NIfTI-1 file with equal qform and sform."""
    image = nib.Nifti1Image(voxels, affine)
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    return image.to_bytes()


def itk_bytes(voxels: NDArray, ending: str, compressed: bool) -> bytes:
    """A NRRD or MHA file."""
    image = sitk.GetImageFromArray(voxels.T)
    image.SetSpacing((1.3, 0.7, 2.5))
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"a{ending}"
        sitk.WriteImage(image, str(path), useCompression=compressed)
        return path.read_bytes()


def patched(content: bytes, offset: int, layout: str, *values: object) -> bytes:
    """`content` with values written at an offset."""
    return content[:offset] + struct.pack(layout, *values) + content[offset + struct.calcsize(layout):]


def with_line(ending: str, field: str, line: str, compressed: bool = False) -> Callable[[NDArray], bytes]:
    """Builds a NRRD or MHA whose header line that begins with `field` is another."""
    return lambda voxels: changed_line(itk_bytes(voxels, ending, compressed), field.encode(), line.encode())


def sizes(*dims: int) -> Callable[[NDArray], bytes]:
    """Builds a plain NIfTI whose header says these dimensions."""
    return lambda voxels: patched(nifti_bytes(voxels), DIM, f"<{len(dims)}h", *dims)


def qform_with_size(size_mm: float) -> Callable[[NDArray], bytes]:
    """Builds a NIfTI that has a qform only, with this voxel size along y."""
    return lambda voxels: patched(gzip.decompress(forms(AFFINE, None)(voxels)), PIXDIM + 8, "<f", size_mm)


def changed_line(content: bytes, field: bytes, line: bytes) -> bytes:
    """A text header with the line that begins with `field` replaced by `line`."""
    start = content.index(b"\n" + field) + 1
    return content[:start] + line + content[content.index(b"\n", start):]


def flipped(content: bytes, place: int) -> bytes:
    """`content` with one bit flipped."""
    damaged = bytearray(content)
    damaged[place] ^= 16
    return bytes(damaged)


def header(offset: int, layout: str, *values: object) -> Callable[[NDArray], bytes]:
    """Builds a gzipped NIfTI with values written into its header."""
    return lambda voxels: gzip.compress(patched(nifti_bytes(voxels), offset, layout, *values))


def forms(qform: NDArray | None, sform: NDArray | None) -> Callable[[NDArray], bytes]:
    """Builds a gzipped NIfTI with these affines, None: not stated."""
    def build(voxels: NDArray) -> bytes:
        image = nib.Nifti1Image(voxels, None)
        for affine, setter in ((qform, image.set_qform), (sform, image.set_sform)):
            setter(affine, 0 if affine is None else 1, update_affine=False)
        return gzip.compress(image.to_bytes())
    return build


def with_voxels(*values: float) -> Callable[[NDArray], bytes]:
    """Builds a gzipped NIfTI whose first voxels are these."""
    def build(voxels: NDArray) -> bytes:
        odd = voxels.astype(np.float64)
        odd.flat[:len(values)] = values
        return gzip.compress(nifti_bytes(odd))
    return build


def bomb(voxels: NDArray) -> bytes:
    """Four megabytes that inflate to four gigabytes of zeros, as their header says; made in a tenth of a second."""
    start = patched(nifti_bytes(voxels.astype(np.uint8))[:352], DIM, "<8h", 3, 2000, 2000, 1000, 1, 1, 1, 1)
    zeros = gzip.compress(bytes(2**24))  # members of a gzip file follow each other (RFC 1952, 2.2)
    return gzip.compress(start) + zeros * (4 * 10**9 // 2**24 + 1)


def zeros_behind(voxels: NDArray) -> bytes:
    """The header is honest, and 160 megabytes follow that it does not speak of."""
    return gzip.compress(nifti_bytes(voxels)) + gzip.compress(bytes(2**24)) * 10


def npy(voxels: NDArray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, voxels)
    return stream.getvalue()


SHIFTED, TURNED = AFFINE.copy(), AFFINE.copy()
SHIFTED[0, 3] += 5
TURNED[:, 0] *= -1
SHEARED = AFFINE.copy()
SHEARED[0, 1] = 0.4

BAD = {
    # 1 to 4, 8, 9: what a copy or a download leaves
    "empty": Bad(".nii.gz", lambda v: b"", "E_EMPTY"),
    "half_gz": Bad(".nii.gz", lambda v: (c := gzip.compress(nifti_bytes(v)))[:len(c) // 2], "E_TRUNCATED"),
    "no_trailer": Bad(".nii.gz", lambda v: gzip.compress(nifti_bytes(v))[:-4], "E_TRUNCATED"),
    "short_plain": Bad(".nii", lambda v: nifti_bytes(v)[:2000], "E_TRUNCATED"),
    "short_inside_gz": Bad(".nii.gz", lambda v: gzip.compress(nifti_bytes(v)[:-1]), "E_TRUNCATED"),
    "wrong_checksum": Bad(".nii.gz", lambda v: flipped(gzip.compress(nifti_bytes(v)), -7), "E_DAMAGED"),
    "wrong_length": Bad(".nii.gz", lambda v: flipped(gzip.compress(nifti_bytes(v)), -1), "E_DAMAGED"),
    "flipped_bit": Bad(".nii.gz", lambda v: flipped(gzip.compress(nifti_bytes(v)), -400), "E_DAMAGED"),
    "text": Bad(".nii.gz", lambda v: b"404 not found", "E_FORMAT"),
    "plain_named_gz": Bad(".nii.gz", nifti_bytes, "E_FORMAT"),
    "gz_named_plain": Bad(".nii", lambda v: gzip.compress(nifti_bytes(v)), "E_FORMAT"),
    # 5, 6: bombs
    "bomb": Bad(".nii.gz", bomb, "E_TOO_LARGE"),
    "zeros_behind": Bad(".nii.gz", zeros_behind, "E_SIZE"),
    "second_volume": Bad(".nii", lambda v: nifti_bytes(v) + v.tobytes(), "E_SIZE"),
    "huge_gz": Bad(".nii.gz", header(DIM, "<4h", 3, 32767, 32767, 32767), "E_TRUNCATED"),
    "huge_plain": Bad(".nii", sizes(3, 32767, 32767, 32767), "E_TRUNCATED"),
    # 7, 10, 11, 23: headers
    "negative_size": Bad(".nii.gz", header(DIM + 2, "<h", -5), "E_HEADER"),
    "zero_size": Bad(".nii.gz", header(DIM + 2, "<h", 0), "E_HEADER"),
    "no_dimensions": Bad(".nii.gz", header(DIM, "<h", 0), "E_HEADER"),
    "nine_dimensions": Bad(".nii.gz", header(DIM, "<h", 9), "E_HEADER"),
    "unknown_type": Bad(".nii.gz", header(DATATYPE, "<hh", 9999, 16), "E_DTYPE"),
    "rgb": Bad(".nii.gz", header(DATATYPE, "<hh", 128, 24), "E_DTYPE"),
    "complex": Bad(".nii.gz", header(DATATYPE, "<hh", 32, 64), "E_DTYPE"),
    "float128": Bad(".nii.gz", header(DATATYPE, "<hh", 1536, 128), "E_DTYPE"),
    "offset_far": Bad(".nii.gz", header(VOX_OFFSET, "<f", 1e9), "E_TRUNCATED"),
    "offset_negative": Bad(".nii.gz", header(VOX_OFFSET, "<f", -352), "E_HEADER"),
    "offset_zero": Bad(".nii.gz", header(VOX_OFFSET, "<f", 0), "E_HEADER"),
    "offset_nan": Bad(".nii.gz", header(VOX_OFFSET, "<f", NAN), "E_HEADER"),
    "magic": Bad(".nii.gz", header(MAGIC, "4s", b"xxxx"), "E_FORMAT"),
    # 12, 14: numbers
    "few_nan": Bad(".nii.gz", with_voxels(NAN, NAN, INF), "E_NONFINITE"),
    "too_large_for_float32": Bad(".nii.gz", with_voxels(1e300), "E_NONFINITE"),
    "slope_infinite": Bad(".nii.gz", header(SCALE, "<ff", INF, 0), "E_SCALE"),
    "slope_without_intercept": Bad(".nii.gz", header(SCALE, "<ff", 2, NAN), "E_SCALE"),
    "slope_too_large": Bad(".nii.gz", header(SCALE, "<ff", 3e38, 0), "E_NONFINITE"),
    # 15 to 19: places
    "pixdim_zero": Bad(".nii", qform_with_size(0), "E_AFFINE"),
    "pixdim_nan": Bad(".nii", qform_with_size(NAN), "E_AFFINE"),
    "forms_shifted": Bad(".nii.gz", forms(AFFINE, SHIFTED), "E_AFFINE_CONFLICT"),
    "forms_mirrored": Bad(".nii.gz", forms(AFFINE, TURNED), "E_AFFINE_CONFLICT"),
    "quaternion_nan": Bad(".nii.gz", header(QUATERNION, "<f", NAN), "E_AFFINE_CONFLICT"),
    "affine_zero": Bad(".nii.gz", header(SROW, "<12f", *[0.0] * 12), "E_AFFINE_CONFLICT"),
    "sform_zero": Bad(".nii.gz", forms(None, np.diag([0.0, 0, 0, 1])), "E_AFFINE"),
    "sform_singular": Bad(".nii.gz", forms(None, AFFINE[:, [0, 0, 2, 3]]), "E_SHEAR"),
    "sform_nan": Bad(".nii.gz", forms(None, np.where(np.eye(4) == 1, NAN, AFFINE)), "E_AFFINE"),
    "sform_metres": Bad(".nii.gz", forms(None, AFFINE * 1e5), "E_SPACING"),
    "sheared": Bad(".nii.gz", forms(None, SHEARED), "E_SHEAR"),
    # 21: dimensions
    "three_volumes": Bad(".nii.gz", lambda v: gzip.compress(nifti_bytes(np.stack([v] * 3, -1))), "E_CHANNELS"),
    "five_dimensions": Bad(".nii.gz", lambda v: gzip.compress(nifti_bytes(np.zeros((*v.shape, 2, 2)))), "E_DIMENSIONS"),
    # 22: other formats
    "half_mha": Bad(".mha", lambda v: (c := itk_bytes(v, ".mha", True))[:len(c) // 2], "E_TRUNCATED"),
    "half_raw_mha": Bad(".mha", lambda v: (c := itk_bytes(v, ".mha", False))[:len(c) // 2], "E_TRUNCATED"),
    "checksum_mha": Bad(".mha", lambda v: flipped(itk_bytes(v, ".mha", True), -1), "E_DAMAGED"),
    "flipped_mha": Bad(".mha", lambda v: flipped(itk_bytes(v, ".mha", True), -400), "E_DAMAGED"),
    "detached_mha": Bad(".mha", with_line(".mha", "ElementDataFile", "ElementDataFile = /etc/hostname"), "E_DETACHED"),
    "bomb_mha": Bad(".mha", with_line(".mha", "DimSize", "DimSize = 2000 2000 1000", True), "E_TOO_LARGE"),
    "zero_size_mha": Bad(".mha", with_line(".mha", "DimSize", "DimSize = 5 4 0"), "E_HEADER"),
    "sheared_mha": Bad(".mha", with_line(".mha", "TransformMatrix", "TransformMatrix = 1 0 0 0.4 1 0 0 0 1"), "E_SHEAR"),
    "text_mha": Bad(".mha", with_line(".mha", "BinaryData =", "BinaryData = False"), "E_COMPRESSION"),
    "half_nrrd": Bad(".nrrd", lambda v: (c := itk_bytes(v, ".nrrd", True))[:len(c) // 2], "E_TRUNCATED"),
    "half_raw_nrrd": Bad(".nrrd", lambda v: (c := itk_bytes(v, ".nrrd", False))[:len(c) // 2], "E_TRUNCATED"),
    "checksum_nrrd": Bad(".nrrd", lambda v: flipped(itk_bytes(v, ".nrrd", True), -7), "E_DAMAGED"),
    "flipped_nrrd": Bad(".nrrd", lambda v: flipped(itk_bytes(v, ".nrrd", True), -400), "E_DAMAGED"),
    "detached_nrrd": Bad(".nrrd", with_line(".nrrd", "encoding", "encoding: raw\ndata file: /etc/hostname"), "E_DETACHED"),
    "sheared_nrrd": Bad(".nrrd", with_line(".nrrd", "space directions", "space directions: (1.3,0,0) (0.4,0.7,0) (0,0,2.5)"),
                        "E_SHEAR"),
    "numpy_named_nrrd": Bad(".nrrd", npy, "E_FORMAT"),
}
