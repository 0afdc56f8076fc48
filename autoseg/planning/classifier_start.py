"""Classifiers that start from the weights of another model: which parts they take, and what is trained."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

from autoseg.core.errors import UsageError
from autoseg.core.networks import Classifier, Network, Registrar, Start
from autoseg.core.task import Starting
from autoseg.planning.classifier import Wish
from autoseg.planning.classifier_recipes import RATE_DECAY
from autoseg.planning.whole_image import WholeGrid

# Neighbours among which out-of-fold scores choose: all stages with slower rates towards the image, the last one, none.
STARTS: dict[str, Literal["all", "last", "fresh"]] = {"layer_wise": "all", "last_stage": "last", "frozen": "fresh"}
# What U-Nets and classifiers call the stages of their encoders.
ENCODER = ("encoder.",)
KINDS: dict[str, Literal["plain_encoder", "residual_encoder"]] = {"plain_unet": "plain_encoder",
                                                                  "residual_unet": "residual_encoder"}


def start_of(start: Starting, name: str) -> Start:
    """How a configuration starts from these weights."""
    trained = STARTS[name]
    return Start(start.weights, start.sha256, ENCODER, trained, RATE_DECAY if trained == "all" else 1.0)


def start_network(start: Starting, wish: Wish) -> Classifier:
    """The encoder of the other model with outputs of its own.

    Raises:
        UsageError: it takes other channels, or pairs.
    """
    other = start.network
    if isinstance(other, Classifier):
        pooling = "log_sum_exp" if wish.localise and other.pooling == "mean" else other.pooling
        return replace(other, in_channels=wish.in_channels, out_channels=wish.out_channels, output_bias=wish.output_bias,
                       shared_output=wish.shared_output, pooling=pooling)
    if isinstance(other, Registrar):
        raise UsageError(f"{start.source} has a network of kind {other.kind!r}, which sees two images at once; start from a "
                         "model of another task, or plan without one")
    return Classifier(
        kind=KINDS[other.kind], dims=other.dims, in_channels=wish.in_channels, out_channels=wish.out_channels,
        features=other.features, strides=other.strides, kernel_sizes=other.kernel_sizes, blocks=other.convs_encoder,
        norm=other.norm, output_bias=wish.output_bias, shared_output=wish.shared_output,
        pooling="log_sum_exp" if wish.localise else "mean")


def start_grid(grid: WholeGrid, start: Starting) -> WholeGrid:
    """The grid in sizes that the other model's strides divide.

    Raises:
        UsageError: the other model sees pictures and these are volumes, or the other way round.
    """
    other: Network | Classifier | Registrar = start.network
    if other.dims != grid.dims or getattr(other, "slices", False) != grid.slices:
        raise UsageError(f"{start.source} has a network of {other.dims} dimensions, and these images need one of {grid.dims}"
                         f"{', slice by slice' if grid.slices else ''}; start from another model, or plan without one")
    steps = (1,) * (3 - other.dims) + tuple(math.prod(stage) for stage in zip(*other.strides, strict=True))
    size = [step * max(1, round(side / step)) for side, step in zip(grid.size, steps, strict=True)]
    spacing = [mm * old / new for mm, old, new in zip(grid.spacing_mm, grid.size, size, strict=True)]
    return replace(grid, size=(size[0], size[1], size[2]), spacing_mm=(spacing[0], spacing[1], spacing[2]))
