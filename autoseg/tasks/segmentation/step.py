"""One training step of segmentation: Dice and cross-entropy, at several resolutions where the plan says so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from autoseg.core.errors import choose
from autoseg.core.plan import Configuration
from autoseg.core.task import Phase

if TYPE_CHECKING:
    from torch import Tensor, nn


def phases(configuration: Configuration) -> tuple[Phase, ...]:
    """The single phase of segmentation."""
    from autoseg.losses.cross_entropy import cross_entropy_loss
    from autoseg.losses.deep_supervision import deeply_supervised
    from autoseg.losses.dice import soft_dice_loss

    loss = configuration.loss
    terms = {
        "dice": lambda logits, label: soft_dice_loss(logits, label, batch_dice=loss.batch_dice, smooth=loss.smooth),
        "cross_entropy": cross_entropy_loss,
    }
    weighted = [(name, weight, choose(terms, name, "loss term")) for name, weight in loss.terms.items()]

    def step(network: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        outputs = network(batch["image"])
        losses = {name: deeply_supervised(term, outputs, batch["label"]) for name, _, term in weighted}
        losses["total"] = sum(weight * losses[name] for name, weight, _ in weighted)  # type: ignore[assignment]
        return losses

    return (Phase("supervised", lambda network: network.parameters(), step),)
