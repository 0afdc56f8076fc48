"""AUC of a classification over five folds after a given time of training, beside the baseline on the same folds.

    python -m benchmarks.classification --dataset PneumoniaMNIST --data FOLDER --minutes 4

Runs `autoseg plan_and_preprocess` and `autoseg train` for every fold and reads what they wrote; both go on where they were
interrupted. `average` is the mean of the probabilities of network and baseline, what `select` tries as well. Differences are
paired over all out-of-fold units, with a bootstrap over patients; folds are different networks, so that scores of several
folds are compared within a fold only: the difference is the mean over folds. Finished rows are in `<work>/classification.json`.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from autoseg.core.layout import Layout
from autoseg.core.report import Record, Report
from autoseg.io.atomic import hash_values
from autoseg.io.values import read_json, read_value
from autoseg.metrics.roc import resampled_aucs
from autoseg.tasks.classification.summary import summarise, tables_of
from benchmarks.ledger import REPOSITORY, Ledger, markdown, source_digest
from benchmarks.measure import begin, describe_machine, run_autoseg

MODELS = ("network", "baseline", "average")
# Resamples of patients for the interval of a difference; Efron & Tibshirani 1993, section 19.3, ask for at least 1000.
DRAWS = 2000
# A finding of fewer patients is not scored: its AUC would say nothing.
FEWEST_PATIENTS = 10


@dataclass(frozen=True)
class Fold:
    """Records of one fold, the same units in the same order for every model."""

    records: dict[str, list[Record]]


def main() -> None:
    begin()
    options = parse_options()
    ledger = Ledger(options.work / "classification.json")
    key = f"{options.dataset}, {options.minutes:g} minutes, {options.configuration}"
    inputs = hash_values(key, source_digest(), str(options.root))
    if not options.table and not ledger.has(key, inputs):
        ledger.add(key, inputs, measure(options) | {"machine": describe_machine()})
    print(render(ledger))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, help="name of its specification")
    parser.add_argument("--data", type=Path, required=True, help="folder of the dataset as downloaded")
    parser.add_argument("--minutes", type=float, default=4.0, help="time for training steps of a fold")
    parser.add_argument("--configuration", default="resnet")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "benchmarks/.work", help="folder for results and logs")
    parser.add_argument("--root", type=Path, help="autoseg's root; default: classification in the work folder")
    parser.add_argument("--table", action="store_true", help="show what is there, run nothing")
    options = parser.parse_args()
    options.root = (options.root or options.work.resolve() / "classification").resolve()
    return options


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Scores of all folds, trained first where they are not.

    Raises:
        SystemExit: a command failed; what it said has been shown.
    """
    common = ["-d", options.dataset, "--root", str(options.root)]
    run_autoseg(["plan_and_preprocess", *common, "-i", str(options.data.resolve()), "-c", options.configuration,
         "--minutes", f"{options.minutes:g}"])
    plan = f"{options.minutes:g}min"
    run_autoseg(["train", *common, "--plan", plan, "-c", options.configuration, "-f", "missing"])
    layout = Layout(options.root, options.dataset)
    runs = layout.run(plan, options.configuration, "0").parent
    names = sorted(path.name.removeprefix("fold_") for path in runs.glob("fold_[0-9]*"))
    folds = [read_fold(layout, plan, options.configuration, name) for name in names]
    planned = read_json(layout.plan(plan) / "plan.json")["configurations"][options.configuration]
    return compared(folds) | {"iterations": planned["optimization"]["iterations"], "size": planned["patch_size"]}


def read_fold(layout: Layout, plan: str, configuration: str, name: str) -> Fold:
    """The validation records of a fold by network and baseline, and by the mean of both."""
    network = read_value(layout.run(plan, configuration, name) / "summary.json", Report).records
    cheap = {record.unit: record for record in read_value(layout.baseline(name) / "summary.json", Report).records}
    baseline = [cheap[record.unit] for record in network]
    average = [mean_record(*pair) for pair in zip(network, baseline, strict=True)]
    return Fold(dict(zip(MODELS, (list(network), baseline, average), strict=True)))


def mean_record(one: Record, other: Record) -> Record:
    """A unit as the mean of two models scores it; probabilities and values only, from which AUCs are computed."""
    scores = {name: (value + other.scores[name]) / 2 if name.endswith((".probability", ".value", ".grade")) else value
              for name, value in one.scores.items()}
    return replace(one, scores=scores)


def compared(folds: Sequence[Fold]) -> dict[str, Any]:
    """AUC per fold and model, ECE, and differences to the baseline with their intervals."""
    columns = scored_columns(folds)
    aucs = {model: [mean_auc(fold.records[model], columns) for fold in folds] for model in MODELS}
    calibration = {model: [summarise(fold.records[model], np.random.default_rng(0))["mean.ece"].mean for fold in folds]
                   for model in MODELS[:2]}
    differences = {model: difference(folds, model, columns) for model in MODELS if model != "baseline"}
    units = sum(len(fold.records["network"]) for fold in folds)
    patients = len({record.patient for fold in folds for record in fold.records["network"]})
    return {"auc": aucs, "ece": calibration, "difference": differences, "columns": list(columns), "units": units,
            "patients": patients}


def scored_columns(folds: Sequence[Fold]) -> tuple[str, ...]:
    """The questions (`target.class`) with enough patients of either answer, over all folds; of classes that exclude each other
    all of them."""
    records = [record for fold in folds for record in next(iter(fold.records.values()))]
    patients = np.array([record.patient for record in records])
    found = []
    for table in tables_of(records):
        for column in table.columns:
            counts = [len(set(patients[column.true == answer])) for answer in (0, 1)]
            if min(counts) >= FEWEST_PATIENTS or len(table.columns) == 1 or table.classes:
                found.append(f"{table.name}.{column.name}")
    return tuple(found)


def answers(records: Sequence[Record], wanted: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Probabilities and truths of the wanted questions."""
    return [(column.said, column.true) for table in tables_of(records) for column in table.columns
            if f"{table.name}.{column.name}" in wanted]


def mean_auc(records: Sequence[Record], wanted: Sequence[str]) -> float:
    """Mean AUC over the questions that the records have both answers to."""
    once = np.ones((1, len(records)), dtype=np.int64)
    return float(np.nanmean(np.concatenate(resampled(records, wanted, once))))


def resampled(records: Sequence[Record], wanted: Sequence[str], counts: np.ndarray) -> list[np.ndarray]:
    """AUC of every question in every resample (questions of draws,); nan where one answer is missing."""
    areas = []
    for said, true in answers(records, wanted):
        known = ~np.isnan(true)
        areas.append(resampled_aucs(said[known], true[known], counts[:, known]))
    return areas


def difference(folds: Sequence[Fold], model: str, wanted: Sequence[str]) -> list[float]:
    """Mean over folds of AUC minus that of the baseline, with the 95 % interval of a bootstrap over patients."""
    rng = np.random.default_rng(0)
    drawn: list[np.ndarray] = []
    found: list[np.ndarray] = []
    for fold in folds:
        patients = np.unique([record.patient for record in fold.records[model]], return_inverse=True)[1]
        number = int(patients.max()) + 1
        times = rng.multinomial(number, np.full(number, 1 / number), size=DRAWS)[:, patients]
        for counts, kept in ((times, drawn), (np.ones((1, len(patients)), dtype=np.int64), found)):
            ours, cheap = (np.stack(resampled(fold.records[name], wanted, counts)) for name in (model, "baseline"))
            kept.append(mean_of_known(ours - cheap))
    means = mean_of_known(np.stack(drawn))
    return [float(mean_of_known(np.stack(found))[0]), *(float(value) for value in np.nanquantile(means, (0.025, 0.975)))]


def mean_of_known(values: np.ndarray) -> np.ndarray:
    """Means over the first axis of what is not nan; nan where all is: a resample without one of the answers."""
    known = ~np.isnan(values)
    count = known.sum(axis=0)
    return np.divide(np.where(known, values, 0).sum(axis=0), count, out=np.full(values.shape[1:], np.nan), where=count > 0)


def render(ledger: Ledger) -> str:
    """A row per dataset: mean and range over folds, and the paired differences."""
    rows = []
    for key, entry in ledger.entries.items():
        result = entry["result"]
        cells = [f"{statistics.fmean(areas):.4f} ({min(areas):.3f} to {max(areas):.3f})"
                 for areas in (result["auc"][model] for model in MODELS)]
        changes = ["{:+.4f} [{:+.3f}, {:+.3f}]".format(*result["difference"][model]) for model in ("network", "average")]
        ece = " / ".join(f"{statistics.fmean(result['ece'][model]):.3f}" for model in MODELS[:2])
        rows.append([key, f"{result['units']:,} of {result['patients']:,}", str(result["iterations"]), *cells, *changes, ece])
    return markdown(["data", "units of patients", "steps a fold", *(f"AUC {model}" for model in MODELS), "network - baseline",
                     "average - baseline", "ECE network / baseline"], rows)


if __name__ == "__main__":
    main()
