"""Reading and writing images: one door for all formats, canonical orientation inside, the stored grid outside.

NIfTI is decoded by nibabel, NRRD and MHA by SimpleITK. Array order is (C, Z, Y, X); formats' own x, y, z order and
world frames (NIfTI: right, anterior, superior; ITK: left, posterior, superior) end in this package.
"""

from autoseg.io.images.door import (
    read_geometry,
    read_image,
    read_label_map,
    write_label_map,
    write_volume,
)
from autoseg.io.images.endings import ENDINGS, image_ending

__all__ = ["ENDINGS", "image_ending", "read_geometry", "read_image", "read_label_map", "write_label_map", "write_volume"]
