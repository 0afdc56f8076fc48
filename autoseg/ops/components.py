"""Connected components of masks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from autoseg.ops.crop import bounding_box, crop, paste


def largest_component(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest group of true voxels that touch by a face, an edge or a corner: bool (Z, Y, X).

    Of several equally large groups the one that comes first in z, y, x stays. An empty mask stays empty.
    """
    box = bounding_box(mask)
    labels, count = ndimage.label(crop(mask, box), structure=np.ones((3, 3, 3), bool))
    if count <= 1:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return paste(labels == sizes.argmax(), box, mask.shape, False)
