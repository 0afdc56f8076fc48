"""The network of a joint configuration: that of the dense task with a second head, and the learned weights of both losses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autoseg.core.plan import Configuration
from autoseg.tasks.joint.head import head_of
from autoseg.tasks.joint.parts import ROLES, Parts, configuration_of

if TYPE_CHECKING:
    from torch import nn

# The submodule that weighs the losses: it is trained and stored with the network, and takes no part in prediction.
WEIGHTS = "uncertainty"


def build_network(parts: Parts, configuration: Configuration) -> nn.Module:
    """Network with fresh weights; see `nn.unet.UNet` with an image head for what it returns."""
    from autoseg.losses.uncertainty import UncertaintyWeights
    from autoseg.nn.image_head import add_image_head

    network = parts.dense.build_network(configuration_of(parts.dense, configuration))
    add_image_head(network, head_of(configuration))
    network.add_module(WEIGHTS, UncertaintyWeights(len(ROLES)))
    return network
