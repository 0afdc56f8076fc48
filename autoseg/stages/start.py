"""Weights of a bundle that a plan may start from: what a planner sees of them, and their copy beside the plan."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from autoseg.core.task import Starting
from autoseg.io.atomic import replacing, sha256_file
from autoseg.io.bundles import read_bundle
from autoseg.io.policy import Policy


def starting_from(bundle_folder: Path, policies: Sequence[Policy]) -> tuple[Starting, Path]:
    """The first member of a bundle as weights to start from, and where its file lies.

    One member, because weights of networks that were trained apart cannot be averaged.

    Raises:
        UsageError, UnsafeError, IncompatibleError: as `io.bundles.read_bundle`.
    """
    bundle = read_bundle(bundle_folder, policies)
    member = bundle.members[0]
    configuration = bundle.plan.configuration(member.configuration)
    source = f"{bundle.spec.name} ({bundle.spec.task}), plan {bundle.plan.name}, {member.configuration} fold {member.fold}"
    return Starting(f"start_{member.sha256[:16]}.safetensors", member.sha256, configuration.network, source, bundle.plan.inputs,
                    configuration.spacing_mm), bundle_folder / member.weights


def place_weights(starting: Starting, weights: Path, plan_folder: Path) -> None:
    """Copies the weights beside a plan, unless they lie there."""
    target = plan_folder / starting.weights
    if not target.is_file() or sha256_file(target) != starting.sha256:
        with replacing(target) as part:
            shutil.copyfile(weights, part)
