"""Reading and writing images: one door for all formats, canonical orientation inside, the stored grid outside.

NIfTI is decoded by nibabel, NRRD and MHA by SimpleITK, PNG and BMP by Pillow, TIFF by tifffile. Array order is
(C, Z, Y, X); formats' own x, y, z order and world frames (NIfTI: right, anterior, superior; ITK: left, posterior,
superior) end in this package.
"""

from autoseg.io.images.door import (
    accepted_of,
    grids_agree,
    read_geometry,
    read_image,
    read_label_map,
    states_spacing,
    write_label_map,
    write_volume,
)
from autoseg.io.images.endings import (
    ENDINGS,
    LOSSY_ENDINGS,
    PICTURE_ENDINGS,
    float_ending,
    format_advice,
    image_ending,
    picture_ending,
    split_ending,
    written_ending,
)
from autoseg.io.images.folder import files_by_case
from autoseg.io.images.spacings import companion_file
from autoseg.io.images.steady import unchanged
from autoseg.io.images.stored import STRICTLY, Accepted, Note

__all__ = ["ENDINGS", "LOSSY_ENDINGS", "PICTURE_ENDINGS", "STRICTLY", "Accepted", "Note", "accepted_of", "companion_file",
           "files_by_case", "float_ending", "format_advice", "grids_agree", "image_ending", "picture_ending",
           "read_geometry", "read_image", "read_label_map", "split_ending", "states_spacing", "unchanged", "write_label_map",
           "write_volume", "written_ending"]
