"""A network from a whole image to a vector: an encoder, a pooling and one linear layer, described by a plan's `Classifier`."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from autoseg.core.errors import IncompatibleError, choose
from autoseg.core.networks import Classifier
from autoseg.core.plan_rules import require_sound_network
from autoseg.nn.attention import attention_of
from autoseg.nn.blocks import Stages, initialise, norm_of
from autoseg.nn.densenet import densenet_stages
from autoseg.nn.encoder import unet_stages
from autoseg.nn.inception import inception_stages
from autoseg.nn.pooling import AttentionPooling, LogSumExpPooling, MeanPooling, RecurrentPooling
from autoseg.nn.resnet import resnet_stages
from autoseg.nn.vit import vit_stages

ENCODERS: dict[str, Callable[[Classifier], Stages]] = {
    "densenet": densenet_stages, "resnet": resnet_stages, "inception": inception_stages, "vit": vit_stages,
    "plain_encoder": unet_stages, "residual_encoder": unet_stages}
# Kinds whose convolutions and pools must leave no rest.
_WITHOUT_REST = ("vit", "residual_encoder")
# Poolings after which logits are means over places of what a place says.
_OF_PLACES = (MeanPooling, LogSumExpPooling, AttentionPooling)


class Outputs(nn.Module):
    """The last layer: logits of pooled features, or of the features of every place."""

    def __init__(self, features: int, out_channels: int, *, shared: bool, bias: tuple[float, ...]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1 if shared else out_channels, features))
        self.bias = nn.Parameter(torch.tensor(bias) if bias else torch.zeros(out_channels))
        bound = features**-0.5  # as torch's linear layers
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, pooled: Tensor) -> Tensor:
        """(B, F) to (B, K)."""
        return functional.linear(pooled, self.weight.expand(len(self.bias), -1), self.bias)

    def maps(self, features: Tensor) -> Tensor:
        """(B, F, *places) to (B, K, *places), without the biases."""
        weight = self.weight.expand(len(self.bias), -1)
        return functional.linear(features.movedim(1, -1), weight).movedim(-1, 1)


class ImageClassifier(nn.Module):
    """Encoder stages, attention after each where it is planned, pooling, dropout, and the last layer.

    `forward` maps (B, C, *spatial) to logits (B, K), in training and in evaluation; with `slices` spatial is (Z, Y, X) of
    which the encoder sees the slices. Tokens and means over boxes leave no rest: those kinds need sizes that are multiples of
    the product of the strides (along the axes of a slice).
    """

    def __init__(self, network: Classifier) -> None:
        super().__init__()
        try:
            require_sound_network(network)
        except ValueError as error:
            raise IncompatibleError(f"the plan's network cannot be built: {error}") from error
        stages = choose(ENCODERS, network.kind, "network kind")(network)
        norm, width = norm_of(network.norm, network.dims), stages[-1][1]
        self.slices = network.slices
        steps = tuple(torch.Size(column).numel() for column in zip(*network.strides, strict=True))
        self.steps = steps if network.kind in _WITHOUT_REST else (1,) * network.dims
        self.encoder = nn.ModuleList(stage for stage, _ in stages)
        self.attentions = nn.ModuleList(
            attention_of(network.attention, channels, network.dims, norm) for _, channels in stages)
        self.pooling = _pooling_of(network, width)
        self.dropout = nn.Dropout(network.dropout)
        self.head = Outputs(cast(int, self.pooling.out_features), network.out_channels, shared=network.shared_output,
                            bias=network.output_bias)
        initialise(self)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.dropout(self.pooling(self.features(image))))

    def features(self, image: Tensor) -> Tensor:
        """Features (B, F, *places) of the last stage; with `slices` places are (Z, y, x)."""
        self._check_size(image)
        features = image.transpose(1, 2).reshape(-1, image.shape[1], *image.shape[3:]) if self.slices else image
        for stage, attention in zip(self.encoder, self.attentions, strict=True):
            features = attention(stage(features))
        if not self.slices:
            return features
        return features.reshape(image.shape[0], image.shape[2], *features.shape[1:]).transpose(1, 2)

    def maps(self, image: Tensor) -> Tensor:
        """Class activation maps (B, K, *places), in logits: what the last layer says of the features of each place.

        With `mean` pooling their mean over places plus the biases is the logit. With `attention` each is weighed by the
        attention times the number of places, which makes the same sum. With `log_sum_exp` they are the heat maps of Wang
        et al. 2017, section 3.2.

        Raises:
            IncompatibleError: with recurrent pooling, where no place has a share of its own.
        """
        return self._maps_of(self.features(image))

    def answer_with_maps(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """What `forward` and `maps` return, from one pass; for evaluation, as it leaves nothing out at random."""
        features = self.features(image)
        return self.head(self.pooling(features)), self._maps_of(features)

    @property
    def has_maps(self) -> bool:
        """Whether `maps` can be had: every place has a share of its own in the logits."""
        return isinstance(self.pooling, _OF_PLACES)

    def _maps_of(self, features: Tensor) -> Tensor:
        if not self.has_maps:
            raise IncompatibleError("a network with recurrent pooling has no class activation maps, as what a place says depends "
                                    "on the slices before it", hint="use Grad-CAM, or plan another pooling")
        maps = self.head.maps(features)
        if not isinstance(self.pooling, AttentionPooling):
            return maps
        weights = self.pooling.weights(features)
        shape = features.shape[2:3] if self.pooling.over_slices else features.shape[2:]
        weights = weights.reshape(len(features), 1, *shape, *(1,) * (features.ndim - 2 - len(shape)))
        return maps * weights * weights.shape[2:].numel()

    def _check_size(self, image: Tensor) -> None:
        sizes = tuple(image.shape[2:])
        seen = sizes[1:] if self.slices else sizes
        if len(seen) != len(self.steps) or any(size % step for size, step in zip(seen, self.steps, strict=True)):
            raise IncompatibleError(
                f"the network got an image of {sizes} voxels; its last {len(self.steps)} axes must be multiples of {self.steps}, "
                "the product of its strides. Change patch_size or strides in the plan")


def _pooling_of(network: Classifier, features: int) -> nn.Module:
    poolings: dict[str, Callable[[], nn.Module]] = {
        "mean": lambda: MeanPooling(features), "log_sum_exp": lambda: LogSumExpPooling(features, network.sharpness),
        "attention": lambda: AttentionPooling(features, over_slices=network.slices),
        "recurrent": lambda: RecurrentPooling(features, network.recurrence)}
    return choose(poolings, network.pooling, "pooling")()
