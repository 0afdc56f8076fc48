"""Networks from their description in a plan."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from autoseg.core.errors import choose
from autoseg.core.networks import Classifier, Network, Registrar
from autoseg.nn.classifier import ENCODERS, ImageClassifier
from autoseg.nn.registrar import PairRegistrar
from autoseg.nn.unet import UNet

KINDS: dict[str, Callable[[Any], nn.Module]] = {
    "plain_unet": UNet, "residual_unet": UNet, **dict.fromkeys(ENCODERS, ImageClassifier), "voxelmorph": PairRegistrar}


def build_network(network: Network | Classifier | Registrar) -> nn.Module:
    """A network with fresh weights from torch's global generator; see its kind for what `forward` returns.

    Raises:
        IncompatibleError: the numbers do not describe a network.
        UsageError: it needs a library that is not installed.
    """
    return choose(KINDS, network.kind, "network kind")(network)
