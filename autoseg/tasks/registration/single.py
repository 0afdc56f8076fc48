"""A single pair of files as a dataset of its own: what `autoseg register` gives to the stages."""

from __future__ import annotations

from pathlib import Path

from autoseg.core.case import Case, Unit
from autoseg.core.errors import DatasetError, GeometryError, UsageError
from autoseg.core.image import Image
from autoseg.core.spec import ChannelSpec, DatasetSpec, InputSpec
from autoseg.io.images import read_image, split_ending
from autoseg.io.layouts import is_safe_id
from autoseg.tasks.registration.spec import RegistrationOptions, pair_unit
from autoseg.tasks.registration.target import LABEL, LANDMARKS


def single_pair(fixed: Path, moving: Path, options: RegistrationOptions, *, channel: str, labels: Path | None = None,
                fixed_labels: Path | None = None, landmarks: tuple[Path, Path] | None = None) -> tuple[DatasetSpec, Unit]:
    """The specification and the unit of two image files.

    Args:
        channel: what the images are (`CT`, `MRI`), which decides their normalisation.
        labels, fixed_labels: label maps of the moving and of the fixed image; the moving one's alone are warped, both are scored.
        landmarks: of the fixed and of the moving image.
    Raises:
        UsageError: both images are one file, or what is alike would have to be learned first.
        GeometryError: one image is flat and the other is not.
        DatasetError: numbers of channels differ, or labels are given for the fixed image only.
    """
    if fixed.resolve() == moving.resolve():
        raise UsageError(f"{fixed} is given as fixed and as moving image; give two images")
    if options.similarity == "patches":
        raise UsageError("'patches' are learned from many aligned pairs, and one pair is registered without training",
                         hint="train with 'similarity: patches' and predict with the bundle, or take another similarity")
    if fixed_labels is not None and labels is None:
        raise DatasetError("labels are given of the fixed image only, so nothing can be warped or compared; give those of the "
                           "moving image, too", code="E_ONE_SIDED", hint="--labels FILE")
    images = [read_image([path]) for path in (fixed, moving)]
    require_alike(fixed, images[0], moving, images[1])
    names = [case_id(path) for path in (fixed, moving)]
    if names[0] == names[1]:
        names = [f"{names[0]}_fixed", f"{names[1]}_moving"]
    targets: list[dict[str, Path]] = [{}, {}]
    for role, paths in ((LABEL, (fixed_labels, labels)), (LANDMARKS, landmarks or (None, None))):
        for place, path in enumerate(paths):
            if path is not None:
                targets[place][role] = path
    cases = [Case(name, name, {"image": (path,)}, held) for name, path, held in zip(names, (fixed, moving), targets, strict=True)]
    count = len(images[0].voxels)
    channels = tuple(ChannelSpec(channel if count == 1 else f"{channel} {place}") for place in range(count))
    from dataclasses import asdict

    spec = DatasetSpec("pair", "registration", (), inputs=(InputSpec("image", channels=channels),), options=asdict(options))
    return spec, pair_unit(cases[0], cases[1])


def require_alike(fixed: Path, first: Image, moving: Path, second: Image) -> None:
    """Raises where two images cannot be registered: their channels or their dimensions differ."""
    if len(first.voxels) != len(second.voxels):
        raise DatasetError(f"the fixed image {fixed} has {len(first.voxels)} channel(s) and the moving image {moving} "
                           f"{len(second.voxels)}; give images of the same channels", code="E_CHANNELS")
    flat = [1 in image.geometry.shape for image in (first, second)]
    if flat[0] != flat[1]:
        raise GeometryError(f"{fixed} is {_what(first)} and {moving} {_what(second)} (z, y, x); register images of the same "
                            "dimensions")


def case_id(path: Path) -> str:
    """The name of a file without ending.

    Raises:
        UsageError: it cannot be part of a file name everywhere.
    """
    name = split_ending(path)[0].removesuffix("_0000")
    if not is_safe_id(name):
        raise UsageError(f"{path}: {name!r} cannot name what is written; use letters, digits, '.', '_' and '-' only")
    return name


def _what(image: Image) -> str:
    return f"a {'slice' if 1 in image.geometry.shape else 'volume'} of {' x '.join(map(str, image.geometry.shape))} voxels"
