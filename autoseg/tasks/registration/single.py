"""A single pair of files as a dataset of its own: what `autoseg register` gives to the stages."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from autoseg.core.case import Case, Unit
from autoseg.core.errors import DatasetError, GeometryError, UsageError
from autoseg.core.image import Image
from autoseg.core.spec import ChannelSpec, DatasetSpec, InputSpec
from autoseg.io.images import read_image, split_ending
from autoseg.io.layouts import is_safe_id
from autoseg.tasks.registration.spec import RegistrationOptions, pair_unit
from autoseg.tasks.registration.target import LABEL, LANDMARKS


@dataclass(frozen=True)
class PairFiles:
    """Files of two images, and of what is known about them.

    Attributes:
        channel: what the images are (`CT`, `MRI`), which decides their normalisation.
        labels, fixed_labels: label maps of the moving and of the fixed image; the moving one's alone are warped, both are scored.
        fixed_landmarks, moving_landmarks: both or none.
    """

    fixed: Path
    moving: Path
    channel: str = "image"
    labels: Path | None = None
    fixed_labels: Path | None = None
    fixed_landmarks: Path | None = None
    moving_landmarks: Path | None = None

    @property
    def targets(self) -> tuple[dict[str, Path], dict[str, Path]]:
        """Role -> file, of the fixed and of the moving image."""
        fixed = {LABEL: self.fixed_labels, LANDMARKS: self.fixed_landmarks}
        moving = {LABEL: self.labels, LANDMARKS: self.moving_landmarks}
        first, second = ({role: path for role, path in held.items() if path is not None} for held in (fixed, moving))
        return first, second


def single_pair(files: PairFiles, options: RegistrationOptions) -> tuple[DatasetSpec, Unit]:
    """The specification and the unit of two image files.

    Raises:
        UsageError: both images are one file, landmarks are given for one image only, or what is alike would have to be learned
            first.
        GeometryError: one image is flat and the other is not.
        DatasetError: numbers of channels differ, or labels are given for the fixed image only.
    """
    fixed, moving = files.fixed, files.moving
    if fixed.resolve() == moving.resolve():
        raise UsageError(f"{fixed} is given as fixed and as moving image; give two images")
    if (files.fixed_landmarks is None) != (files.moving_landmarks is None):
        raise UsageError("landmarks are compared between both images", hint="give --fixed-landmarks and --moving-landmarks")
    if options.similarity == "patches":
        raise UsageError("'patches' are learned from many aligned pairs, and one pair is registered without training",
                         hint="train with 'similarity: patches' and predict with the bundle, or take another similarity")
    if files.fixed_labels is not None and files.labels is None:
        raise DatasetError("labels are given of the fixed image only, so nothing can be warped or compared; give those of the "
                           "moving image, too", code="E_ONE_SIDED", hint="--labels FILE")
    images = [read_image([path]) for path in (fixed, moving)]
    require_alike(fixed, images[0], moving, images[1])
    names = [case_id(path) for path in (fixed, moving)]
    if names[0] == names[1]:
        names = [f"{names[0]}_fixed", f"{names[1]}_moving"]
    cases = [Case(name, name, {"image": (path,)}, targets)
             for name, path, targets in zip(names, (fixed, moving), files.targets, strict=True)]
    count = len(images[0].voxels)
    channels = tuple(ChannelSpec(files.channel if count == 1 else f"{files.channel} {place}") for place in range(count))
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
