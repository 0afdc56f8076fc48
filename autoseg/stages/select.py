"""Chooses configuration and post-processing on out-of-fold predictions, and writes the bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from autoseg.core.bundle import Bundle, Decisions, Member
from autoseg.core.case import Unit
from autoseg.core.errors import UsageError
from autoseg.core.fingerprint import Fingerprint
from autoseg.core.plan import Plan
from autoseg.core.progress import Progress
from autoseg.core.provenance import Origin
from autoseg.core.report import Record, Report
from autoseg.core.spec import DatasetSpec
from autoseg.core.task import Context, Refinement, Task
from autoseg.io.atomic import sha256_file
from autoseg.io.bundles import write_bundle
from autoseg.io.images import written_ending
from autoseg.stages.card import CardFacts, model_card
from autoseg.stages.passes import decide_passes
from autoseg.stages.prepare import read_inputs
from autoseg.stages.provenance import bundle_manifest
from autoseg.stages.trained import Trained, mean_score, parts_of, weights_of


def run_select(task: Task, spec: DatasetSpec, plan: Plan, fingerprint: Fingerprint, units: Mapping[str, Unit],
               runs: Sequence[Trained], folder: Path, *, fold_count: int, baseline: Report | None,
               context: Context, progress: Progress, origin: Origin | None = None) -> Bundle:
    """The bundle of the best configuration with all its finished folds; `folder` receives all that prediction needs.

    Args:
        context: device and engine that ways to predict are compared with.
        origin: the command and the versions, for the bundle's manifest.
    Raises:
        UsageError: nothing has been trained yet.
    """
    if not runs:
        raise UsageError(f"plan {plan.name!r} of {spec.name!r} has no finished training run",
                         hint=f"autoseg train -d {spec.name}")
    best = best_configuration(task, runs)
    validated = [run for run in runs if run.configuration == best]
    chosen = members_of(validated, fold_count)
    decisions = decide_refinements(task, spec, units, validated, progress)
    decisions = decide_passes(task, validated, decisions, context, progress)
    members = tuple(Member(best, run.fold, f"members/{best}_fold_{run.fold}.safetensors",
                           sha256_file(weights_of(run))) for run in chosen)
    manifest = bundle_manifest(plan, fingerprint, chosen, origin or Origin())
    card = model_card(CardFacts(task, spec, plan, fingerprint, units, validated, chosen, decisions, baseline, manifest))
    bundle = Bundle(replace(spec, exclude=()), plan, members, decisions, fingerprint, card)  # case ids stay at home
    weights = {member.weights: weights_of(run) for member, run in zip(members, chosen, strict=True)}
    write_bundle(folder, bundle, weights, manifest)
    return bundle


def members_of(runs: Sequence[Trained], fold_count: int) -> list[Trained]:
    """The runs of one configuration that predict together: all folds, or else the model on all data, or else what is there.

    The average of all folds is the better predictor; the model on all data the better one than some folds, which have
    each seen a part.
    """
    folds = [run for run in runs if run.fold != "all"]
    whole = [run for run in runs if run.fold == "all"]
    return whole if whole and len(folds) < fold_count else folds


def best_configuration(task: Task, runs: Sequence[Trained]) -> str:
    """The configuration with the best headline score; ties go to the first.

    Compared on the folds that all of them have, or on what each has where there is no common fold.
    """
    names = sorted({run.configuration for run in runs})
    common = set.intersection(*({run.fold for run in runs if run.configuration == name} for name in names)) - {"all"}

    def headline(name: str) -> float:
        records = [record for run in runs if run.configuration == name and (run.fold in common or not common)
                   for record in run.report.records]
        value = mean_score(records, task.headline)
        return -np.inf if np.isnan(value) else value

    return max(names, key=headline)


def decide_refinements(task: Task, spec: DatasetSpec, units: Mapping[str, Unit], runs: Sequence[Trained],
                       progress: Progress) -> Decisions:
    """Keeps a candidate when the headline score rises on out-of-fold predictions and none of its parts falls.

    Candidates are tried in the task's order, each on top of those kept before. Source: nnU-Net v2.8.1,
    remove_connected_components.py.
    """
    samples = [(run, record) for run in runs for record in run.report.records]
    if not samples:
        return Decisions(because=("no validation cases: no post-processing was tried",))
    kept: list[Refinement] = []
    because = []
    best = [record for _, record in samples]
    candidates = task.refinements(spec)
    for place, candidate in enumerate(candidates):
        tried = [_refined_record(task, spec, units, run, record.unit, [*kept, candidate]) for run, record in samples]
        before, after = mean_score(best, task.headline), mean_score(tried, task.headline)
        helps = after > before and not _some_part_falls(task.headline, best, tried)
        because.append(f"{candidate.name}: {task.headline} {before:.4f} -> {after:.4f} on {len(samples)} cases, "
                       f"{'kept' if helps else 'not kept'}")
        if helps:
            kept, best = [*kept, candidate], tried
        progress("select", place + 1, len(candidates), candidate.name)
    return Decisions(tuple(candidate.name for candidate in kept), tuple(because))


def _some_part_falls(headline: str, before: Sequence[Record], after: Sequence[Record]) -> bool:
    return any(mean_score(after, name) < mean_score(before, name) for name in parts_of(headline, before[0]))


def _refined_record(task: Task, spec: DatasetSpec, units: Mapping[str, Unit], run: Trained, unit_id: str,
                    refinements: Sequence[Refinement]) -> Record:
    unit = units[unit_id]
    prediction = read_validation(task, spec, run, unit)
    for refinement in refinements:
        prediction = refinement.apply(prediction, spec)
    image = next(iter(read_inputs(unit, spec).values()))
    return Record(unit_id, task.score(prediction, task.read_target(unit, spec), spec, image), unit.group)


def read_validation(task: Task, spec: DatasetSpec, run: Trained, unit: Unit) -> Any:
    """The prediction that a run made for one of its validation units."""
    ending = written_ending(next(iter(unit.cases[0].inputs.values()))[0])
    return task.read_prediction(run.folder / "validation" / unit.id / f"{unit.id}{ending}", spec)
