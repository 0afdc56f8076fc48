"""The network of a segmentation configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autoseg.core.networks import Network
from autoseg.core.plan import Configuration

if TYPE_CHECKING:
    from torch import nn


def build_network(configuration: Configuration) -> nn.Module:
    """Network with fresh weights: (B, C, *spatial) to logits (B, K, *spatial), background first."""
    from autoseg.nn.build import build_network as build  # torch: two seconds that planning need not wait

    assert isinstance(configuration.network, Network)  # the planner makes U-Nets
    return build(configuration.network)
