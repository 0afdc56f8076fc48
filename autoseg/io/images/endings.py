"""Endings of the image files that can be read and written."""

from __future__ import annotations

from pathlib import Path, PurePath

from autoseg.io.npz import entry_of

NIFTI_ENDINGS = (".nii.gz", ".nii")
ITK_ENDINGS = (".nrrd", ".mha")
TIFF_ENDINGS = (".tif", ".tiff")
RASTER_ENDINGS = (".png", ".bmp")
# Formats that say where a voxel lies in the patient.
VOLUME_ENDINGS = (*NIFTI_ENDINGS, *ITK_ENDINGS)
# Formats of photographs and microscopy: pixels, in a TIFF perhaps their size, and no place in a patient.
PICTURE_ENDINGS = (*RASTER_ENDINGS, *TIFF_ENDINGS)
ENDINGS = (*VOLUME_ENDINGS, *PICTURE_ENDINGS)
# Refused: their compression changes values, so that neither labels nor intensities are what was measured.
LOSSY_ENDINGS = (".jpg", ".jpeg", ".jpe", ".jfif", ".jp2", ".webp")

# Of those, what is read where a specification says that inputs are `lossy`.
JPEG_ENDINGS = (".jpg", ".jpeg", ".jpe", ".jfif")
# Of formats that keep every slice of an image in a file of its own.
SERIES_ENDINGS = (".dcm", ".ima")
# Of an entry in an archive (`io.npz`), which has no ending of its own; nothing is written under it.
ENTRY_ENDING = ".npz/"

# Known and not read; what to do instead.
_OTHER_FORMATS = {
    **dict.fromkeys((".img", ".hdr"), "Analyze files do not say where right and left are, and pairs of files get separated; "
                    "export the original again as .nii.gz"),
    **dict.fromkeys((".mhd", ".nhdr"), "its voxels are in another file; save the image as one file, .mha or .nrrd"),
    **dict.fromkeys((".mgz", ".mgh"), "convert it to .nii.gz, for example with FreeSurfer's mri_convert"),
    **dict.fromkeys(SERIES_ENDINGS, "convert the series to .nii.gz, for example with dcm2niix"),
}


def image_ending(path: Path) -> str | None:
    """The ending of `path` if it is one of `ENDINGS` (letter case does not matter), `ENTRY_ENDING` of an entry in an archive,
    else None."""
    name = path.name.lower()
    if name.endswith(ENDINGS):
        return next(ending for ending in ENDINGS if name.endswith(ending))
    return ENTRY_ENDING if entry_of(path) is not None else None


def picture_ending(path: Path) -> str | None:
    """As `image_ending`, and of JPEG files too."""
    return image_ending(path) or next((ending for ending in JPEG_ENDINGS if path.name.lower().endswith(ending)), None)


def written_ending(path: Path) -> str:
    """The ending under which what is made of an image is written: that of its file, or of a lossless format where that file
    is a JPEG (PNG) or an entry in an archive (NIfTI)."""
    ending = picture_ending(path)
    return {None: "", ENTRY_ENDING: ".nii.gz"}.get(ending, ".png" if ending in JPEG_ENDINGS else ending or "")


def is_unread_image(path: PurePath) -> bool:
    """True for files of formats of medical images that are not read."""
    return path.suffix.lower() in _OTHER_FORMATS


def split_ending(path: Path) -> tuple[str, str]:
    """Name of an image file without its ending, and the ending as it is written; `.nii.gz` counts as one."""
    size = 0 if entry_of(path) is not None else len(image_ending(path) or path.suffix)
    return (path.name[:-size], path.name[-size:]) if size else (path.name, "")


def float_ending(ending: str) -> str:
    """The ending under which float volumes lie beside label maps with `ending`: PNG and BMP hold whole numbers, so TIFF."""
    return ".tif" if ending.lower() in RASTER_ENDINGS else ending


def format_advice(ending: str) -> str:
    """What to do about files with an ending that cannot be read."""
    if ending.lower() in LOSSY_ENDINGS:
        accept = ", or say of an input that it is `lossy: true` in the specification" if ending.lower() in JPEG_ENDINGS else ""
        return (f"{ending} is compressed with loss, which changes intensities and label values, and is not read; use the "
                f"original images, or, knowing what was lost, convert to .png{accept}")
    if ending.lower() in _OTHER_FORMATS:
        return f"{ending} is not read: {_OTHER_FORMATS[ending.lower()]}"
    return f"endings that can be read and written are {', '.join(ENDINGS)}"
