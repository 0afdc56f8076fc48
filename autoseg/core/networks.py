"""Networks as numbers, and the weights they start from: the parts of a plan that `nn.build` builds."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from autoseg.core.plan_rules import Count, Finite, Kernel, Positive, Share
from autoseg.core.spec import STRICT


@dataclass(frozen=True, config=STRICT)
class Network:
    """A network as numbers.

    Attributes:
        kind: the builder in `nn.build`: the encoder has plain convolutions, or residual blocks of two each.
        dims: 2 or 3; a 2-D network sees slices (Y, X) of axis 0.
        features: per stage, first stage at the patch's resolution.
        strides, kernel_sizes: per stage, one entry per spatial axis (`dims` of them).
        convs_encoder, convs_decoder: convolutions (residual encoder: blocks) per stage (decoder: from the deepest up).
        deep_supervision: extra outputs at the lower resolutions of the decoder.
        output_bias: what the outputs start from, one value per output; empty: zero.
        norm, activation: closed choices of `nn.blocks`.
    """

    kind: Literal["plain_unet", "residual_unet"]
    dims: Literal[2, 3]
    in_channels: Count
    out_channels: Count
    features: tuple[Count, ...]
    strides: tuple[Kernel, ...]
    kernel_sizes: tuple[Kernel, ...]
    convs_encoder: tuple[Count, ...]
    convs_decoder: tuple[Count, ...]
    deep_supervision: bool
    output_bias: tuple[Finite, ...] = ()
    norm: Literal["instance"] = "instance"
    activation: Literal["leaky_relu"] = "leaky_relu"


@dataclass(frozen=True, config=STRICT)
class Classifier:
    """A network from a whole image to a vector, as numbers.

    Attributes:
        kind: the builder in `nn.build`; `encoder` is the encoder of a U-Net, plain or residual, whose weights a segmentation
            network can give.
        dims: 2 or 3.
        slices: a 2-D encoder that sees the slices of axis 0 one by one, pooled over slices as `pooling` says.
        features, strides, kernel_sizes, blocks: per stage, one entry per spatial axis for strides and kernels; a kind reads those
            it has (DenseNet: features[0] of the stem and `growth`; ViT: features[0] of the tokens, strides[0] their size).
        growth: features that each layer of a DenseNet adds; 0 elsewhere.
        norm: over the batch, over the image, or over groups of 8 features.
        attention: squeeze-excitation (Hu et al. 2018) or CBAM (Woo et al. 2018) after each stage.
        pooling: over places (and slices): mean, log-sum-exp (Wang et al. 2017), learned attention, or a recurrent network
            over slices.
        sharpness: r of log-sum-exp pooling.
        dropout: before the last layer.
        output_bias: what the outputs start from, one value per output; empty: zero.
    """

    kind: Literal["densenet", "resnet", "inception", "vit", "plain_encoder", "residual_encoder"]
    dims: Literal[2, 3]
    in_channels: Count
    out_channels: Count
    features: tuple[Count, ...]
    strides: tuple[Kernel, ...]
    kernel_sizes: tuple[Kernel, ...]
    blocks: tuple[Count, ...]
    growth: Annotated[int, Field(ge=0)] = 0
    slices: bool = False
    norm: Literal["batch", "instance", "group"] = "batch"
    attention: Literal["none", "squeeze_excitation", "cbam"] = "none"
    pooling: Literal["mean", "log_sum_exp", "attention", "recurrent"] = "mean"
    sharpness: Positive = 10.0
    dropout: Share = 0.0
    output_bias: tuple[Finite, ...] = ()


@dataclass(frozen=True, config=STRICT)
class Start:
    """Weights that training starts from, instead of fresh ones.

    Attributes:
        weights: file beside the plan, relative to its folder.
        sha256: its digest.
        parts: first parts of the names of the tensors that are taken (`encoder.`).
        trained: `all` of the network, its `last` stage and what follows, or only what is `fresh`.
        rate_decay: the learning rate of a stage is that of the next one times this; 1: the same everywhere.
    """

    weights: str
    sha256: str
    parts: tuple[str, ...]
    trained: Literal["all", "last", "fresh"] = "all"
    rate_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
