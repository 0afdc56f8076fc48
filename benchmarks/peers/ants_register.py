"""Registers two images by ANTs and warps the moving one's labels. Runs in the environment that `ants.sh` builds.

    python ants_register.py FIXED MOVING MOVING_LABELS WARPED_LABELS [--transform SyN]

Images are NIfTI files; those of one slice are registered in two dimensions, which ANTs needs for them. Prints the seconds of the
registration and of warping the labels, without start-up and files.
"""

from __future__ import annotations

import argparse
import time

import ants
import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("fixed", "moving", "moving_labels", "warped_labels"):
        parser.add_argument(name)
    parser.add_argument("--transform", default="SyN", help="affine and SyN by default, as antspyx has it")
    options = parser.parse_args()
    whole = ants.image_read(options.fixed)
    fixed, moving, labels = (flat(ants.image_read(path)) for path in (options.fixed, options.moving, options.moving_labels))
    began = time.perf_counter()
    found = ants.registration(fixed, moving, type_of_transform=options.transform, random_seed=0)
    warped = ants.apply_transforms(fixed, labels, found["fwdtransforms"], interpolator="genericLabel")
    seconds = time.perf_counter() - began
    voxels = np.rint(warped.numpy()).astype(np.float32).reshape(whole.shape)
    ants.image_write(ants.from_numpy(voxels, whole.origin, whole.spacing, whole.direction), options.warped_labels)
    print(f"{seconds:.3f}")


def flat(image: ants.ANTsImage) -> ants.ANTsImage:
    """An image of one slice as one of two dimensions."""
    if image.dimension == 3 and image.shape[2] == 1:
        return ants.slice_image(image, axis=2, idx=0)
    return image


if __name__ == "__main__":
    main()
