"""Image files of formats that are not read, in a folder of images to predict: nobody should wait for a prediction of them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from autoseg.core.case import Case
from autoseg.core.text import printable
from autoseg.io.images.endings import SERIES_ENDINGS, format_advice, is_unread_image, split_ending
from autoseg.io.layouts import Files
from autoseg.io.problems import Problem

_CHANNEL = re.compile(r"_\d{4}$")


def unread_images(files: Files, cases: Iterable[Case]) -> list[Problem]:
    """One problem for each image that only lies there in a format that is not read; the slices of a folder are one image.

    A file beside one of a case with the same name is a copy in another format and no problem.
    """
    read = {_image_name(path) for case in cases for group in case.inputs.values() for path in group}
    images: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name in files.names:
        path = PurePosixPath(name)
        if is_unread_image(path):
            is_slice = path.suffix.lower() in SERIES_ENDINGS
            images[(path.parent.as_posix(), path.parent.name if is_slice else _image_name(path))].append(name)
    return [_refused(files.folder, image or _image_name(PurePosixPath(names[0])), names)
            for (_, image), names in sorted(images.items()) if image not in read]


def _image_name(path: Path | PurePosixPath) -> str:
    """The name of a file without ending and nnU-Net's number of a channel."""
    return _CHANNEL.sub("", split_ending(Path(path))[0])


def _refused(folder: Path, image: str, names: list[str]) -> Problem:
    more = f" (and {len(names) - 1} more of it)" if len(names) > 1 else ""
    return Problem(printable(image), "E_FORMAT", f"{printable(str(folder / names[0]))}{more} is not an image file that can be "
                   f"read; {format_advice(PurePosixPath(names[0]).suffix)}")
