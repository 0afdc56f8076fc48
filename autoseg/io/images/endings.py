"""Endings of the image files that can be read and written."""

from __future__ import annotations

from pathlib import Path

ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha")
NIFTI_ENDINGS = (".nii.gz", ".nii")


def image_ending(path: Path) -> str | None:
    """The ending of `path` if it is one of `ENDINGS` (letter case does not matter), else None."""
    return next((ending for ending in ENDINGS if path.name.lower().endswith(ending)), None)
