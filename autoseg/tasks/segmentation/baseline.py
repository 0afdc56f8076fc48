"""The cheap model: a label-frequency atlas and a logistic regression on intensity and position."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates

from autoseg.core.case import Unit
from autoseg.core.errors import DatasetError
from autoseg.core.image import Image
from autoseg.core.spec import DatasetSpec
from autoseg.core.task import Arrays, Inputs
from autoseg.ops.crop import content_box, corner_value, crop, paste
from autoseg.ops.resample import resample
from autoseg.tasks.segmentation.target import Segmentation

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

# An atlas of 32 cells per axis resolves 3 % of the field of view, about the spread of position between patients after
# scaling to the image box; finer cells would only hold noise at some hundred cases.
ATLAS_SHAPE = (32, 32, 32)
# 800 voxels a case: at 100 cases 80,000 rows for some 10 coefficients per label; more changes nothing but the time.
VOXELS_PER_CASE = 800
# Scales of the intensity features in voxels: the voxel itself and its neighbourhood.
BLUR_SIGMAS = (0.0, 1.0, 2.0)
# Added to label frequencies before the logarithm: half a case in a hundred that was not seen.
PRIOR_FLOOR = 0.005


def fit_baseline(samples: Iterable[tuple[Unit, Inputs, Segmentation]], spec: DatasetSpec,
                 rng: np.random.Generator) -> Arrays:
    """An atlas and a logistic regression, fitted on the samples; every sample is read once.

    Returns:
        float64: `prior` (K, *ATLAS_SHAPE), logarithms of the label frequencies; `mean` and `scale` (F,) of the features;
        `coefficients` (K, F) and `intercepts` (K,), one row where there are two classes; `classes`: int64 (K,), label
        indices that were drawn.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    class_count = len(spec.labels) + 1
    atlas = np.zeros((class_count, *ATLAS_SHAPE), dtype=np.float64)
    seen = np.zeros(ATLAS_SHAPE)  # share of the cases that is annotated there
    drawn: list[tuple[NDArray, NDArray, NDArray]] = []
    counts = np.zeros(class_count)
    for _, inputs, target in samples:
        image = inputs["image"]
        box = content_box(image.voxels, [corner_value(channel) for channel in image.voxels])
        label = crop(target.label, box)
        annotated = np.zeros(ATLAS_SHAPE)
        for index in range(class_count):  # one label at a time: masks of all of them at once would not fit
            share = resample((label[None] == index).astype(np.float32), ATLAS_SHAPE, order=1, separate_axis=None)[0]
            atlas[index] += share
            annotated += share
        seen += 1 if target.ignored is None else annotated
        counts += np.bincount(label.ravel(), minlength=class_count)[:class_count]
        voxels = _draw_voxels(label, class_count, rng)
        drawn.append((voxels / np.array(label.shape), _intensities(image, box)[:, *voxels.T].T, label[tuple(voxels.T)]))
    prior = np.log(atlas / np.where(seen > 0, seen, 1) + PRIOR_FLOOR)
    if not counts.any():
        raise DatasetError(f"no training case of {spec.name!r} has an annotated voxel; the baseline needs some")
    places, intensities, labels = (np.concatenate(part) for part in zip(*drawn, strict=True))
    features = np.concatenate([intensities, places, places**2, _look_up(prior, places)], axis=1)
    scaler = StandardScaler().fit(features)
    model = LogisticRegression(max_iter=300).fit(scaler.transform(features), labels)
    undo_oversampling(model, labels, counts)
    return {"prior": prior, "mean": scaler.mean_, "scale": scaler.scale_, "coefficients": model.coef_,
            "intercepts": model.intercept_, "classes": model.classes_.astype(np.int64)}


def _draw_voxels(label: NDArray, class_count: int, rng: np.random.Generator) -> NDArray:
    """Voxels (n, 3): half anywhere, half spread over the labels that are there, so that small ones are seen.

    Only annotated voxels; none where there is none.
    """
    anywhere = np.stack([rng.integers(0, size, VOXELS_PER_CASE // 2) for size in label.shape], axis=1)
    if label.max() >= class_count:
        annotated = np.flatnonzero(label < class_count)
        inside = annotated[rng.integers(0, len(annotated), VOXELS_PER_CASE // 2)] if len(annotated) else annotated
        anywhere = np.stack(np.unravel_index(inside, label.shape), axis=1)
    present = [np.argwhere(label == index) for index in range(1, class_count) if (label == index).any()]
    share = VOXELS_PER_CASE // 2 // max(len(present), 1)
    return np.concatenate([anywhere, *(places[rng.integers(0, len(places), share)] for places in present)])


def undo_oversampling(model: LogisticRegression, drawn: NDArray, counts: NDArray) -> None:
    """Shifts the intercepts from the label frequencies of the drawn voxels to those of all voxels, in place.

    Source: King and Zeng 2001, "Logistic regression in rare events data", prior correction.
    """
    share = np.bincount(drawn, minlength=len(counts))[model.classes_] / len(drawn)
    shift = np.log(counts[model.classes_] / counts.sum()) - np.log(share)
    model.intercept_ += shift if len(shift) > 2 else shift[1] - shift[0]  # two classes have one intercept: of the second


def _intensities(image: Image, box) -> NDArray[np.float32]:
    """(F, Z, Y, X): z-scored channels inside the box at several scales."""
    features = []
    for channel in crop(image.voxels, box):
        scored = (channel - channel.mean()) / max(float(channel.std()), 1e-8)
        features += [gaussian_filter(scored, sigma) if sigma else scored for sigma in BLUR_SIGMAS]
    return np.stack(features)


def _look_up(prior: NDArray, places: NDArray) -> NDArray:
    """Log prior (n, K) at relative places (n, 3) in [0, 1)."""
    coordinates = places.T * np.array(ATLAS_SHAPE)[:, None] - 0.5
    return np.stack([map_coordinates(plane, coordinates, order=1, mode="nearest") for plane in prior], axis=1)


def apply_baseline(arrays: Arrays, inputs: Inputs, spec: DatasetSpec) -> Segmentation:
    """The label map of an image by arrays of `fit_baseline`."""
    image = inputs["image"]
    box = content_box(image.voxels, [corner_value(channel) for channel in image.voxels])
    intensities = _intensities(image, box)
    depth, height, width = intensities.shape[1:]
    label = np.empty((depth, height, width), np.uint8)
    for plane in range(depth):  # features of a voxel take some hundred bytes: those of a whole body would not fit
        places = np.stack(np.meshgrid([plane / depth], np.arange(height) / height, np.arange(width) / width, indexing="ij"),
                          axis=-1).reshape(-1, 3)
        features = np.concatenate([intensities[:, plane].reshape(len(intensities), -1).T, places, places**2,
                                   _look_up(arrays["prior"], places)], axis=1)
        label[plane] = _classify(features, arrays).reshape(height, width)
    return Segmentation(paste(label, box, image.geometry.shape, 0))


def _classify(features: NDArray, arrays: Arrays) -> NDArray[np.int64]:
    """Most likely label indices (n,) of features (n, F): what scikit-learn's scaler and regression would say."""
    scores = (features - arrays["mean"]) / arrays["scale"] @ arrays["coefficients"].T + arrays["intercepts"]
    places = (scores[:, 0] > 0).astype(int) if scores.shape[1] == 1 else scores.argmax(axis=1)
    return arrays["classes"][places]
