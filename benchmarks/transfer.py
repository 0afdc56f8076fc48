"""AUC of a classification from scratch and from another model's weights, on the same folds and minutes.

    python -m benchmarks.transfer --source PneumoniaMNIST --source-data FOLDER --dataset CovidCXR --data FOLDER --minutes 4

Trains one fold of the source first, or takes a bundle that is there (`--bundle`; that of a segmentation will do). Then
`autoseg plan_and_preprocess --start` plans `resnet` (from scratch), `layer_wise`, `last_stage` and `frozen`, and `autoseg train`
trains all folds of each; all commands go on where they were interrupted. AUC is the mean over the findings with at least 10
patients. Differences to `resnet` are paired by unit within each fold, with a bootstrap over patients, and their mean over folds
is shown. Finished comparisons are in `<work>/transfer.json`.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autoseg.core.layout import Layout
from autoseg.core.report import Record, Report
from autoseg.io.atomic import hash_values
from autoseg.io.values import read_json, read_value
from benchmarks.classification import Fold, difference, mean_auc, scored_columns
from benchmarks.ledger import REPOSITORY, Ledger, markdown, source_digest
from benchmarks.measure import begin, describe_machine, run_autoseg

SCRATCH = "resnet"
# What each start trains; see planning/classifier_start.py.
TRAINED = {SCRATCH: "all, from scratch", "layer_wise": "all, slower towards the image", "last_stage": "last stage and outputs",
           "frozen": "outputs"}
BASELINE = "baseline"


def main() -> None:
    begin()
    options = parse_options()
    ledger = Ledger(options.work / "transfer.json")
    source = str(options.bundle) if options.bundle else f"{options.source}, {options.source_minutes:g} minutes"
    key = f"{options.dataset} from {source}, {options.minutes:g} minutes, folds {options.folds}"
    inputs = hash_values(key, source_digest(), str(options.root))
    if not options.table and not ledger.has(key, inputs):
        ledger.add(key, inputs, measure(options) | {"machine": describe_machine()})
    print(render(ledger))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default="PneumoniaMNIST", help="dataset whose model is started from")
    parser.add_argument("--source-data", type=Path, help="its folder as downloaded")
    parser.add_argument("--source-minutes", type=float, default=4.0, help="time for training steps of the source")
    parser.add_argument("--bundle", type=Path, help="start from this bundle instead of training a source")
    parser.add_argument("--dataset", default="CovidCXR", help="name of the target's specification")
    parser.add_argument("--data", type=Path, help="its folder as downloaded")
    parser.add_argument("--minutes", type=float, default=4.0, help="time for training steps of a fold")
    parser.add_argument("--folds", default="missing", help="numbers with commas; default: all")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "benchmarks/.work", help="folder for results and logs")
    parser.add_argument("--root", type=Path, help="autoseg's root; default: transfer in the work folder")
    parser.add_argument("--table", action="store_true", help="show what is there, run nothing")
    options = parser.parse_args()
    if not options.table and (options.data is None or (options.bundle is None and options.source_data is None)):
        parser.error("give --data, and --source-data or --bundle")
    options.root = (options.root or options.work.resolve() / "transfer").resolve()
    return options


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Scores of all folds of every start, trained first where they are not.

    Raises:
        SystemExit: a command failed; what it said has been shown.
    """
    bundle = options.bundle.resolve() if options.bundle else train_source(options)
    plan = f"{options.minutes:g}min_started"
    common = ["-d", options.dataset, "--root", str(options.root)]
    asked = [part for name in TRAINED for part in ("-c", name)]
    run_autoseg(["plan_and_preprocess", *common, "-i", str(options.data.resolve()), *asked, "--minutes", f"{options.minutes:g}",
                 "--start", str(bundle), "--plan", plan])
    for name in TRAINED:
        run_autoseg(["train", *common, "--plan", plan, "-c", name, "-f", options.folds])
    layout = Layout(options.root, options.dataset)
    found = layout.run(plan, SCRATCH, "0").parent.glob("fold_[0-9]*")
    names = sorted(path.name.removeprefix("fold_") for path in found) if options.folds == "missing" else options.folds.split(",")
    planned = read_json(layout.plan(plan) / "plan.json")["configurations"]
    return compared([read_fold(layout, plan, name) for name in names]) | {
        "iterations": {name: planned[name]["optimization"]["iterations"] for name in TRAINED},
        "size": planned[SCRATCH]["patch_size"], "start": planned["frozen"]["network"]["features"]}


def train_source(options: argparse.Namespace) -> Path:
    """The bundle of one fold of the source."""
    common = ["-d", options.source, "--root", str(options.root)]
    run_autoseg(["plan_and_preprocess", *common, "-i", str(options.source_data.resolve()), "-c", SCRATCH, "--minutes",
                 f"{options.source_minutes:g}"])
    plan = f"{options.source_minutes:g}min"
    run_autoseg(["train", *common, "--plan", plan, "-c", SCRATCH, "-f", "0"])
    return Layout(options.root, options.source).bundle(plan)


def read_fold(layout: Layout, plan: str, name: str) -> dict[str, list[Record]]:
    """The validation records of a fold, the same units in the same order, by start and of the baseline."""
    files = {start: layout.run(plan, start, name) / "summary.json" for start in TRAINED}
    files[BASELINE] = layout.baseline(name) / "summary.json"
    return {start: sorted(read_value(file, Report).records, key=lambda record: record.unit) for start, file in files.items()}


def compared(folds: Sequence[Mapping[str, Sequence[Record]]]) -> dict[str, Any]:
    """AUC of every start by fold, and its difference to training from scratch with the interval."""
    pairs = {start: [Fold({"network": list(fold[start]), "baseline": list(fold[SCRATCH])}) for fold in folds]
             for start in folds[0]}
    columns = scored_columns(pairs[SCRATCH])
    records = [record for fold in folds for record in fold[SCRATCH]]
    return {"auc": {start: [mean_auc(fold[start], columns) for fold in folds] for start in folds[0]},
            "difference": {start: difference(pairs[start], "network", columns) for start in folds[0] if start != SCRATCH},
            "columns": list(columns), "units": len(records), "patients": len({record.patient for record in records})}


def render(ledger: Ledger) -> str:
    """A table per comparison: a row per start with mean, spread and range over folds, and the paired difference."""
    parts = []
    for key, entry in ledger.entries.items():
        result = entry["result"]
        rows = []
        for start, areas in result["auc"].items():
            spread = f" ± {statistics.stdev(areas):.4f}" if len(areas) > 1 else ""
            change = "{:+.4f} [{:+.3f}, {:+.3f}]".format(*result["difference"][start]) if start in result["difference"] else ""
            better = sum(one > other for one, other in zip(areas, result["auc"][SCRATCH], strict=True))
            rows.append([start, TRAINED.get(start, ""), str(result["iterations"].get(start, "")),
                         f"{statistics.fmean(areas):.4f}{spread} ({min(areas):.3f} to {max(areas):.3f})", change,
                         "" if start == SCRATCH else f"{better} of {len(areas)}"])
        header = ["start", "trained", "steps a fold", "AUC, mean ± sd (range)", f"minus {SCRATCH}", "folds better"]
        parts.append(f"{key}: {result['units']:,} units of {result['patients']:,} patients, {len(result['columns'])} findings\n\n"
                     + markdown(header, rows))
    return "\n\n".join(parts)


if __name__ == "__main__":
    main()
