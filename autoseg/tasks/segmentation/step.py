"""One training step of segmentation: Dice and cross-entropy, at several resolutions where the plan says so."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from autoseg.core.errors import choose
from autoseg.core.plan import Configuration
from autoseg.core.task import Phase

if TYPE_CHECKING:
    from torch import Tensor, nn


def phases(configuration: Configuration) -> tuple[Phase, ...]:
    """The single phase of segmentation."""
    from autoseg.losses.deep_supervision import deeply_supervised

    terms = loss_terms(configuration)
    weighted = [(name, weight, choose(terms, name, "loss term")) for name, weight in configuration.loss.terms.items()]

    def step(network: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        outputs = network(batch["image"])
        losses = {name: deeply_supervised(term, outputs, batch["label"]) for name, _, term in weighted}
        losses["total"] = sum(weight * losses[name] for name, weight, _ in weighted)  # type: ignore[assignment]
        return losses

    return (Phase("supervised", lambda network: network.parameters(), step),)


def loss_terms(configuration: Configuration) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """The terms that outputs of this kind can have: (logits (B, K, *spatial), label indices (B, *spatial)) -> scalar."""
    from autoseg.losses.cross_entropy import cross_entropy_loss, region_cross_entropy_loss
    from autoseg.losses.dice import region_dice_loss, soft_dice_loss

    loss, values = configuration.loss, configuration.task_values
    ignore = values.get("ignore")
    dice = {"batch_dice": loss.batch_dice, "smooth": loss.smooth, "ignore": ignore}
    regions = values.get("regions")
    if regions is None:
        return {"dice": partial(soft_dice_loss, **dice),  # type: ignore[arg-type]
                "cross_entropy": partial(cross_entropy_loss, ignore=ignore)}  # type: ignore[arg-type]
    return {"dice": partial(region_dice_loss, regions=regions, **dice),  # type: ignore[arg-type]
            "binary_cross_entropy": partial(region_cross_entropy_loss, regions=regions,  # type: ignore[arg-type]
                                            ignore=ignore)}  # type: ignore[arg-type]
