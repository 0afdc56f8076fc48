"""Lesion-wise scores of the BraTS 2023 challenge: every lesion counts the same, whatever its size.

Source: the organisers' outline (synapse.org, syn51156910, discussion thread 10357) and their code,
github.com/rachitsaluja/BraTS-2023-Metrics (brats_metrics.py), whose numbers these are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from autoseg.core.geometry import Spacing
from autoseg.metrics.overlap import dice, require_same_shape
from autoseg.metrics.surface import hausdorff_mm, surface_distances

# HD95 of a lesion that was missed or is false: above the diagonal of the BraTS atlas, 373 mm (240 x 240 x 155 mm).
PENALTY_MM = 374.0
# Components touch by faces, edges and corners; lesions grow through faces and edges.
_TOUCHING = ndimage.generate_binary_structure(3, 3)
_GROWING = ndimage.generate_binary_structure(3, 2)


@dataclass(frozen=True)
class LesionScores:
    """Lesion-wise scores of one mask.

    Attributes:
        dice: mean over lesions of the reference and false ones, which have 0; 1 where there is neither.
        hd95_mm: the same of HD95, missed and false lesions having `PENALTY_MM`; 0 where there is neither.
        found, missed: lesions of the reference above the smallest volume.
        false: components of the prediction that meet no lesion, of any size.
    """

    dice: float
    hd95_mm: float
    found: int
    missed: int
    false: int


def compare_lesions(prediction: NDArray[np.bool_], reference: NDArray[np.bool_], spacing_mm: Spacing, *,
                    dilation_voxels: int = 3, smallest_mm3: float = 50.0) -> LesionScores:
    """Lesion-wise Dice and HD95 of a predicted mask.

    Parts of the reference whose dilations touch are one lesion; each is compared with all components of the prediction
    that meet its dilation, taken together.

    Args:
        prediction, reference: bool (Z, Y, X), same shape.
        spacing_mm: voxel size along z, y, x.
        dilation_voxels: steps of dilation; BraTS 2023: 3 (gliomas, children, Africa), 1 (meningiomas, metastases).
        smallest_mm3: lesions of the reference up to this volume do not count, nor does what is predicted there; BraTS
            2023: 50 (metastases 2).
    Raises:
        GeometryError: the shapes differ.
    """
    require_same_shape(prediction, reference)
    lesions = _lesions(reference, dilation_voxels)
    components, count = ndimage.label(prediction, _TOUCHING)
    component_boxes = ndimage.find_objects(components)
    matched = np.zeros(count + 1, bool)
    matched[0] = True
    pairs, found = [], 0
    for place, box in enumerate(ndimage.find_objects(lesions), start=1):
        near = tuple(slice(max(0, part.start - dilation_voxels), part.stop + dilation_voxels) for part in box)
        lesion = lesions[near] == place
        meeting = np.unique(components[near][_grown(lesion, dilation_voxels)])
        meeting = meeting[meeting > 0]
        matched[meeting] = True
        if np.count_nonzero(lesion) * float(np.prod(spacing_mm)) <= smallest_mm3:
            continue
        found += bool(len(meeting))
        whole = _enclosing([box, *(component_boxes[number - 1] for number in meeting)])
        pairs.append(_compare(np.isin(components[whole], meeting), lesions[whole] == place, spacing_mm))
    false = int(np.count_nonzero(~matched))
    scored = len(pairs) + false
    if not scored:
        return LesionScores(1.0, 0.0, 0, 0, 0)
    return LesionScores(sum(pair[0] for pair in pairs) / scored,
                        (sum(pair[1] for pair in pairs) + false * PENALTY_MM) / scored, found, len(pairs) - found, false)


def _lesions(reference: NDArray[np.bool_], dilation_voxels: int) -> NDArray[np.int32]:
    """The reference (Z, Y, X) with a number per lesion, 1 to n in the order of their first voxels; 0 elsewhere."""
    groups, _ = ndimage.label(_grown(reference, dilation_voxels), _TOUCHING)
    return np.where(reference, groups, 0)


def _grown(mask: NDArray[np.bool_], steps: int) -> NDArray[np.bool_]:
    return ndimage.binary_dilation(mask, _GROWING, iterations=steps) if steps else mask


def _enclosing(boxes: Sequence[tuple[slice, ...]]) -> tuple[slice, ...]:
    return tuple(slice(min(part.start for part in parts), max(part.stop for part in parts))
                 for parts in zip(*boxes, strict=True))


def _compare(prediction: NDArray[np.bool_], lesion: NDArray[np.bool_], spacing_mm: Spacing) -> tuple[float, float]:
    """Dice and HD95 (mm) of one lesion; the penalty where nothing is predicted."""
    distance = hausdorff_mm(surface_distances(prediction, lesion, spacing_mm))
    return dice(prediction, lesion), distance if np.isfinite(distance) else PENALTY_MM
