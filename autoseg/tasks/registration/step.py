"""One training step of registration: how alike the images become, how smooth the way is, and labels where they are used."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from autoseg.core.errors import UsageError, choose
from autoseg.core.plan import Configuration
from autoseg.core.task import Phase
from autoseg.tasks.registration.frame import frame_spacing_mm
from autoseg.tasks.registration.learned import PART
from autoseg.tasks.registration.sample import learns_patches

if TYPE_CHECKING:
    from torch import Tensor, nn

    from autoseg.nn.registrar import Deformation


def phases(configuration: Configuration) -> tuple[Phase, ...]:
    """The single phase: of what is alike, or of the registrar: unsupervised, or towards deformations that are known.

    A learned similarity is not trained with the registrar: both could agree that everything is alike.
    """
    if learns_patches(configuration):
        return (Phase("similarity", lambda network: network.similarity.parameters(), _towards_scores),)  # type: ignore[union-attr]
    supervised = configuration.task_values["method"] == "supervised"
    step = _towards_known(configuration) if supervised else _towards_alike(configuration)
    return (Phase("registration", registrar_parameters, step),)


def registrar_parameters(network: nn.Module) -> list[nn.Parameter]:
    """All parameters but those of a learned similarity."""
    return [parameter for name, parameter in network.named_parameters() if not name.startswith(PART)]


def similarity_of(configuration: Configuration, networks: Sequence[nn.Module]) -> Callable[[Tensor, Tensor], Tensor]:
    """What the plan measures likeness by: (fixed, warped), (B, C, *spatial) each -> scalar, less is better.

    Args:
        networks: that hold what is learned of it, whatever they are wrapped in; their weights get no gradients from here. The
            mean over classifiers; encoders that all took the same weights are one.
    Raises:
        UsageError: the plan's similarity is learned, and there is no network.
    """
    from torch.nn.functional import mse_loss

    from autoseg.losses.local_correlation import local_correlation_loss
    from autoseg.losses.mind import mind_loss
    from autoseg.losses.mutual_information import mutual_information_loss

    values = configuration.task_values
    if values["similarity"] in ("patches", "features"):
        return _learned(str(values["similarity"]), networks)
    known: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "mse": mse_loss,
        "lncc": partial(local_correlation_loss, radius=float(values["window_voxels"]), window="gaussian"),  # type: ignore[arg-type]
        "mind": mind_loss,
        "mutual_information": mutual_information_loss}
    return choose(known, str(values["similarity"]), "similarity")


def _learned(name: str, networks: Sequence[nn.Module]) -> Callable[[Tensor, Tensor], Tensor]:
    import torch

    from autoseg.losses.learned import learned_loss
    from autoseg.nn.registrar import PairRegistrar

    parts = [module.similarity for network in networks for module in network.modules() if isinstance(module, PairRegistrar)]
    if not parts:
        raise UsageError(f"'similarity: {name}' is learned, and no trained network was given",
                         hint="train it, and predict with its bundle; or take another similarity")
    used = [part.eval().requires_grad_(False) for part in (parts[:1] if name == "features" else parts) if part is not None]
    return lambda fixed, warped: torch.stack([learned_loss(part, fixed, warped) for part in used]).mean()


def _towards_scores(network: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Cross-entropy of patches, and the share of them that were judged wrongly."""
    from autoseg.losses.learned import patch_classification_loss

    scores = network.similarity(batch["fixed"], batch["moving"])  # type: ignore[operator]
    wrong = (scores.detach().flatten() > 0) != batch["aligned"]
    return {"wrong": wrong.to(scores.dtype).mean(), "total": patch_classification_loss(scores, batch["aligned"])}


def velocity_spacing_mm(found: Deformation, configuration: Configuration) -> list[float]:
    """Spacing along each spatial axis of the grid on which a velocity lies, between the same outer voxels."""
    spacing = frame_spacing_mm(configuration)
    sizes = found.displacement.shape[2:], found.velocity.shape[2:]
    return [mm * (fine - 1) / max(coarse - 1, 1) if fine > 1 else mm for mm, fine, coarse in zip(spacing, *sizes, strict=True)]


def _towards_alike(configuration: Configuration) -> Callable[[nn.Module, Mapping[str, Tensor]], dict[str, Tensor]]:
    from autoseg.losses.smoothness import diffusion_energy
    from autoseg.nn.warp import warp

    weights = configuration.loss.terms

    def step(network: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        found = network(batch["fixed"], batch["moving"])
        similarity = similarity_of(configuration, [network])
        losses = {"similarity": similarity(batch["fixed"], warp(batch["moving"], found.displacement)),
                  "smoothness": diffusion_energy(found.velocity, velocity_spacing_mm(found, configuration))}
        if "dice" in weights:
            losses["dice"] = overlap_loss(batch["fixed_labels"], batch["moving_labels"], found.displacement)
        losses["total"] = sum(weight * losses[name] for name, weight in weights.items())  # type: ignore[assignment]
        return losses

    return step


def _towards_known(configuration: Configuration) -> Callable[[nn.Module, Mapping[str, Tensor]], dict[str, Tensor]]:
    from autoseg.losses.end_point import robust_displacement_error

    spacing = frame_spacing_mm(configuration)

    def step(network: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        found = network(batch["fixed"], batch["moving"])
        error = robust_displacement_error(found.displacement, batch["displacement"], spacing)
        return {"end_point": error, "total": configuration.loss.terms["end_point"] * error}

    return step


def overlap_loss(fixed: Tensor, moving: Tensor, displacement: Tensor) -> Tensor:
    """One minus the mean soft Dice of masks (B, K, *spatial) and the warped ones; a mask that both lack does not count."""
    from autoseg.nn.warp import warp

    axes = tuple(range(2, fixed.ndim))
    target, warped = fixed.to(displacement.dtype), warp(moving.to(displacement.dtype), displacement, padding="zeros")
    both, either = (target * warped).sum(axes), (target + warped).sum(axes)
    present = target.sum(axes) + moving.sum(axes) > 0
    dice = 2 * both / either.clamp_min(1e-5)
    return 1 - (dice * present).sum() / present.sum().clamp_min(1)
