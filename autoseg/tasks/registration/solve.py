"""The displacement of a pair in its frame: by networks, by optimisation, or by a network of coordinates that is fitted to it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autoseg.core.plan import Configuration
from autoseg.core.task import Context
from autoseg.inference.engine import usable_precision
from autoseg.inference.implicit import ImplicitRules, fit_implicit, implicit_displacement
from autoseg.inference.instance import InstanceRules, Level, optimise_pair
from autoseg.nn.registrar import Deformation, deformation
from autoseg.tasks.registration.frame import frame_spacing_mm
from autoseg.tasks.registration.step import similarity_of
from autoseg.training.step import autocast

# Seed of the coordinates that an implicit representation is fitted at: a pair always has the same answer.
SEED = 0


def frame_steps(networks: Sequence[nn.Module], fixed: NDArray[np.float32], moving: NDArray[np.float32],
                configuration: Configuration, context: Context) -> NDArray[np.float32]:
    """How far each voxel of the frame moves, (3, *frame) in voxels; 0 across the slices of a two-dimensional plan.

    Args:
        fixed, moving: (C, *frame).
    """
    first, second = (torch.from_numpy(np.ascontiguousarray(image, np.float32))[None].to(context.device)
                     for image in (fixed, moving))
    if configuration.network.dims == 2:
        first, second = first.squeeze(2), second.squeeze(2)
    found = _implicit(first, second, configuration) if configuration.task_values["method"] == "implicit" else \
        _deformed(networks, first, second, configuration, context)
    steps = found[0].cpu().numpy()
    if configuration.network.dims == 2:
        steps = np.concatenate([np.zeros_like(steps[:1]), steps])[:, None]
    return steps.astype(np.float32)


def _deformed(networks: Sequence[nn.Module], fixed: Tensor, moving: Tensor, configuration: Configuration,
              context: Context) -> Tensor:
    values = configuration.task_values
    spacing = frame_spacing_mm(configuration)
    if values["method"] == "pair":
        with torch.enable_grad():
            return optimise_pair(fixed, moving, spacing, pair_rules(configuration),
                                 similarity_of(configuration, networks)).displacement
    found = answered(networks, fixed, moving, configuration, context)
    if values["refine_iterations"]:
        with torch.enable_grad():
            found = optimise_pair(fixed, moving, spacing, refine_rules(configuration, found),
                                  similarity_of(configuration, networks), start=found)
    return found.displacement


def answered(networks: Sequence[nn.Module], fixed: Tensor, moving: Tensor, configuration: Configuration,
             context: Context) -> Deformation:
    """What the networks say: the mean of their velocities and affine parts, followed to its end."""
    rules = configuration.inference
    with torch.no_grad(), autocast(context.device.partition(":")[0], usable_precision(rules.precision, context.device)):
        found = [network(fixed, moving) for network in networks]
    velocity, affine = (torch.stack([getattr(one, part).float() for one in found]).mean(dim=0) for part in ("velocity", "affine"))
    with torch.no_grad():
        return deformation(velocity, affine, int(configuration.network.integration_steps), tuple(fixed.shape[2:]))  # type: ignore[union-attr]


def pair_rules(configuration: Configuration) -> InstanceRules:
    """How a pair is registered without a network."""
    values = configuration.task_values
    affine = values["pair_affine"]
    return InstanceRules(
        tuple(Level(*level) for level in values["pair_levels"]), float(values["pair_rate_voxels"]),  # type: ignore[union-attr, arg-type, misc]
        configuration.loss.terms["smoothness"], "diffusion", configuration.network.integration_steps,  # type: ignore[union-attr]
        Level(*affine) if affine else None, float(values["affine_rate_voxels"]))  # type: ignore[misc, arg-type]


def refine_rules(configuration: Configuration, found: Deformation) -> InstanceRules:
    """How what a network answered is refined: on its own grid of velocities, finer across thick slices; the affine part stays."""
    values = configuration.task_values
    shrink = max(1, round(max(found.displacement.shape[2:]) / max(found.velocity.shape[2:])))
    return InstanceRules((Level(1, shrink, int(values["refine_iterations"])),), float(values["refine_rate_voxels"]),  # type: ignore[arg-type]
                         configuration.loss.terms["smoothness"], "diffusion",
                         configuration.network.integration_steps)  # type: ignore[union-attr]


def _implicit(fixed: Tensor, moving: Tensor, configuration: Configuration) -> Tensor:
    """A network of coordinates, fitted inside what is not the lowest value of the fixed image."""
    rules = implicit_rules(configuration)
    mask = (fixed[0] > fixed.min()).any(dim=0)
    generator = torch.Generator().manual_seed(SEED)
    with torch.enable_grad():
        network = fit_implicit(fixed, moving, mask, frame_spacing_mm(configuration), rules, generator)
    return implicit_displacement(network, tuple(fixed.shape[2:]))


def implicit_rules(configuration: Configuration) -> ImplicitRules:
    """How a network of coordinates is fitted."""
    values = configuration.task_values
    return ImplicitRules(tuple(values["implicit_widths"]), float(values["implicit_frequency"]),  # type: ignore[arg-type]
                         int(values["implicit_iterations"]), float(values["implicit_rate"]),  # type: ignore[arg-type]
                         int(values["implicit_points"]), str(values["implicit_regularizer"]),  # type: ignore[arg-type]
                         configuration.loss.terms["smoothness"], int(values["implicit_blur"]))  # type: ignore[arg-type]
