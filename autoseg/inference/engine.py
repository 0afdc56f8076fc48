"""A network in use: what turns a batch of windows into logits."""

from __future__ import annotations

from torch import Tensor, nn

from autoseg.core.plan import Inference
from autoseg.inference.sliding_window import Forward
from autoseg.training.step import autocast


def forward_of(network: nn.Module, rules: Inference, device: str) -> Forward:
    """A forward (B, C, *spatial) -> float32 (B, K, *spatial) that runs `network` on `device` in the planned precision.

    Args:
        network: on `device`, in evaluation mode.
        device: `cpu` or `cuda[:n]`.
    """
    device_type = device.partition(":")[0]

    def forward(windows: Tensor) -> Tensor:
        with autocast(device_type, rules.precision):
            return network(windows).float()

    return forward
