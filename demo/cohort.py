"""A synthetic cohort of brain images with grey and white matter labels, as a folder in nnU-Net v2 raw layout.

Every subject is made from one real template: nilearn ships the MNI152 T1 template (ICBM 2009a, nonlinear, symmetric)
with its grey and white matter maps, so nothing is downloaded. A smooth random deformation changes the anatomy; contrast,
a bias field, noise and the intensity scale change the picture. It shows that the pipeline runs, and says nothing about
patients.

    python demo/cohort.py FOLDER [--subjects 24] [--tests 4] [--seed 0]
"""

from __future__ import annotations

import argparse
import gzip
import json
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates

NAME = "SyntheticMNI152"
LABELS = {"background": 0, "grey_matter": 1, "white_matter": 2}
DESCRIPTION = ("SYNTHETIC cohort, not patient data: random deformations of one template (MNI152) with random contrast, "
               "bias field and noise. For trying out software only.")
LICENCE = ("Template: ICBM 152 Nonlinear atlases 2009, Copyright (C) 1993-2009 Louis Collins, McConnell Brain Imaging "
           "Centre, Montreal Neurological Institute, McGill University; permission to use, copy, modify and distribute "
           "for any purpose and without fee, with this notice")
REFERENCE = "Fonov et al. 2011, NeuroImage 54(1):313-327, doi:10.1016/j.neuroimage.2010.07.033"
TEMPLATE_MM = 2
# The template without its empty border, in template voxels.
MARGIN_VOXELS = 5
SPACING_MM = (3.0, 4.0)
STRETCH = (0.94, 1.06)
# Displacements of 3 mm (standard deviation) that change over 24 mm: gyri move and bend, and the map stays invertible.
DISPLACEMENT_MM, DISPLACEMENT_SMOOTHNESS_MM = 3.0, 24.0
BIAS_STRENGTH, BIAS_SMOOTHNESS_VOXELS = 0.12, 12.0
NOISE = (0.01, 0.04)
GAMMA = (0.75, 1.35)
TISSUE_SHIFT = 0.12
# Stored type and largest intensity, as they are mixed in real collections.
SCALES: tuple[tuple[type, float], ...] = ((np.uint8, 255.0), (np.int16, 1800.0), (np.float32, 1.0),
                                          (np.float32, 250000.0))
ORIENTATIONS = ("RAS", "LPS", "LAS", "PIR")


@dataclass(frozen=True)
class Template:
    """Intensities and tissue probabilities in [0, 1], each (X, Y, Z) with voxels of `TEMPLATE_MM`."""

    t1: NDArray[np.float32]
    grey: NDArray[np.float32]
    white: NDArray[np.float32]


@dataclass(frozen=True)
class Subject:
    """Voxels and labels (X, Y, Z) in RAS, and the affine of both."""

    voxels: NDArray
    labels: NDArray[np.uint8]
    affine: NDArray[np.float64]
    orientation: str


def make_cohort(folder: Path, *, subjects: int = 24, tests: int = 4, seed: int = 0) -> Path:
    """The dataset folder, with `subjects` cases in imagesTr and labelsTr and `tests` more in imagesTs and labelsTs.

    A subject depends only on `seed` and its number. A folder that holds the same cohort is left as it is;
    `dataset.json` is written last.
    """
    recipe = {"subjects": subjects, "tests": tests, "seed": seed}
    description = folder / "dataset.json"
    if description.exists() and json.loads(description.read_text(encoding="utf-8")).get("recipe") == recipe:
        return folder
    template = load_template()
    for number in range(1, subjects + tests + 1):
        subject = make_subject(template, np.random.default_rng([seed, number]), number)
        part = "Tr" if number <= subjects else "Ts"
        save(folder / f"images{part}" / f"synthetic_{number:03d}_0000.nii.gz", subject.voxels, subject)
        save(folder / f"labels{part}" / f"synthetic_{number:03d}.nii.gz", subject.labels, subject)
    content = {"name": NAME, "description": DESCRIPTION, "licence": LICENCE, "reference": REFERENCE,
               "source": "made by demo/cohort.py from the MNI152 template in nilearn", "synthetic": True,
               "channel_names": {"0": "T1"}, "labels": LABELS, "numTraining": subjects, "file_ending": ".nii.gz",
               "recipe": recipe}
    description.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return folder


def load_template() -> Template:
    """The template of nilearn's wheel, cut to the brain with a small margin."""
    from nilearn.datasets import load_mni152_gm_template, load_mni152_template, load_mni152_wm_template

    loaders = (load_mni152_template, load_mni152_gm_template, load_mni152_wm_template)
    # At 1 mm the wheel's files are read as they are; nilearn's own resampling takes ten times as long as the mean below.
    volumes = [halve(np.asarray(load(resolution=1).dataobj, dtype=np.float32)) for load in loaders]
    inside = np.argwhere(volumes[0] > 0.05)
    low = np.maximum(inside.min(axis=0) - MARGIN_VOXELS, 0)
    high = inside.max(axis=0) + 1 + MARGIN_VOXELS
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    return Template(*(np.clip(volume[box], 0.0, 1.0) for volume in volumes))


def halve(volume: NDArray[np.float32]) -> NDArray[np.float32]:
    """Means of blocks of 2 x 2 x 2 voxels; an odd last plane is dropped."""
    x, y, z = (size // 2 for size in volume.shape)
    return volume[:2 * x, :2 * y, :2 * z].reshape(x, 2, y, 2, z, 2).mean(axis=(1, 3, 5))


def make_subject(template: Template, rng: np.random.Generator, number: int) -> Subject:
    """One subject; type, scale and orientation follow its number, everything else is drawn."""
    spacing_mm = np.round(rng.uniform(*SPACING_MM, size=3), 2)
    places = deformed_places(np.asarray(template.t1.shape), spacing_mm, rng)
    volumes = (template.t1, template.grey, template.white)
    t1, grey, white = (map_coordinates(volume, places, order=1) for volume in volumes)
    labels = np.where(np.maximum(grey, white) > 0.5, np.where(white > grey, 2, 1), 0).astype(np.uint8)
    kind, largest = SCALES[number % len(SCALES)]
    scaled = change_contrast(t1, grey, white, rng) * largest
    voxels: NDArray = scaled.astype(kind) if np.issubdtype(kind, np.floating) else np.rint(scaled).astype(kind)
    affine = np.diag([*spacing_mm, 1.0])
    affine[:3, 3] = rng.uniform(-90.0, -60.0, size=3).round(2)
    return Subject(voxels, labels, affine, ORIENTATIONS[number % len(ORIENTATIONS)])


def deformed_places(template_shape: NDArray, spacing_mm: NDArray, rng: np.random.Generator) -> NDArray[np.float64]:
    """For every voxel of a new subject, its place (3, X, Y, Z) in the template, in template voxels."""
    stretch = rng.uniform(*STRETCH, size=3)
    shape = np.ceil(template_shape * TEMPLATE_MM * stretch / spacing_mm).astype(int)
    grid = np.meshgrid(*(np.arange(size) for size in shape), indexing="ij")
    places = np.stack([(axis + 0.5) * spacing_mm[a] / stretch[a] / TEMPLATE_MM - 0.5 for a, axis in enumerate(grid)])
    for axis in range(3):
        field = smooth_field(tuple(shape), DISPLACEMENT_SMOOTHNESS_MM / 2 / spacing_mm, rng)
        places[axis] += field * DISPLACEMENT_MM / TEMPLATE_MM
    return places


def smooth_field(shape: tuple[int, ...], sigma_voxels: NDArray | float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Random field (X, Y, Z) of mean 0 and standard deviation 1: white noise after a Gaussian filter.

    The noise is continued periodically, so that the field varies at the border as it does inside.
    """
    field = gaussian_filter(rng.standard_normal(shape), sigma_voxels, mode="wrap")
    return (field - field.mean()) / field.std()


def change_contrast(t1: NDArray, grey: NDArray, white: NDArray, rng: np.random.Generator) -> NDArray:
    """Intensities in [0, 1]: tissues shifted, gamma changed, bias field and Rician noise (Gudbjartsson 1995) added."""
    shift = rng.uniform(-TISSUE_SHIFT, TISSUE_SHIFT, size=2)
    changed = np.clip(t1 + shift[0] * grey + shift[1] * white, 0.0, 1.0) ** rng.uniform(*GAMMA)
    changed *= np.exp(BIAS_STRENGTH * smooth_field(t1.shape, BIAS_SMOOTHNESS_VOXELS, rng))
    sigma = rng.uniform(*NOISE)
    real, imaginary = changed + sigma * rng.standard_normal(t1.shape), sigma * rng.standard_normal(t1.shape)
    magnitude = np.hypot(real, imaginary)
    return magnitude / magnitude.max()


def save(path: Path, voxels: NDArray, subject: Subject) -> None:
    """Writes voxels (X, Y, Z) in RAS as NIfTI in the subject's stored orientation; the same bytes every time."""
    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(subject.orientation))
    affine = subject.affine @ inv_ornt_aff(turn, voxels.shape)
    image = nibabel.Nifti1Image(np.ascontiguousarray(apply_orientation(voxels, turn)), affine)
    image.header.set_xyzt_units("mm")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(image.to_bytes(), compresslevel=6, mtime=0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--subjects", type=int, default=24)
    parser.add_argument("--tests", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(make_cohort(options.folder, subjects=options.subjects, tests=options.tests, seed=options.seed))


if __name__ == "__main__":
    main()
