"""The reason of every value of a U-Net configuration; paths are relative to the configuration."""

from __future__ import annotations

from dataclasses import replace

from autoseg.core.budget import Budget
from autoseg.core.fingerprint import Fingerprint
from autoseg.core.plan import Configuration, Reason
from autoseg.planning import recipes
from autoseg.planning.explain import Reasons
from autoseg.planning.memory import REFERENCES
from autoseg.planning.spacing import PLANNER, shape_reason, spacing_reason
from autoseg.planning.topology import INITIAL_EDGE, SMALLEST_EDGE
from autoseg.planning.unet import Blueprint, fit_blueprint, low_resolution

MIRRORED = ("mirror_axes", "left_right_axis", "mirror_pairs")


def explain_configuration(configuration: Configuration, blueprint: Blueprint, fingerprint: Fingerprint,
                          budget: Budget) -> Reasons:
    """Reasons that cover every value of a configuration but `optimization.iterations`, which its rule book explains."""
    return {
        "name": Reason("number of slices of the median case", "3-D where there is more than one slice, 2-D always", PLANNER),
        "spacing_mm": spacing_reason(fingerprint, blueprint.grid, blueprint.dims),
        "median_shape": shape_reason(fingerprint, blueprint.grid),
        "resampling": Reason(
            f"{blueprint.grid.median_slices:g} slices in the median case", "cubic splines for images, linear per label for label "
            "maps and linear for logits; nearest along an axis more than 3 times as coarse (which a single slice does not have)",
            "nnU-Net 2.8.1 experiment planner"),
        "task_values": Reason("dataset specification", "the task counts its labels there", "dataset specification"),
        "whole_image": Reason("every voxel is to be answered for", "cases keep a spacing and are seen in patches",
                              "nnU-Net 2.8.1 experiment planner"),
        "start": Reason("no weights were given", "fresh weights, drawn by the seed", "nnU-Net 2.8.1 trains from fresh weights"),
        "oversample_foreground": Reason("none", "the last third of each batch is drawn around a label, so that small labels "
                                        "are seen in every step", recipes.NNUNET_TRAINER),
        **_size_reasons(configuration, blueprint, budget),
        **_network_reasons(configuration, blueprint),
        **_loss_reasons(blueprint),
        **_training_reasons(configuration, blueprint, budget),
        **_inference_reasons(configuration, blueprint),
    }


def _size_reasons(configuration: Configuration, blueprint: Blueprint, budget: Budget) -> Reasons:
    fit = fit_blueprint(blueprint)
    reference, limits, dims = REFERENCES[blueprint.dims], blueprint.limits, blueprint.dims
    memory = (f"{fit.values} feature-map values per sample; reference {reference.values:.3g} at batch {reference.batch} in "
              f"8 GB, times {limits.scale:.3g}")
    held = "nnU-Net's 8 GB, whatever this machine has" if blueprint.recipe is recipes.NNUNET else \
        f"a memory budget of {budget.memory_bytes / 1e9:.3g} GB"
    cpu = "" if limits.step_voxels is None else f", and a patch holds at most half of a step of {limits.step_voxels} voxels"
    few = "" if limits.step_voxels is None else \
        f", at most {recipes.LARGEST_CPU_BATCH[dims]} and {limits.step_voxels} voxels per step"
    voxels = f"{blueprint.grid.dataset_voxels:.4g} voxels in the dataset"
    return {
        "patch_size": Reason(
            f"spacing {blueprint.grid.spacing_mm[-dims:]} mm, median shape {blueprint.grid.median_shape[-dims:]}, {memory}",
            f"a cube in mm of {INITIAL_EDGE[dims]}^{dims} voxels, cut to the median shape and shortened, the axis that covers "
            f"most first, until it fits into {held}{cpu}; padded to what the strides divide", PLANNER),
        "batch_size": Reason(f"{memory}; {voxels}", f"what {held} holds{few}; at most 5 % of the dataset's voxels, at least 2",
                             PLANNER if limits.step_voxels is None else f"{PLANNER}; {blueprint.recipe.source}"),
    }


def _network_reasons(configuration: Configuration, blueprint: Blueprint) -> Reasons:
    recipe, dims, wanted = blueprint.recipe, blueprint.dims, blueprint.wanted
    topology = (f"spacing {blueprint.grid.spacing_mm[-dims:]} mm, patch {configuration.patch_size[-dims:]}")
    deep = "extra outputs at lower resolutions steady long training" if recipe.deep_supervision else \
        "extra outputs cost time in every step, and a shallow network of a short run learns without them"
    return {
        "network": Reason("none", _network_text(blueprint), "nnU-Net 2.8.1 (Isensee et al. 2021, Nature Methods 18:203)"
                          if recipe.kind == "plain_unet" else "residual encoder: Isensee et al. 2024, arXiv 2404.09556"),
        "network.output_bias": Reason(
            "voxels per label in the fingerprint", "outputs start from the logarithm of the labels' frequencies, so that the "
            "first steps need not learn them" if recipe.starts_from_frequencies else "outputs start from zero", recipe.source),
        "network.dims": Reason(f"configuration {blueprint.name}", "3-D patches, or slices of axis 0 in 2-D", PLANNER),
        "network.in_channels": Reason(f"{wanted.in_channels} channels in the dataset specification", "one per channel",
                                      "dataset specification"),
        "network.out_channels": Reason(f"{wanted.out_channels} outputs wanted by the task", "one map each", "task"),
        "network.features": Reason(
            f"{len(configuration.network.strides)} stages, {recipe.base_features} features in the "
            f"{'first' if recipe.thin_first == 1 else 'second, a quarter of them in the first'}",
            f"doubled per stage, at most {recipe.widest(dims)}; {recipe.because}", recipe.source),
        "network.strides": Reason(topology, f"an axis is halved while it has {2 * SMALLEST_EDGE} voxels and its spacing is below "
                                  "twice the finest", PLANNER),
        "network.kernel_sizes": Reason(topology, "1 along an axis until its spacing is below twice the finest, then 3", PLANNER),
        "network.deep_supervision": Reason("none", deep, recipe.source),
    }


def _network_text(blueprint: Blueprint) -> str:
    if blueprint.recipe.kind == "plain_unet":
        return "plain U-Net with instance norm and leaky ReLU, two convolutions per stage"
    return "U-Net with a residual encoder, instance norm and leaky ReLU; one block per stage, one convolution in the decoder"


def _loss_reasons(blueprint: Blueprint) -> Reasons:
    recipe = blueprint.recipe
    if recipe.batch_dice is not None:
        batch_dice = Reason("none", "a patch that lacks a label does not spoil the Dice of a batch taken as one sample",
                            recipe.source)
    elif blueprint.dims == 2:
        batch_dice = Reason("2-D", "slices often lack a label, so the batch counts as one sample", PLANNER)
    else:
        batch_dice = _cascade_reason(blueprint)
    return {"loss": Reason("none", "Dice follows the score, cross-entropy gives a smooth gradient where Dice has none",
                           recipes.NNUNET_TRAINER),
            "loss.batch_dice": batch_dice}


def _cascade_reason(blueprint: Blueprint) -> Reason:
    fit = fit_blueprint(blueprint)
    spacing = low_resolution(blueprint, fit)
    inputs = f"patch {fit.topology.patch_size}, median shape {blueprint.grid.median_shape}"
    if spacing is None:
        return Reason(inputs, "the patch covers a quarter of the median shape (or a coarser grid saves less than half), so "
                      "nnU-Net makes no low-resolution configuration and takes Dice per sample", PLANNER)
    text = " x ".join(f"{value:.3g}" for value in spacing)
    return Reason(inputs, "the patch covers less than a quarter of the median shape: nnU-Net would add a low-resolution "
                  f"configuration at {text} mm and a cascade, which autoseg does not plan yet, and takes Dice over the batch",
                  PLANNER)


def _training_reasons(configuration: Configuration, blueprint: Blueprint, budget: Budget) -> Reasons:
    recipe, run = blueprint.recipe, configuration.optimization
    ranges = "nnU-Net's ranges for this patch" if recipe.fits_rotation else "patients lie upright in canonical axes"
    target = f"target {budget.target}, bf16 {'faster than fp32' if budget.supports_bf16 else 'not faster than fp32'}"
    precision = Reason(target, "fp16 on cuda; on a cpu bf16 where the processor is faster in it, and fp32 otherwise and in "
                       "nnU-Net's book", recipe.source)
    layout = Reason(target, "the layout of the recipe; only a plan with a time budget times both", recipe.source)
    return {
        "augmentation": Reason(
            f"{run.iterations} steps of {configuration.batch_size} patches, {blueprint.grid.dataset_voxels:.4g} voxels in the "
            "dataset", f"probabilities and ranges of the recipe: {recipe.because}" + (
                f"; stronger in runs that draw the dataset {recipes.MANY_PASSES} times and more, likelier to learn it by heart"
                if recipe.long_augmentation else ""), recipe.source),
        "augmentation.rotation_deg": Reason(f"patch {configuration.patch_size}", ranges, recipe.source),
        "augmentation.dummy_2d": Reason(f"patch {configuration.patch_size}", "3-D and longest axis / axis 0 above 3: rotated "
                                        "within slices only", recipes.NNUNET_TRAINER),
        **{f"augmentation.{name}": blueprint.mirroring.reason for name in MIRRORED},
        "optimization": Reason(f"{run.iterations} iterations", _optimizer_text(configuration, blueprint), recipe.source),
        "optimization.iterations_per_epoch": Reason(
            f"{run.iterations} iterations", f"how often is logged and saved: a {recipes.EPOCHS}th of the run, at most "
            f"{recipes.LONGEST_EPOCH}", recipes.NNUNET_TRAINER),
        "optimization.precision": precision, "optimization.memory_format": layout,
        "inference.precision": precision, "inference.memory_format": layout,
    }


def _optimizer_text(configuration: Configuration, blueprint: Blueprint) -> str:
    run = configuration.optimization
    if blueprint.recipe is recipes.NNUNET:
        return blueprint.recipe.because
    if run.optimizer == "sgd":
        return f"from {recipes.LONG_RUN} iterations on nnU-Net's SGD has the length that it was tuned for"
    name = {"adamw": "AdamW", "muon": "Muon for convolutions and AdamW for the rest"}[run.optimizer]
    return (f"{name}, warmed up over {blueprint.recipe.warmup_share:.0%} of the run and decayed to zero in every step, with "
            f"weights averaged over {blueprint.recipe.ema_share or 0:.0%} of it, learns in a few hundred iterations what SGD "
            "needs thousands for")


def _inference_reasons(configuration: Configuration, blueprint: Blueprint) -> Reasons:
    recipe = blueprint.recipe
    tiles = f"as many as training had samples, {configuration.batch_size}: they fit into memory" if recipe.batches_tiles else \
        "one by one"
    mirror = "predictions of all mirrored windows are averaged" if recipe.mirrors_at_test else \
        "eight predictions cost eight times the time, and training did not mirror"
    return {
        "inference": Reason("none", "windows overlap by half and count most in their middle", recipe.source),
        "inference.tiles_per_batch": Reason(f"batch {configuration.batch_size}", tiles, recipe.source),
        "inference.mirror": Reason("none", mirror, recipe.source),
        **{f"inference.{name}": replace(blueprint.mirroring.reason, because="as in training: "
                                        + blueprint.mirroring.reason.because) for name in MIRRORED},
    }
