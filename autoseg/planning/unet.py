"""One U-Net configuration: patch, batch, network, augmentation and prediction from a blueprint."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial

from autoseg.core.plan import Configuration, Inference, Loss, MemoryFormat, Network, Precision, Resampling, Value
from autoseg.core.spec import DatasetSpec
from autoseg.planning.augmentation import Mirroring, plan_augmentation, plan_mirroring
from autoseg.planning.laterality import Laterality
from autoseg.planning.memory import (
    SMALLEST_BATCH,
    Architecture,
    Fit,
    batch_that_fits,
    fit_patch,
    limit_batch,
    low_resolution_spacing,
    stage_widths,
)
from autoseg.planning.recipes import LARGEST_CPU_BATCH, NNUNET, Recipe
from autoseg.planning.schedule import plan_optimization
from autoseg.planning.spacing import Grid

# No pixel is a million times longer than wide.
NEVER_APART = 1e6

# In the order of a plan.
DIMENSIONS = {"3d_fullres": 3, "2d": 2}


@dataclass(frozen=True)
class Wanted:
    """What a task wants of its network.

    Attributes:
        in_channels, out_channels: of the network.
        loss_terms: name -> weight.
        output_bias: what outputs would start from to say how frequent each label is.
        task_values: planned values that only the task understands.
        nnunet_channels: outputs that nnU-Net's estimate of memory takes the network to have; None: as many as it has.
        laterality: what mirroring left and right does to labels and outputs.
    """

    in_channels: int
    out_channels: int
    loss_terms: dict[str, float]
    task_values: dict[str, Value] = field(default_factory=dict)
    output_bias: tuple[float, ...] = ()
    nnunet_channels: int | None = None
    laterality: Laterality = Laterality()


@dataclass(frozen=True)
class Limits:
    """How large a step may be.

    Attributes:
        scale: memory / nnU-Net's 8 GB.
        step_voxels: voxels of a batch; a patch has at most half of them. None: memory alone decides.
        smallest_if_too_large: where nnU-Net's count holds no patch, the smallest one is taken all the same.
        shorter: times that the patch is shortened after nnU-Net's count holds it, because its predicted memory does not fit.
        largest_batch: for the same reason.
        largest_windows: that are predicted together, because prediction would not fit.
    """

    scale: float = 1.0
    step_voxels: int | None = None
    smallest_if_too_large: bool = False
    shorter: int = 0
    largest_batch: int | None = None
    largest_windows: int | None = None


@dataclass(frozen=True)
class Run:
    """Length and arithmetic of training."""

    iterations: int = 1
    precision: Precision = "fp32"
    memory_format: MemoryFormat = "contiguous"


@dataclass(frozen=True)
class Blueprint:
    """All that a configuration follows from.

    Attributes:
        name: `3d_fullres` or `2d`.
    """

    name: str
    grid: Grid
    wanted: Wanted
    recipe: Recipe
    limits: Limits = Limits()
    run: Run = Run()

    @property
    def dims(self) -> int:
        return DIMENSIONS[self.name]

    @property
    def architecture(self) -> Architecture:
        widths = partial(stage_widths, first=self.recipe.base_features, largest=self.recipe.widest(self.dims),
                         thin_first=self.recipe.thin_first)
        counted = self.wanted.nnunet_channels if self.recipe is NNUNET else None
        return Architecture(widths, self.recipe.convs_encoder, counted or self.wanted.out_channels)

    @property
    def mirroring(self) -> Mirroring:
        return plan_mirroring(self.recipe, self.dims, self.grid.transpose, self.wanted.laterality)


def channel_count(spec: DatasetSpec) -> int:
    """Channels of all image inputs together."""
    return sum(len(entry.channels) for entry in spec.inputs if entry.kind == "image")


def plan_unet(blueprint: Blueprint) -> Configuration:
    """The configuration of a blueprint.

    Raises:
        ResourceError: the smallest patch does not fit into the memory budget.
    """
    grid, recipe, run, flat = blueprint.grid, blueprint.recipe, blueprint.run, blueprint.dims == 2
    fit = fit_blueprint(blueprint)
    patch = fit.topology.patch_size
    batch = plan_batch(blueprint, fit)
    passes = run.iterations * batch * math.prod(patch) / grid.dataset_voxels
    return Configuration(
        name=blueprint.name,
        spacing_mm=(None, *grid.spacing_mm[1:]) if flat else grid.spacing_mm,
        median_shape=(grid.median_slices, *grid.median_shape[1:]) if flat else grid.median_shape,
        patch_size=(1, patch[0], patch[1]) if flat else (patch[0], patch[1], patch[2]),
        batch_size=batch,
        resampling=plan_resampling(grid),
        network=plan_network(blueprint, fit),
        loss=Loss(dict(blueprint.wanted.loss_terms), uses_batch_dice(blueprint, fit), recipe.smooth),
        augmentation=plan_augmentation(recipe, patch, passes, blueprint.mirroring),
        optimization=plan_optimization(recipe, run.iterations, precision=run.precision, memory_format=run.memory_format),
        inference=plan_inference(blueprint, batch),
        oversample_foreground=recipe.oversample_foreground,
        task_values=dict(blueprint.wanted.task_values))


def plan_resampling(grid: Grid) -> Resampling:
    """nnU-Net's orders; images of one slice have no coarse axis to treat apart, whatever the slices' thickness.

    nnU-Net's readers give such images a spacing of 999 across, so that no axis within the slice is ever the coarse one.
    """
    return Resampling(separate_z_ratio=NEVER_APART) if grid.median_slices == 1 else Resampling()


def fit_blueprint(blueprint: Blueprint) -> Fit:
    """Patch and strides: the largest that memory and, where steps are limited, half of a step hold."""
    dims, limits = blueprint.dims, blueprint.limits
    largest = math.inf if limits.step_voxels is None else limits.step_voxels / SMALLEST_BATCH
    return fit_patch(blueprint.grid.spacing_mm[-dims:], blueprint.grid.median_shape[-dims:], blueprint.architecture,
                     scale=limits.scale, largest_voxels=largest, or_smallest=limits.smallest_if_too_large,
                     shorter=limits.shorter)


def plan_batch(blueprint: Blueprint, fit: Fit) -> int:
    """Samples per step: what memory and, where steps are limited, their voxels allow; at most 5 % of the dataset."""
    dims, limits = blueprint.dims, blueprint.limits
    batch = batch_that_fits(fit, dims, limits.scale)
    if limits.step_voxels is not None:
        batch = min(batch, limits.step_voxels // fit.topology.voxels, LARGEST_CPU_BATCH[dims])
    if limits.largest_batch is not None:
        batch = min(batch, limits.largest_batch)
    return limit_batch(batch, blueprint.grid.dataset_voxels, fit.topology.voxels)


def plan_network(blueprint: Blueprint, fit: Fit) -> Network:
    """The U-Net that belongs to a patch."""
    topology, wanted, recipe = fit.topology, blueprint.wanted, blueprint.recipe
    stages = len(topology.strides)
    return Network(
        kind=recipe.kind, dims=3 if blueprint.dims == 3 else 2, in_channels=wanted.in_channels,
        out_channels=wanted.out_channels, features=blueprint.architecture.widths(stages), strides=topology.strides,
        kernel_sizes=topology.kernel_sizes, convs_encoder=(recipe.convs_encoder,) * stages,
        convs_decoder=(recipe.convs_decoder,) * (stages - 1), deep_supervision=recipe.deep_supervision,
        output_bias=wanted.output_bias if recipe.starts_from_frequencies else ())


def plan_inference(blueprint: Blueprint, batch: int) -> Inference:
    """How cases are predicted; as many windows together as training had samples, where the recipe batches them."""
    recipe, run, mirroring = blueprint.recipe, blueprint.run, blueprint.mirroring
    windows = batch if recipe.batches_tiles else 1
    return Inference(
        tile_step=recipe.tile_step, gaussian_sigma=recipe.gaussian_sigma,
        tiles_per_batch=min(windows, blueprint.limits.largest_windows or windows),
        mirror_axes=mirroring.axes, mirror=recipe.mirrors_at_test,
        precision=run.precision, memory_format=run.memory_format,
        left_right_axis=mirroring.left_right_axis, mirror_pairs=mirroring.output_pairs)


def uses_batch_dice(blueprint: Blueprint, fit: Fit) -> bool:
    """Whether Dice is taken over the batch: as the recipe says, else in 2-D and where nnU-Net makes a cascade."""
    if blueprint.recipe.batch_dice is not None:
        return blueprint.recipe.batch_dice
    return blueprint.dims == 2 or low_resolution(blueprint, fit) is not None


def low_resolution(blueprint: Blueprint, fit: Fit) -> tuple[float, ...] | None:
    """Spacing (mm) of the low-resolution configuration that nnU-Net would add to a 3-D one; None where it adds none."""
    return low_resolution_spacing(blueprint.grid.spacing_mm, blueprint.grid.median_shape, fit.topology.voxels,
                                  blueprint.architecture, scale=blueprint.limits.scale)
