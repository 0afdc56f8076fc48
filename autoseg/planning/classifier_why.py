"""Why the values of a configuration that sees images whole are what they are."""

from __future__ import annotations

from collections.abc import Sequence

from autoseg.core.budget import Budget
from autoseg.core.networks import Classifier
from autoseg.core.plan import Configuration, Reason
from autoseg.planning import classifier_recipes as recipes
from autoseg.planning.classifier import BATCH_NORM_FROM, PARAMETERS_PER_PATIENT, SMALLEST_MAP, classifier_parameters, last_map
from autoseg.planning.explain import Reasons
from autoseg.planning.whole_image import RULES, WholeGrid

KIND_TEXTS = {
    "resnet": "ResNet of basic blocks (He et al. 2016), its strides fitted to the size of the image",
    "densenet": "DenseNet-121, CheXNet's network (Rajpurkar et al. 2017)", "inception": "Inception-v3 (Esteva et al. 2017)",
    "vit": "a small vision transformer (Dosovitskiy et al. 2021, Touvron et al. 2021)",
    "plain_encoder": "the encoder of the model that it starts "
                     "from", "residual_encoder": "the encoder of the model that it starts from"}


def explain(configuration: Configuration, grid: WholeGrid, units: int, of_dims: Reason, of_size: Reason,
            budget: Budget, *, patients: int) -> Reasons:
    """Reasons of a configuration, with paths relative to it."""
    network = configuration.network
    assert isinstance(network, Classifier)
    sides = " x ".join(str(side) for side in grid.size)
    batch = Reason(f"{units} units, images of {sides} voxels, target {budget.target}",
                   f"images of a step by their kind ({recipes.BATCH[budget.target]}), at most {recipes.LARGEST_SHARE:.0%} of "
                   "the units, "
                   "and halved until the predicted peak fits into the memory budget", RULES)
    same = Reason(f"size {sides}", "the whole image is resampled to the planned size, whatever its spacing", RULES)
    arithmetic = Reason(f"target {budget.target}, bf16 {'faster than fp32' if budget.supports_bf16 else 'not faster than fp32'}",
                        "fp16 on cuda; on a cpu bf16 where the processor is faster in it, else fp32", "planning/recipes.py")
    return {
        "name": Reason("none", "by the network", RULES), "spacing_mm": same, "median_shape": same, "whole_image": same,
        "patch_size": of_size, "batch_size": batch,
        "resampling": Reason("whole images", "nnU-Net's orders; all axes alike, as spacing does not decide the grid", RULES),
        "resampling.low_pass_from": Reason(
            f"median image {_list(grid.median_shape)} voxels, size {sides}", "an axis that shrinks by more than this factor is "
            "blurred by a Gaussian of (factor - 1) / 2 voxels first, as voxels would else be skipped and fine patterns come back "
            "as coarse ones", "scikit-image, transform.resize(anti_aliasing=True); " + RULES),
        **_network_reasons(configuration, grid, patients, of_dims), **_start_reasons(configuration),
        "oversample_foreground": Reason("none", "whole images have no place to draw around", RULES),
        "optimization": recipes.OPTIMIZER_REASON,
        "optimization.precision": arithmetic, "optimization.memory_format": arithmetic,
        "inference": Reason("whole images", "one window is the whole image; mirrored predictions cost as much again and training "
                            "mirrors only where the augmentation says", RULES),
        "inference.precision": arithmetic, "inference.memory_format": arithmetic}


def _network_reasons(configuration: Configuration, grid: WholeGrid, patients: int, of_dims: Reason) -> Reasons:
    network = configuration.network
    assert isinstance(network, Classifier)
    if network.kind in ("resnet", "densenet", "vit"):
        counted = f"{classifier_parameters(network)} parameters, {patients} patients"
    else:
        counted = f"{patients} patients"
    capacity = Reason(counted, f"as large as the time allows, at most {PARAMETERS_PER_PATIENT} parameters for every patient "
                               "(docs/classification.md); features double per stage", RULES)
    strides = Reason(f"sides {grid.sides}, last map "
                     f"{last_map(grid, network)}", f"an axis is halved while it is even and {SMALLEST_MAP} "
                     "cells remain, small images from the third stage on; where maps are wanted, 14 cells remain", RULES)
    pooling = {"mean": "the mean over "
                       "places", "log_sum_exp": "log-sum-exp, between mean and maximum, keeps small findings and makes "
               "heat maps (Wang et al. "
               "2017)", "attention": "each slice weighs as much as learned attention says (Ilse et al. 2018)",
               "recurrent": "a recurrent network reads the slices"}[network.pooling]
    return {
        "network": Reason(counted, KIND_TEXTS[network.kind], RULES),
        "network.dims": of_dims, "network.slices": of_dims,
        "network.features": capacity, "network.blocks": capacity, "network.growth": capacity,
        "network.strides": strides, "network.kernel_sizes": Reason("sides "
                                                                   f"{grid.sides}", "3 everywhere; 7 in the stem of large "
                                                                                    "images, "
                                                                   "as in ResNet and DenseNet", RULES),
        "network.norm": Reason("batch "
                               f"{configuration.batch_size}", f"over the batch from {BATCH_NORM_FROM} images on, else over "
                                                              "groups "
                               "of 8 features: statistics of fewer images are noise (Wu and He 2018)", RULES),
        "network.attention": Reason("configuration " + configuration.name, "asked for by the configuration's name; off "
                                                                           "elsewhere: gains "
                                    "are small and differ by dataset", RULES),
        "network.pooling": Reason(f"slices one by one: {network.slices}", pooling, RULES),
        "network.sharpness": Reason("last map "
                                    f"{last_map(grid, network)}", "10, less for larger maps: 10 sqrt(14 / cells), at least 4",
                                    "Wang et al. 2017, table 3; " + RULES)}


def _list(values: Sequence[float]) -> str:
    return " x ".join(f"{value:g}" for value in values)


def _start_reasons(configuration: Configuration) -> Reasons:
    start = configuration.start
    if start is None:
        return {"start": Reason("no weights are started from", "fresh weights, drawn by the seed", RULES)}
    text = {"all": "all stages are trained, each at a rate lower than that of the "
                   "next", "last": "the last stage and the outputs are "
            "trained", "fresh": "only pooling and outputs are trained"}[start.trained]
    return {"start": Reason(f"weights {start.weights}", f"{text}; the neighbours are compared on out-of-fold scores",
                            "Howard and Ruder 2018 (arXiv 1801.06146); " + RULES)}
