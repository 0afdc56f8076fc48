"""The network of a registration configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autoseg.core.plan import Configuration

if TYPE_CHECKING:
    from torch import nn


def build_network(configuration: Configuration) -> nn.Module:
    """Network with fresh weights: two images (B, C, *frame) to a `nn.registrar.Deformation`."""
    from autoseg.nn.build import build_network as build  # torch: two seconds that planning need not wait

    return build(configuration.network)
