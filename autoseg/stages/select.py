"""Chooses configuration and post-processing on out-of-fold predictions, and writes the bundle."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from autoseg.core.bundle import Bundle, Decisions, Member
from autoseg.core.case import Unit
from autoseg.core.errors import UsageError
from autoseg.core.fingerprint import Fingerprint
from autoseg.core.plan import Plan
from autoseg.core.progress import Progress
from autoseg.core.provenance import Origin
from autoseg.core.report import Report
from autoseg.core.spec import DatasetSpec
from autoseg.core.task import Arrays, Context, Task
from autoseg.io.atomic import sha256_file
from autoseg.io.bundles import write_bundle
from autoseg.planning.splits import shared_cases
from autoseg.stages.baseline import BaselineRun, fit, generator
from autoseg.stages.card import CardFacts, model_card
from autoseg.stages.passes import decide_passes
from autoseg.stages.provenance import bundle_manifest
from autoseg.stages.refine import decide_refinements
from autoseg.stages.trained import Trained, mean_in, summary_of, weights_of

log = logging.getLogger(__name__)


def run_select(task: Task, spec: DatasetSpec, plan: Plan, fingerprint: Fingerprint, units: Mapping[str, Unit],
               runs: Sequence[Trained], folder: Path, *, fold_count: int, baseline: Report | None,
               context: Context, progress: Progress, baselines: Mapping[str, BaselineRun] | None = None,
               origin: Origin | None = None) -> Bundle:
    """The bundle of the best configuration with all its finished folds; `folder` receives all that prediction needs.

    Args:
        baseline: scores of the cheap model, for the model card.
        context: device and engine that ways to predict are compared with.
        baselines: finished cheap models by fold, for steps that use them.
        origin: the command and the versions, for the bundle's manifest.
    Raises:
        UsageError: nothing has been trained yet.
    """
    if not runs:
        raise UsageError(f"plan {plan.name!r} of {spec.name!r} has no finished training run",
                         hint=f"autoseg train -d {spec.name}")
    baselines = baselines or {}
    best = best_configuration(task, runs)
    validated = [run for run in runs if run.configuration == best]
    chosen = members_of(validated, fold_count)
    arrays = {name: run.arrays() for name, run in baselines.items()} if _use_baselines(task, spec) else {}
    decisions = decide_refinements(task, spec, units, validated, progress, baselines=arrays)
    decisions = decide_passes(task, validated, decisions, context, progress)
    members = tuple(Member(best, run.fold, f"members/{best}_fold_{run.fold}.safetensors",
                           sha256_file(weights_of(run))) for run in chosen)
    manifest = bundle_manifest(plan, fingerprint, chosen, origin or Origin())
    facts = CardFacts(task, spec, plan, fingerprint, units, validated, chosen, decisions, baseline, manifest)
    bundle = Bundle(replace(spec, exclude=()), plan, members, decisions, fingerprint, model_card(facts),  # case ids stay at home
                    cases=shared_cases(tuple(units.values())))
    weights = {member.weights: weights_of(run) for member, run in zip(members, chosen, strict=True)}
    cheap = bundle_baseline(task, spec, decisions, chosen, baselines, progress)
    write_bundle(folder, bundle, weights, manifest, baseline=cheap)
    if facts.behind and cheap is None:  # else the bundle takes the better one in
        log.warning("%s Do not rely on the network before it was trained on more cases like these, or for longer.", facts.behind)
    return bundle


def bundle_baseline(task: Task, spec: DatasetSpec, decisions: Decisions, members: Sequence[Trained],
                    baselines: Mapping[str, BaselineRun], progress: Progress) -> Arrays | None:
    """The cheap model of a bundle, fitted once on all units that any of its members was trained on.

    Only the task knows how arrays of several folds could be averaged. One fold's model is its own baseline. None where the
    bundle keeps no step that asks for it.
    """
    kept = [refinement for refinement in task.refinements(spec) if refinement.name in decisions.refinements]
    if not any(refinement.uses_baseline for refinement in kept):
        return None
    names = sorted({name for member in members if member.run is not None for name in member.run.fold.train})
    run = next(iter(baselines.values()))
    if len(members) == 1 and members[0].fold in baselines:
        return baselines[members[0].fold].arrays()
    return fit(run, names, generator(run.seed, names), lambda done, name: progress("baseline", done, len(names), name))


def _use_baselines(task: Task, spec: DatasetSpec) -> bool:
    return any(refinement.uses_baseline for refinement in task.refinements(spec))


def members_of(runs: Sequence[Trained], fold_count: int) -> list[Trained]:
    """The runs of one configuration that predict together: all folds, or else the model on all data, or else what is there.

    The average of all folds is the better predictor; the model on all data the better one than some folds, which have
    each seen a part.
    """
    folds = [run for run in runs if run.fold != "all"]
    whole = [run for run in runs if run.fold == "all"]
    return whole if whole and len(folds) < fold_count else folds


def best_configuration(task: Task, runs: Sequence[Trained]) -> str:
    """The configuration with the best headline of its summary; ties go to the first.

    Compared on the folds that all of them have, or on what each has where there is no common fold.
    """
    names = sorted({run.configuration for run in runs})
    common = set.intersection(*({run.fold for run in runs if run.configuration == name} for name in names)) - {"all"}

    def headline(name: str) -> float:
        records = [record for run in runs if run.configuration == name and (run.fold in common or not common)
                   for record in run.report.records]
        value = mean_in(summary_of(task, records), task.headline)
        return -np.inf if np.isnan(value) else value

    return max(names, key=headline)
