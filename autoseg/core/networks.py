"""Networks as numbers, and the weights they start from: the parts of a plan that `nn.build` builds."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from autoseg.core.plan_rules import Count, Doublings, Finite, Kernel, Positive, Share
from autoseg.core.spec import STRICT

# For fields that came later: see `io.plain.to_plain`.
LEFT_OUT_IF_NONE = {"left_out_if_none": True}


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

    Stage 0 of a DenseNet, ResNet or Inception is its stem: one convolution (Inception: three) and no block. Stage 1 begins with
    a max-pool of its stride, so that strides of 1 in both see small images at their full resolution. The later stages stride
    where the field's networks do: in a transition, in the first block, or in a grid reduction (Inception's stage 2: a max-pool).

    | | features | kernel_sizes | blocks |
    |---|---|---|---|
    | DenseNet-121 (`growth` 32) | 64 first, others follow | 7 3 3 3 3 | 1 6 12 24 16 |
    | ResNet-18, -34 | 64 64 128 256 512 | 7 3 3 3 3 | 1 2 2 2 2, 1 3 4 6 3 |
    | ResNet-50 (`bottleneck`) | 64 256 512 1024 2048 | 7 3 3 3 3 | 1 3 4 6 3 |
    | Inception-v3 | 32 first, others follow | 3 3 5 7 3 | 1 1 3 4 2 |
    | ViT-B/16 (one stage of stride 16) | 768 | any | 12 |

    Attributes:
        kind: the builder in `nn.build`; an `encoder` is that of a U-Net, plain or residual, whose weights a segmentation
            network can give.
        dims: 2 or 3.
        slices: a 2-D encoder that sees the slices of axis 0 one by one, pooled over slices as `pooling` says.
        features, strides, kernel_sizes, blocks: per stage, one entry per spatial axis for strides and kernels; a kind reads those
            it has. Inception's kernel is the largest of a stage.
        growth: features that each layer of a DenseNet adds; 0 elsewhere.
        bottleneck: a ResNet's blocks are 1, kernel and 1 wide, with a quarter of the features inside, instead of two kernels.
        norm: over the batch, over the image, or over groups of at least 8 features; ViT has its own over each token.
        attention: squeeze-excitation (Hu et al. 2018) or CBAM (Woo et al. 2018) after each stage.
        pooling: over places (and slices): mean, log-sum-exp (Wang et al. 2017), learned attention (with `slices` over those), or
            a recurrent network over slices.
        recurrence: the cell of a recurrent network.
        sharpness: r of log-sum-exp pooling.
        dropout: before the last layer.
        shared_output: the outputs share their weights and have a bias each, as grades need (Cao et al. 2020).
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
    bottleneck: bool = False
    slices: bool = False
    norm: Literal["batch", "instance", "group"] = "batch"
    attention: Literal["none", "squeeze_excitation", "cbam"] = "none"
    pooling: Literal["mean", "log_sum_exp", "attention", "recurrent"] = "mean"
    recurrence: Literal["gru", "lstm"] = "gru"
    sharpness: Positive = 10.0
    dropout: Share = 0.0
    shared_output: bool = False
    output_bias: tuple[Finite, ...] = ()


@dataclass(frozen=True, config=STRICT)
class ImageHead:
    """A second head of a U-Net, from the features of its deepest stage to a vector, as numbers.

    Attributes:
        pooling, sharpness, dropout, shared_output, output_bias: as of a `Classifier`.
    """

    out_channels: Count
    pooling: Literal["mean", "log_sum_exp"] = "mean"
    sharpness: Positive = 10.0
    dropout: Share = 0.0
    shared_output: bool = False
    output_bias: tuple[Finite, ...] = ()


@dataclass(frozen=True, config=STRICT)
class SimilarityNetwork:
    """A network that says how alike two images are, as numbers; see `nn.similarity`.

    Attributes:
        kind: `patches` scores two images as they lie on each other (Simonovsky et al. 2016); else the first stages of the
            encoder of a U-Net, plain or residual, whose features of two images are compared (Czolbe et al. 2021).
        dims, in_channels: those of the registrar: of one of the two images.
        features, strides, kernel_sizes: per layer of `patches`, per stage of an encoder; one entry per spatial axis for strides
            and kernels.
        blocks: convolutions (residual encoder: blocks) per stage; of `patches` one per layer.
        norm: of an encoder; `patches` has none.
    """

    kind: Literal["patches", "plain_encoder", "residual_encoder"]
    dims: Literal[2, 3]
    in_channels: Count
    features: tuple[Count, ...]
    strides: tuple[Kernel, ...]
    kernel_sizes: tuple[Kernel, ...]
    blocks: tuple[Count, ...]
    norm: Literal["batch", "instance", "group"] = "instance"

    @property
    def patch(self) -> tuple[int, ...]:
        """Voxels along each axis that one score of `patches` sees: its convolutions have no padding."""
        seen = [1] * self.dims
        for kernel, stride in zip(reversed(self.kernel_sizes), reversed(self.strides), strict=True):
            seen = [(size - 1) * step + width for size, step, width in zip(seen, stride, kernel, strict=True)]
        return tuple(seen)


@dataclass(frozen=True, config=STRICT)
class Registrar:
    """A network from a pair of images to the deformation between them, as numbers.

    The U-Net of VoxelMorph (Balakrishnan et al. 2019, Dalca et al. 2019) sees both images and ends at the resolution of the
    velocity. Where an affine part is planned, an encoder of its own sees them first, and the U-Net sees the moving image moved.

    Attributes:
        kind: the builder in `nn.build`.
        dims: 2 or 3; a 2-D network sees slices (Y, X) of axis 0.
        in_channels: of one of the two images.
        features: per stage, first stage at the patch's resolution, or coarser by its stride.
        strides, kernel_sizes: per stage, one entry per spatial axis (`dims` of them).
        convs_encoder: convolutions per stage.
        convs_decoder: convolutions per stage of the decoder, from the deepest up. It has as many stages as there are entries,
            and the velocity is on the grid of the last one.
        integration_steps: doublings of scaling and squaring; 0: the velocity is the displacement, which then may fold.
        passes: how often the U-Net looks: the first time at what the affine part left, then at the moving image as it was warped
            so far, to add to the velocity. Its weights are the same every time (log-domain demons, Vercauteren et al. 2008, add
            velocities so; recursive cascades, Zhao et al. 2019, learn to).
        answer_passes: the same when it answers and is not trained; None: as often.
        both_ways: when it answers, every pass is the mean of the velocity from one image to the other and of minus that from the
            other to the one, as in symmetric log-domain demons (Vercauteren et al. 2008).
        affine_features: per stage of the affine encoder, each of stride 2; empty: no affine part.
        norm: over the image, or none, as in VoxelMorph.
        similarity: what is learned of likeness; it has no part in the answer, but in training, or when a pair is optimised, and
            its weights travel with the network's. None: likeness is a formula.
    """

    kind: Literal["voxelmorph"]
    dims: Literal[2, 3]
    in_channels: Count
    features: tuple[Count, ...]
    strides: tuple[Kernel, ...]
    kernel_sizes: tuple[Kernel, ...]
    convs_encoder: tuple[Count, ...]
    convs_decoder: tuple[Count, ...]
    integration_steps: Doublings
    passes: Count = 1
    affine_features: tuple[Count, ...] = ()
    norm: Literal["none", "instance"] = "none"
    answer_passes: Count | None = None
    both_ways: bool = False
    similarity: SimilarityNetwork | None = field(default=None, metadata=LEFT_OUT_IF_NONE)

    @property
    def out_channels(self) -> int:
        """Components of the displacement."""
        return self.dims


@dataclass(frozen=True, config=STRICT)
class Start:
    """Weights that training starts from, instead of fresh ones.

    Attributes:
        weights: file beside the plan, relative to its folder.
        sha256: its digest.
        parts: first parts of the names of the tensors that are taken (`encoder.`).
        trained: `all` of the network, its `last` stage and what follows, or only what is `fresh`.
        rate_decay: the learning rate of a stage is that of the next one times this; 1: the same everywhere.
        into: what is put before the names of the tensors (`similarity.`), where they become a part of the network; None: nothing.
    """

    weights: str
    sha256: str
    parts: tuple[str, ...]
    trained: Literal["all", "last", "fresh"] = "all"
    rate_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    into: str | None = field(default=None, metadata=LEFT_OUT_IF_NONE)
