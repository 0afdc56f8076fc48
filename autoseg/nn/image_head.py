"""A second head of a U-Net: one vector for the image, from the features of the deepest stage."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional

from autoseg.core import networks
from autoseg.core.errors import IncompatibleError, choose
from autoseg.nn.blocks import LEAKY_SLOPE, PointwiseConv, initialise
from autoseg.nn.classifier import Outputs
from autoseg.nn.pooling import LogSumExpPooling, MeanPooling
from autoseg.nn.unet import UNet


class ImageHead(nn.Module):
    """A hidden layer at every place, pooling, dropout and the last layer.

    The U-Net's instance norms leave every feature with mean 0 and variance 1 in every image, so that means of features over
    places say little; the hidden layer, as wide as the features, sees which of them go together at a place, and means of what
    it says do differ.
    """

    def __init__(self, head: networks.ImageHead, features: int, dims: int) -> None:
        super().__init__()
        if len(head.output_bias) not in (0, head.out_channels):
            raise IncompatibleError(f"the image head has {head.out_channels} outputs and {len(head.output_bias)} values in "
                                    "output_bias; give one for each, or none")
        poolings: dict[str, Callable[[], nn.Module]] = {
            "mean": lambda: MeanPooling(features), "log_sum_exp": lambda: LogSumExpPooling(features, head.sharpness)}
        self.hidden = PointwiseConv(features, features, dims)
        self.pooling = choose(poolings, head.pooling, "pooling")()
        self.dropout = nn.Dropout(head.dropout)
        self.outputs = Outputs(features, head.out_channels, shared=head.shared_output, bias=head.output_bias)
        initialise(self)

    def forward(self, features: Tensor) -> Tensor:
        """(B, F, *places) to (B, K)."""
        hidden = functional.leaky_relu(self.hidden(features), LEAKY_SLOPE)
        return self.outputs(self.dropout(self.pooling(hidden)))


def add_image_head(network: nn.Module, head: networks.ImageHead) -> None:
    """Gives a U-Net a second head with fresh weights, in place; `UNet.forward` says what it returns then.

    Raises:
        IncompatibleError: the network has no deepest stage to take features from.
    """
    if not isinstance(network, UNet):
        raise IncompatibleError(f"a head for the whole image needs a U-Net, and the network is a {type(network).__name__}")
    network.image_head = ImageHead(head, network.deepest_features, network.dims)

