"""The manifest of every output folder: what it was made from, and digests of what lies in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from autoseg.core.fingerprint import Fingerprint
from autoseg.core.plan import Plan
from autoseg.core.provenance import Manifest, Origin
from autoseg.io.atomic import hash_values, sha256_file
from autoseg.io.images import files_by_case
from autoseg.io.manifests import MANIFEST, digests_of, write_manifest

if TYPE_CHECKING:  # planning writes a manifest, too, and must not wait for torch
    from autoseg.stages.predict import PredictionManifest, Predictor
    from autoseg.stages.train import Run
    from autoseg.stages.trained import Trained


def record_plan(folder: Path, plan: Plan, fingerprint: Path, origin: Origin) -> None:
    """Of a plan's folder; `fingerprint` is the file that it was made from."""
    write_manifest(folder, Manifest("plan", origin, hash_values(plan), seed=plan.seed,
                                    inputs={fingerprint.name: sha256_file(fingerprint)},
                                    outputs=digests_of(folder, ("plan.json", "budget.json"))))


def record_run(run: Run, origin: Origin) -> None:
    """Of a training run: the digest of every case's files, and of weights and scores."""
    settings = {"configuration": run.configuration.name, "fold": run.fold_name, "run": run.inputs_hash()}
    inputs = {unit: run.sources[unit] for unit in (*run.fold.train, *run.fold.validation)}
    outputs = digests_of(run.folder, ("training/model.safetensors", "summary.json"))
    write_manifest(run.folder, Manifest("train", origin, hash_values(run.plan), seed=run.plan.seed, settings=settings,
                                        inputs=inputs, outputs=outputs))


def bundle_manifest(plan: Plan, fingerprint: Fingerprint, members: Sequence[Trained], origin: Origin) -> Manifest:
    """Of a bundle; the cases appear as one digest for each run, so that no case id leaves with it."""
    runs = {f"run {run.configuration} fold {run.fold}": run.run.inputs_hash() for run in members if run.run is not None}
    return Manifest("bundle", origin, hash_values(plan), seed=plan.seed, inputs={"fingerprint": hash_values(fingerprint), **runs})


def record_report(page: Path, plan: Plan, runs: Sequence[Trained], origin: Origin) -> None:
    """Of a report page: the scores of every run that it shows."""
    inputs = {run.folder.relative_to(page.parent).as_posix(): sha256_file(run.folder / "summary.json") for run in runs}
    write_manifest(page.parent, Manifest("report", origin, hash_values(plan), seed=plan.seed, inputs=inputs,
                                         outputs=digests_of(page.parent, (page.name,))))


def record_predictions(folder: Path, predictor: Predictor, made: PredictionManifest, origin: Origin) -> None:
    """Of a folder of predictions: bundle, plan, rules of prediction, digests of what went in and came out."""
    from autoseg.inference.engine import usable_precision
    from autoseg.stages.predict import TABLE

    context, rules, bundle = predictor.context, predictor.configuration.inference, predictor.bundle
    settings = {"device": context.device, "engine": context.engine,
                "precision": usable_precision(rules.precision, context.device),
                "tile_step": f"{rules.tile_step:g}", "mirror": str(rules.mirror), "probabilities": str(context.probabilities),
                "signature": bundle.signed}
    inputs = {f"{case}/{name}": digest for case, found in made.finished.items() for name, digest in found.inputs.items()}
    outputs = {name: digest for found in made.finished.values() for name, digest in found.outputs.items()}
    if (folder / TABLE).is_file():
        outputs[TABLE] = sha256_file(folder / TABLE)
    write_manifest(folder, Manifest("predict", origin, hash_values(bundle.plan), bundle.digest, bundle.plan.seed, settings,
                                    inputs, outputs))


def record_evaluation(folder: Path, predictions: Path, references: Path, origin: Origin) -> None:
    """Of a folder with scores: every file that was compared, and the manifest that says how the predictions were made.

    Where results are no images, these are all files that lie there; references may be one file.
    """
    inputs = {f"predictions/{path.name}": sha256_file(path) for path in _compared_files(predictions)}
    inputs |= {f"references/{path.name}": sha256_file(path) for path in _compared_files(references)}
    if (predictions / MANIFEST).is_file():
        inputs[f"predictions/{MANIFEST}"] = sha256_file(predictions / MANIFEST)
    write_manifest(folder, Manifest("evaluate", origin, inputs=inputs, outputs=digests_of(folder, ("scores.json",))))


def _compared_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return [*files_by_case(path).values()] or sorted(
        found for found in path.iterdir() if found.is_file() and not found.name.startswith("."))
