"""Networks from their description in a plan."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from autoseg.core.errors import choose
from autoseg.core.plan import Network
from autoseg.nn.unet import UNet

KINDS: dict[str, Callable[[Network], nn.Module]] = {"plain_unet": UNet, "residual_unet": UNet}


def build_network(network: Network) -> nn.Module:
    """A network with fresh weights from torch's global generator; see its kind for what `forward` returns.

    Raises:
        IncompatibleError: the numbers do not describe a network.
    """
    return choose(KINDS, network.kind, "network kind")(network)
