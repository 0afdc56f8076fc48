"""The voxel size of a TIFF: from a file beside it, or from ImageJ's or OME's metadata; resolution for printing is none."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from autoseg.core.errors import GeometryError
from autoseg.core.geometry import Spacing
from autoseg.io.images.endings import TIFF_ENDINGS, image_ending, split_ending
from autoseg.io.values import read_json

if TYPE_CHECKING:
    import tifffile

# Names of units in ImageJ (ij.measure.Calibration) and OME-XML (UnitsLength), in mm.
_UNITS_MM = {"mm": 1.0, "millimeter": 1.0, "millimeters": 1.0, "cm": 10.0, "m": 1000.0, "um": 1e-3, "µm": 1e-3, "μm": 1e-3,
             "\\u00b5m": 1e-3, "micron": 1e-3, "microns": 1e-3, "micrometer": 1e-3, "nm": 1e-6, "inch": 25.4, "in": 25.4}
_OME_UNIT = "µm"  # OME-XML schema: default of PhysicalSizeXUnit
_X_RESOLUTION, _Y_RESOLUTION = 282, 283


def companion_file(path: Path) -> Path | None:
    """nnU-Net's file with the spacing of a TIFF, where there is one: `<case>.json` beside `<case>_0000.tif` or `<case>.tif`.

    Only a file with the key `spacing` counts.
    """
    if image_ending(path) not in TIFF_ENDINGS:
        return None
    stem = split_ending(path)[0]
    for name in dict.fromkeys((stem, re.sub(r"_\d{4}$", "", stem))):
        beside = path.with_name(f"{name}.json")
        if beside.is_file():
            document = read_json(beside)
            if isinstance(document, dict) and "spacing" in document:
                return beside
    return None


def stated_spacing(path: Path, file: tifffile.TiffFile, depth: int) -> Spacing | None:
    """Spacing in mm (z, y, x) of a TIFF, None where nothing says it.

    Resolution tags without ImageJ's unit are for printing (72 per inch) and do not count.

    Args:
        depth: number of slices; of a single one the distance to the next is 1 mm unless it is said.
    Raises:
        GeometryError: a spacing is said that is not three positive numbers.
    """
    beside = companion_file(path)
    if beside is not None:
        return _triple(beside, read_json(beside)["spacing"])
    found = _imagej(file) if file.is_imagej else _ome(file) if file.is_ome else None
    if found is not None and (found[0] is not None or depth == 1):
        return _triple(path, [1.0 if found[0] is None else found[0], *found[1:]])
    return None


def _triple(path: Path, numbers: object) -> Spacing:
    if (not isinstance(numbers, list) or len(numbers) != 3
            or not all(isinstance(n, (int, float)) and math.isfinite(n) and n > 0 for n in numbers)):
        raise GeometryError(f"{path}: spacing must be three positive numbers, mm along z, y, x; found {numbers!r}",
                            code="E_SPACING")
    return (float(numbers[0]), float(numbers[1]), float(numbers[2]))


def _imagej(file: tifffile.TiffFile) -> tuple[float | None, float, float] | None:
    """Spacing along z (None: not said), y, x."""
    metadata, tags = file.imagej_metadata or {}, file.pages.first.tags
    unit = _UNITS_MM.get(str(metadata.get("unit", "")).casefold())
    if unit is None or _X_RESOLUTION not in tags or _Y_RESOLUTION not in tags:
        return None
    x, y = (tags[tag].value for tag in (_X_RESOLUTION, _Y_RESOLUTION))
    if not (x[0] and x[1] and y[0] and y[1]):
        return None
    depth = metadata.get("spacing")
    return (None if depth is None else float(depth) * unit), y[1] / y[0] * unit, x[1] / x[0] * unit


def _ome(file: tifffile.TiffFile) -> tuple[float | None, float, float] | None:
    """Spacing along z (None: not said), y, x of the first image."""
    try:
        pixels = ElementTree.fromstring(file.ome_metadata or "").find(".//{*}Pixels")  # noqa: S314 (parsed by tifffile too)
    except ElementTree.ParseError:
        return None
    sizes = [None if pixels is None else _ome_size(pixels, axis) for axis in "ZYX"]
    return None if sizes[1] is None or sizes[2] is None else (sizes[0], sizes[1], sizes[2])


def _ome_size(pixels: ElementTree.Element, axis: str) -> float | None:
    written = pixels.get(f"PhysicalSize{axis}")
    unit = _UNITS_MM.get(pixels.get(f"PhysicalSize{axis}Unit", _OME_UNIT).casefold())
    return None if written is None or unit is None else float(written) * unit
