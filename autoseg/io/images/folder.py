"""The images in a folder of results."""

from __future__ import annotations

from pathlib import Path

from autoseg.core.errors import DatasetError
from autoseg.io.images.endings import PICTURE_ENDINGS, image_ending


def files_by_case(folder: Path) -> dict[str, Path]:
    """Image files of a folder by their name without ending, sorted; probabilities are left out, and pictures (PNG, TIFF)
    beside volumes, which are previews.

    Raises:
        DatasetError: there is no such folder.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder} is not a folder")
    files = {}
    paths = sorted(folder.iterdir())
    has_volumes = any(image_ending(path) not in (None, *PICTURE_ENDINGS) for path in paths)
    for path in paths:
        ending = image_ending(path)
        if has_volumes and ending in PICTURE_ENDINGS:
            continue
        if ending and not path.name.startswith(".") and not path.name.endswith(f"_probabilities{ending}"):
            files[path.name[: -len(ending)]] = path
    return files
