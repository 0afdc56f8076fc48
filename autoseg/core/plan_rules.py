"""Which values a plan may hold: ranges as types, and what must fit together.

A plan is a file that people edit and that comes with bundles of strangers, so nothing in it is taken on trust.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

if TYPE_CHECKING:
    from autoseg.core.networks import Classifier, Network, Registrar, SimilarityNetwork, Start
    from autoseg.core.plan import Configuration, Plan

Count = Annotated[int, Field(ge=1)]
Order = Annotated[int, Field(ge=0, le=5)]  # of splines, as scipy.ndimage has them
Axis = Annotated[int, Field(ge=0, le=2)]
Doublings = Annotated[int, Field(ge=0, le=12)]  # of scaling and squaring: 2**12 steps of half a voxel cross any image
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Range = tuple[Finite, Finite]
Kernel = tuple[Count, ...]


def require_sound_network(network: Network | Classifier | Registrar) -> None:
    """Raises a ValueError where the lists of a network do not fit each other."""
    counts = {"strides": len(network.strides), "kernel_sizes": len(network.kernel_sizes)}
    if is_classifier(network):
        counts |= {"blocks": len(network.blocks)}  # type: ignore[union-attr]
        _require_sound_classifier(network)  # type: ignore[arg-type]
    elif is_registrar(network):
        counts |= {"convs_encoder": len(network.convs_encoder)}  # type: ignore[union-attr]
        _require_sound_registrar(network)  # type: ignore[arg-type]
    else:
        counts |= {"convs_encoder": len(network.convs_encoder),  # type: ignore[union-attr]
                   "convs_decoder": len(network.convs_decoder) + 1}  # type: ignore[union-attr]
    _require_lists(network, counts)
    if is_registrar(network):
        return
    if len(network.output_bias) not in (0, network.out_channels):  # type: ignore[union-attr]
        raise ValueError(f"output_bias has {len(network.output_bias)} values, "  # type: ignore[union-attr]
                         f"and the network {network.out_channels} outputs")  # type: ignore[union-attr]


def _require_lists(network: Network | Classifier | Registrar | SimilarityNetwork, counts: dict[str, int]) -> None:
    """Raises a ValueError where a list is not one entry per stage, or an entry not one number per axis."""
    stages = len(network.features)
    wrong = [name for name, count in counts.items() if count != stages]
    if not stages or wrong:
        raise ValueError(f"features has {stages} stages; {', '.join(wrong) or 'at least one'} must have as many (convs_decoder "
                         "one less)")
    for name, entries in (("strides", network.strides), ("kernel_sizes", network.kernel_sizes)):
        if any(len(entry) != network.dims for entry in entries):
            raise ValueError(f"{name} must give {network.dims} numbers per stage, found {[list(entry) for entry in entries]}")
    if network.kind != "vit" and any(size % 2 == 0 for kernel in network.kernel_sizes for size in kernel):
        raise ValueError(f"kernel_sizes must be odd, found {[list(kernel) for kernel in network.kernel_sizes]}")


def is_classifier(network: Network | Classifier | Registrar) -> bool:
    """Whether a network ends in a vector. This module cannot import the types, which import its ranges."""
    return hasattr(network, "blocks")


def is_registrar(network: Network | Classifier | Registrar) -> bool:
    """Whether a network answers with a deformation."""
    return hasattr(network, "integration_steps")


def _require_sound_registrar(network: Registrar) -> None:
    stages, decoded = len(network.features), len(network.convs_decoder)
    if stages < 2 or not 1 <= decoded < stages:
        raise ValueError(f"a network of kind {network.kind!r} needs two stages or more and a decoder of one stage to one less "
                         f"than the encoder's; found features {list(network.features)} and convs_decoder "
                         f"{list(network.convs_decoder)}")
    if network.similarity is not None:
        _require_sound_similarity(network.similarity, network)


def _require_sound_similarity(part: SimilarityNetwork, network: Registrar) -> None:
    if (part.dims, part.in_channels) != (network.dims, network.in_channels):
        raise ValueError(f"network.similarity has dims {part.dims} and in_channels {part.in_channels}, and the network "
                         f"{network.dims} and {network.in_channels}; it sees the same images")
    try:
        _require_lists(part, {"strides": len(part.strides), "kernel_sizes": len(part.kernel_sizes), "blocks": len(part.blocks)})
    except ValueError as error:
        raise ValueError(f"network.similarity: {error}") from error


def _require_sound_classifier(network: Classifier) -> None:
    stages, width = len(network.features), network.features[0] if network.features else 0
    least = {"densenet": 2, "resnet": 2, "inception": 5}.get(network.kind, 1)
    if stages < least or (network.kind == "inception" and stages > least) or (network.kind == "vit" and stages > 1):
        raise ValueError(f"a network of kind {network.kind!r} cannot have {stages} stages: densenet and resnet have a stem and "
                         "at least one stage of blocks, inception 5 stages, vit one")
    if network.slices and network.dims != 2:
        raise ValueError("slices asks for an encoder that sees slices one by one, and dims is 3")
    if network.pooling == "recurrent" and not (network.slices or network.dims == 3):
        raise ValueError("pooling 'recurrent' runs over slices, and slices is false and dims 2")
    if (network.growth > 0) != (network.kind == "densenet"):
        raise ValueError(f"growth is {network.growth}; a densenet grows by 1 or more features a layer, other kinds by 0")
    if network.bottleneck and (network.kind != "resnet" or any(count % 4 for count in network.features[1:])):
        raise ValueError("bottleneck is for a resnet whose features after the stem are multiples of 4, found "
                         f"{list(network.features)} of kind {network.kind!r}")
    if network.kind == "vit" and width % (2 * network.dims):
        raise ValueError(f"features {width} of a vit must be a multiple of {2 * network.dims}, a sine and a cosine per axis")


def require_sound_start(start: Start) -> None:
    """Raises a ValueError where weights to start from are no file beside the plan, or nothing of them is taken.

    A plan may come from a stranger: it must not name files elsewhere.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\.safetensors", start.weights):
        raise ValueError(f"start.weights {start.weights[:200]!r} must be a .safetensors file beside the plan: letters, digits,"
                         " '.', '_' and '-'")
    if not re.fullmatch(r"[0-9a-f]{64}", start.sha256):
        raise ValueError(f"start.sha256 {start.sha256[:80]!r} is no SHA-256 digest: 64 hexadecimal digits")
    if not start.parts or not all(start.parts):
        raise ValueError("start.parts must name what is taken of the weights, for example 'encoder.'")
    if start.into is not None and not re.fullmatch(r"([a-z_]+\.){1,8}", start.into):
        raise ValueError(f"start.into {start.into[:80]!r} must name a part of the network, for example 'similarity.'")


def require_sound_configuration(configuration: Configuration) -> None:
    """Raises a ValueError where grid, patch, network and windows of a configuration do not fit each other."""
    patch, network = configuration.patch_size, configuration.network
    if any(spacing is None for spacing in configuration.spacing_mm[1:]):
        raise ValueError("spacing_mm may be null along the first axis only")
    if network.dims == 2 and patch[0] != 1 and not getattr(network, "slices", False):
        raise ValueError(f"patch_size {list(patch)} must begin with 1, as the network is two-dimensional")
    if configuration.start is not None:
        require_sound_start(configuration.start)
    if is_classifier(network):
        return
    if configuration.whole_image:
        raise ValueError("whole_image is for networks that answer with a vector; this one answers for every voxel")
    divisor = tuple(math.prod(stage) for stage in zip(*network.strides, strict=True))
    if any(size % step for size, step in zip(patch[-network.dims:], divisor, strict=True)):
        raise ValueError(f"patch_size {list(patch)} must be a multiple of the product of all strides, {list(divisor)}")


def require_sound_plan(plan: Plan) -> None:
    """Raises a ValueError for a plan whose parts do not fit each other."""
    if sorted(plan.transpose) != [0, 1, 2]:
        raise ValueError(f"transpose must name the axes 0, 1 and 2 once each, found {list(plan.transpose)}")
    channels = sum(len(entry.channels) for entry in plan.inputs)
    for name, configuration in plan.configurations.items():
        if configuration.network.in_channels != channels:
            raise ValueError(f"configurations.{name}.network takes {configuration.network.in_channels} channels, and inputs has "
                             f"{channels}")
        try:
            require_sound_network(configuration.network)
            require_sound_configuration(configuration)
        except ValueError as error:
            raise ValueError(f"configurations.{name}: {error}") from error
        step, patch = configuration.inference.tile_step, configuration.patch_size
        if step * max(patch) < 1:
            raise ValueError(f"configurations.{name}.inference.tile_step {step:g} moves windows of {list(patch)} voxels by less "
                             "than one voxel")
