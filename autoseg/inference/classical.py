"""Registration without learning: affine, demons, B-spline, by SimpleITK's algorithms. The baseline that is always there.

Images are given to SimpleITK along their own axes in millimetres from 0 on (`io.itk.plane_to_itk`), so that a flat image
becomes one of two dimensions, as its filters need; where both lie in the world enters by the affine start alone. What comes
back is a displacement of `ops.displacement`.

Sums over voxels that several threads make depend on their number, so similarities are computed by one; whatever is computed voxel
by voxel takes as many as there are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from autoseg.core.errors import DatasetError, GeometryError
from autoseg.core.image import Image
from autoseg.ops.displacement import affine_displacement, warp
from autoseg.ops.sampling import is_inside, places

if TYPE_CHECKING:
    import SimpleITK as sitk

Metric: TypeAlias = Literal["correlation", "mutual_information"]
Start: TypeAlias = Literal["centres", "moments", "positions"]
Forces: TypeAlias = Literal["diffeomorphic", "fast_symmetric", "symmetric"]
T = TypeVar("T")

# Where only a share of the voxels is looked at, ITK moves each of them by a fraction of a voxel at random; this is their seed.
_SEED = 1
# A Gaussian and demons' gradients need some voxels: no axis is shrunk to fewer.
_FEWEST_VOXELS = 8
# Voxels along each axis at which it is looked whether two images have anything in common.
_LOOKS = 16


@dataclass(frozen=True)
class AffineMethod:
    """An affine map by gradient descent over resolutions.

    Attributes:
        start: `centres` of the grids, `moments` (centres of intensity), or `positions` in the world as they are.
        metric: `correlation` for images of one contrast, `mutual_information` (Mattes) for any.
        iterations: at most, at each resolution.
        shrink_factors: of the fixed image, from coarse to fine; the last one is usually 1.
        smoothing_voxels: standard deviation of the Gaussian at each resolution.
        bins: of the joint histogram, for `mutual_information`.
        sampled_share: of the fixed voxels that the metric is computed from, evenly spaced; 1 takes all.
    """

    start: Start
    metric: Metric
    iterations: int
    shrink_factors: tuple[int, ...]
    smoothing_voxels: tuple[float, ...]
    bins: int
    sampled_share: float


@dataclass(frozen=True)
class DemonsMethod:
    """Thirion's demons after an affine map, over resolutions.

    Attributes:
        forces: `diffeomorphic` (Vercauteren et al. 2009: steps are composed by their exponential), `fast_symmetric`, or
            `symmetric`.
        iterations: at each resolution.
        shrink_factors: of the fixed grid, from coarse to fine.
        field_smoothing_voxels: standard deviation of the Gaussian on the displacement after every step (elastic).
        update_smoothing_voxels: on every step before it is added (fluid); 0: none.
        match_histograms: the moving intensities are first brought to the distribution of the fixed ones.
    """

    forces: Forces
    iterations: tuple[int, ...]
    shrink_factors: tuple[int, ...]
    field_smoothing_voxels: float
    update_smoothing_voxels: float
    match_histograms: bool


@dataclass(frozen=True)
class BSplineMethod:
    """A free-form deformation (Rueckert et al. 1999) after an affine map, by L-BFGS-B.

    Attributes:
        metric, bins, sampled_share: as of `AffineMethod`.
        mesh_size: cells of the control grid along every axis that has more than one voxel.
        iterations: at most, at each resolution.
        shrink_factors, smoothing_voxels: as of `AffineMethod`.
    """

    metric: Metric
    mesh_size: int
    iterations: int
    shrink_factors: tuple[int, ...]
    smoothing_voxels: tuple[float, ...]
    bins: int
    sampled_share: float


def register_affine(fixed: Image, moving: Image, method: AffineMethod, *, channel: int = 0) -> NDArray[np.float64]:
    """The affine map (3, 4) of points (S, P, L; mm) from the fixed to the moving image.

    Args:
        channel: of both images, that is compared.
    Raises:
        GeometryError: one image is flat and the other is not, their channels differ, or at the start they have nothing in common.
        DatasetError: a channel has one value everywhere, or values that are not finite.
    """
    import SimpleITK as sitk

    from autoseg.io.itk import plane_affine_of_itk, plane_affine_to_itk

    pair = _Pair.of(fixed, moving, channel)
    start = plane_affine_to_itk(pair.to_axes(_start(fixed, moving, method.start, channel)), pair.flat)
    centre = [(size - 1) * mm / 2 for size, mm in zip(pair.fixed.GetSize(), pair.fixed.GetSpacing(), strict=True)]
    transform = sitk.AffineTransform(pair.fixed.GetDimension())
    transform.SetMatrix(start.GetMatrix())
    transform.SetCenter(centre)
    transform.SetTranslation(np.subtract(start.TransformPoint(centre), centre).tolist())
    registration = _registration(method)
    # Tolerances are ITK's own defaults, written out; scales make a step move no voxel by more than one.
    registration.SetOptimizerAsRegularStepGradientDescent(learningRate=1.0, minStep=1e-4, numberOfIterations=method.iterations,
                                                          relaxationFactor=0.5, gradientMagnitudeTolerance=1e-8)
    registration.SetOptimizerScalesFromPhysicalShift()
    registration.SetInitialTransform(transform, inPlace=True)
    _executed(lambda: registration.Execute(pair.fixed, pair.moving), fixed, moving)
    return pair.to_world(plane_affine_of_itk(transform, pair.flat))


def register_demons(fixed: Image, moving: Image, affine: NDArray, method: DemonsMethod, *,
                    channel: int = 0) -> NDArray[np.float32]:
    """The displacement (3, Z, Y, X; mm) of an affine map refined by demons.

    Args:
        affine: (3, 4), of `register_affine`.
    Raises:
        GeometryError, DatasetError: as in `register_affine`.
    """
    import SimpleITK as sitk

    from autoseg.io.itk import plane_field_of_itk, plane_to_itk

    pair = _Pair.of(fixed, moving, channel)
    start = affine_displacement(affine, fixed.geometry)
    on_fixed = warp(moving.voxels[channel][None], moving.geometry, start, fixed.geometry, interpolation="linear", outside=None)[0]
    # Demons compare intensities, so what is given mean 0 and deviation 1 is the same part of the body in both.
    warped = plane_to_itk(_standardised(on_fixed, "moving"), fixed.geometry.spacing_mm, pair.flat)
    target = pair.fixed
    if method.match_histograms:
        # 256 levels and 50 points as in ITK's examples of demons; the threshold leaves air out.
        warped = sitk.HistogramMatching(warped, target, 256, 50, thresholdAtMeanIntensity=True)
    fields: list[sitk.Image] = []
    for factor, iterations in zip(method.shrink_factors, method.iterations, strict=True):
        images = [_shrunk(image, factor) for image in (target, warped)]
        before = [_on_grid(field, images[0]) for field in fields[-1:]]
        fields.append(_demons(method, iterations).Execute(*images, *before))
    steps = plane_field_of_itk(_on_grid(fields[-1], target), pair.flat)
    return start + _after_steps(affine, steps, fixed)


def register_bspline(fixed: Image, moving: Image, affine: NDArray, method: BSplineMethod, *,
                     channel: int = 0) -> NDArray[np.float32]:
    """The displacement (3, Z, Y, X; mm) of an affine map refined by a B-spline; arguments as in `register_demons`."""
    import SimpleITK as sitk

    from autoseg.io.itk import plane_affine_to_itk, plane_field_of_itk

    pair = _Pair.of(fixed, moving, channel)
    spline = sitk.BSplineTransformInitializer(pair.fixed, [method.mesh_size] * pair.fixed.GetDimension(), order=3)
    registration = _registration(method)
    registration.SetOptimizerAsLBFGSB(gradientConvergenceTolerance=1e-5, numberOfIterations=method.iterations)
    registration.SetMovingInitialTransform(plane_affine_to_itk(pair.to_axes(affine), pair.flat))
    registration.SetInitialTransform(spline, inPlace=True)
    _executed(lambda: registration.Execute(pair.fixed, pair.moving), fixed, moving)
    field = sitk.TransformToDisplacementField(spline, sitk.sitkVectorFloat64, pair.fixed.GetSize(), pair.fixed.GetOrigin(),
                                              pair.fixed.GetSpacing(), pair.fixed.GetDirection())
    return affine_displacement(affine, fixed.geometry) + _after_steps(affine, plane_field_of_itk(field, pair.flat), fixed)


@dataclass(frozen=True)
class _Pair:
    """One channel of two images as SimpleITK gets them, with mean 0 and deviation 1, and the way between its world and ours.

    Attributes:
        flat: the axis of one voxel that both have, and that is left out; None for volumes.
        frames: of both grids, rotation (3, 3) from their axes to the world and origin (3,).
    """

    fixed: sitk.Image
    moving: sitk.Image
    flat: int | None
    frames: tuple[tuple[NDArray[np.float64], NDArray[np.float64]], tuple[NDArray[np.float64], NDArray[np.float64]]]

    @classmethod
    def of(cls, fixed: Image, moving: Image, channel: int) -> _Pair:
        from autoseg.io.itk import plane_to_itk

        flat = _flat_axis(fixed, moving)
        if len(fixed.voxels) != len(moving.voxels):
            raise GeometryError(f"the fixed image has {len(fixed.voxels)} channels and the moving image {len(moving.voxels)}; a "
                                "pair needs the same ones in the same order", code="E_CHANNELS")
        images = [plane_to_itk(_standardised(image.voxels[channel], name), image.geometry.spacing_mm, flat)
                  for image, name in ((fixed, "fixed"), (moving, "moving"))]
        frames = [(np.asarray(image.geometry.direction), np.asarray(image.geometry.origin_mm)) for image in (fixed, moving)]
        return cls(images[0], images[1], flat, (frames[0], frames[1]))

    def to_axes(self, matrix: NDArray) -> NDArray[np.float64]:
        """An affine map (3, 4) of the world as one between points along the axes of the grids."""
        (turn, origin), (moving_turn, moving_origin) = self.frames
        back = np.linalg.inv(moving_turn)
        shift = back @ (matrix[:, :3] @ origin + matrix[:, 3] - moving_origin)
        return np.concatenate([back @ matrix[:, :3] @ turn, shift[:, None]], axis=1)

    def to_world(self, matrix: NDArray) -> NDArray[np.float64]:
        """The way back of `to_axes`."""
        (turn, origin), (moving_turn, moving_origin) = self.frames
        linear = moving_turn @ matrix[:, :3] @ np.linalg.inv(turn)
        return np.concatenate([linear, (moving_turn @ matrix[:, 3] + moving_origin - linear @ origin)[:, None]], axis=1)


def _flat_axis(fixed: Image, moving: Image) -> int | None:
    """The axis of one voxel that both images have; None where neither has one."""
    flat = [[axis for axis, size in enumerate(image.geometry.shape) if size == 1] for image in (fixed, moving)]
    if flat[0] != flat[1] or len(flat[0]) > 1:
        raise GeometryError(f"the fixed image has {fixed.geometry.shape} and the moving image {moving.geometry.shape} voxels "
                            "(z, y, x): two volumes, or two slices across the same axis, can be registered", code="E_DIMENSIONS")
    return flat[0][0] if flat[0] else None


def _standardised(channel: NDArray, name: str) -> NDArray[np.float32]:
    """A channel (Z, Y, X) with mean 0 and deviation 1, so that no threshold of an algorithm depends on the scanner."""
    values = np.asarray(channel, np.float64)
    if not np.isfinite(values).all():
        raise DatasetError(f"the {name} image has voxels that are no finite numbers; replace them", code="E_NONFINITE")
    mean, deviation = float(values.mean()), float(values.std())
    if values.min() == values.max():
        raise DatasetError(f"every voxel of the {name} image has the value {mean:g}, so there is nothing to register; give the "
                           "image that was meant", code="E_CONSTANT")
    return ((values - mean) / deviation).astype(np.float32)


def _start(fixed: Image, moving: Image, start: Start, channel: int) -> NDArray[np.float64]:
    """The map (3, 4) of the world to begin with: a shift.

    Raises:
        GeometryError: the images then have nothing in common.
    """
    matrix = np.eye(3, 4)
    if start != "positions":
        ends = [_centre(image, image.voxels[channel] if start == "moments" else None) for image in (fixed, moving)]
        matrix[:, 3] = ends[1] - ends[0]
    step = tuple(max(1, size // _LOOKS) for size in fixed.geometry.shape)
    displacement = affine_displacement(matrix, fixed.geometry)
    looks = places(fixed.geometry, moving.geometry, displacement, slice(0, fixed.geometry.shape[0]))
    if not is_inside(looks[:, ::step[0], ::step[1], ::step[2]], moving.geometry.shape).any():
        raise GeometryError(f"the fixed image (from {_rounded(fixed)} mm) and the moving image (from {_rounded(moving)} mm, "
                            f"superior, posterior, left) have no place in common when they start by {start}; start by their "
                            "centres",
                            code="E_NO_OVERLAP")
    return matrix


def _rounded(image: Image) -> tuple[float, ...]:
    return tuple(round(value, 1) for value in image.geometry.origin_mm)


def _centre(image: Image, channel: NDArray | None) -> NDArray[np.float64]:
    """Centre of the grid, or of the intensities (Z, Y, X) above the lowest one, in the world."""
    shape = image.geometry.shape
    index = [(size - 1) / 2 for size in shape]
    if channel is not None:
        weight = channel.astype(np.float64) - float(channel.min())
        index = [float((weight.sum(axis=tuple({0, 1, 2} - {axis})) * np.arange(size)).sum() / weight.sum())
                 for axis, size in enumerate(shape)]
    return np.array(image.geometry.position_mm((index[0], index[1], index[2])))


def _registration(method: AffineMethod | BSplineMethod) -> sitk.ImageRegistrationMethod:
    """What affine and B-spline share: metric, samples, resolutions."""
    import SimpleITK as sitk

    registration = sitk.ImageRegistrationMethod()
    registration.SetNumberOfThreads(1)
    if method.metric == "correlation":
        registration.SetMetricAsCorrelation()
    else:
        registration.SetMetricAsMattesMutualInformation(method.bins)
    if method.sampled_share < 1:
        registration.SetMetricSamplingStrategy(registration.REGULAR)
        registration.SetMetricSamplingPercentage(method.sampled_share, _SEED)
    registration.SetInterpolator(sitk.sitkLinear)
    registration.SetShrinkFactorsPerLevel(list(method.shrink_factors))
    registration.SetSmoothingSigmasPerLevel(list(method.smoothing_voxels))
    registration.SmoothingSigmasAreSpecifiedInPhysicalUnitsOff()
    return registration


def _demons(method: DemonsMethod, iterations: int) -> sitk.ImageFilter:
    import SimpleITK as sitk

    kinds = {"diffeomorphic": sitk.DiffeomorphicDemonsRegistrationFilter,
             "fast_symmetric": sitk.FastSymmetricForcesDemonsRegistrationFilter,
             "symmetric": sitk.SymmetricForcesDemonsRegistrationFilter}
    demons = kinds[method.forces]()
    demons.SetNumberOfIterations(iterations)
    demons.SetMaximumRMSError(0.0)  # all iterations: the plan says how many
    demons.SetSmoothDisplacementField(method.field_smoothing_voxels > 0)
    demons.SetStandardDeviations(max(method.field_smoothing_voxels, 1e-3))
    demons.SetSmoothUpdateField(method.update_smoothing_voxels > 0)
    demons.SetUpdateFieldStandardDeviations(max(method.update_smoothing_voxels, 1e-3))
    return demons


def _shrunk(image: sitk.Image, factor: int) -> sitk.Image:
    """An image with `factor` times fewer voxels along each axis that has enough, smoothed by half as many voxels before."""
    import SimpleITK as sitk

    factors = [max(1, min(factor, size // _FEWEST_VOXELS)) for size in image.GetSize()]
    if max(factors) == 1:
        return image
    variances = [((each / 2) * mm) ** 2 if each > 1 else 0.0 for each, mm in zip(factors, image.GetSpacing(), strict=True)]
    return sitk.Shrink(sitk.DiscreteGaussian(image, variances), factors)


def _on_grid(field: sitk.Image, image: sitk.Image) -> sitk.Image:
    """A field of vectors on the grid of an image, its border repeated; the field itself where it lies there."""
    import SimpleITK as sitk

    if field.GetSize() == image.GetSize():
        return field
    return sitk.Resample(field, image, sitk.Transform(), sitk.sitkLinear, 0.0, field.GetPixelID(), True)


def _after_steps(affine: NDArray, steps: NDArray[np.float64], fixed: Image) -> NDArray[np.float32]:
    """What steps along the axes of the fixed grid (3, Z, Y, X; mm), taken before an affine map, add to its displacement."""
    return np.tensordot(affine[:, :3] @ np.asarray(fixed.geometry.direction), steps, axes=1).astype(np.float32)


def _executed(execute: Callable[[], T], fixed: Image, moving: Image) -> T:
    """What `execute` returns; SimpleITK's words for images that drift apart become ours."""
    try:
        return execute()
    except RuntimeError as error:
        if "outside" not in str(error):
            raise
        raise GeometryError(f"the fixed image ({fixed.geometry.shape} voxels) and the moving image ({moving.geometry.shape} "
                            "voxels, z, y, x) lost each other while they were registered: nothing of one lies in the other any "
                            "more. Start by their centres, or by moments", code="E_NO_OVERLAP") from error
