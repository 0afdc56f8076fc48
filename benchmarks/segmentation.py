"""Dice of a segmentation dataset over folds, with the defaults alone or after a given time of training, beside the baseline.

    python -m benchmarks.segmentation --dataset LungGTV --data FOLDER
    python -m benchmarks.segmentation --dataset benchmarks/specs/BraTS15Sub.yaml --data FOLDER --minutes 20 --leave-one-out

Runs `autoseg plan_and_preprocess` and `autoseg train` for the folds that are asked for and reads what they wrote; both go on
where they were interrupted. `--leave-one-out` writes folds of one patient each into `splits.json`, which autoseg obeys.
Intervals are bootstraps over patients, as in autoseg's reports, over all validation cases together. Finished folds are in
`<work>/segmentation.json`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from autoseg.core.case import Unit
from autoseg.core.layout import Layout
from autoseg.core.report import Estimate, Record, Report
from autoseg.io.atomic import hash_values
from autoseg.io.dataset import scan
from autoseg.io.specs import load_spec
from autoseg.io.values import read_json, read_value, write_value
from autoseg.planning.splits import make_folds
from autoseg.stages.folds import Splits
from autoseg.tasks.segmentation.score import summarise
from autoseg.tasks.segmentation.spec import index_units
from autoseg.training.log import read_metrics
from benchmarks.ledger import REPOSITORY, Ledger, markdown
from benchmarks.measure import begin, describe_machine, run_autoseg


def main() -> None:
    begin()
    options = parse_options()
    spec = load_spec(options.dataset, data_folder=options.data)
    layout = Layout(options.root, spec.name)
    ledger = Ledger(options.work / "segmentation.json")
    if not options.table:
        plan(options, layout)
        for fold in options.folds or range(len(read_value(layout.splits, Splits).folds)):
            train(options, layout, str(fold), ledger)
    print(render(ledger))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, help="name or file of its specification")
    parser.add_argument("--data", type=Path, required=True, help="folder of the dataset as downloaded")
    parser.add_argument("--minutes", type=float, help="time for training steps of a fold; default: what the dataset asks for")
    parser.add_argument("--configuration", default="3d_fullres")
    parser.add_argument("--folds", type=int, nargs="+", help="default: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--leave-one-out", action="store_true", help="validate one patient in each fold")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "benchmarks/.work", help="folder for results and logs")
    parser.add_argument("--root", type=Path, help="autoseg's root; default: segmentation in the work folder")
    parser.add_argument("--table", action="store_true", help="show what is there, run nothing")
    options = parser.parse_args()
    options.data = options.data.resolve()
    options.root = (options.root or options.work.resolve() / "segmentation").resolve()
    options.plan = "default" if options.minutes is None else f"{options.minutes:g}min"
    options.plan += f"_seed{options.seed}" if options.seed else ""
    return options


def plan(options: argparse.Namespace, layout: Layout) -> None:
    """The plan, the prepared cases and the folds, as far as they are not there.

    Raises:
        SystemExit: a command failed; what it said has been shown.
    """
    if options.leave_one_out:
        spec = load_spec(options.dataset, data_folder=options.data)
        leave_one_out(index_units(spec, scan(spec, options.data).cases), layout.splits)
    minutes = [] if options.minutes is None else ["--minutes", f"{options.minutes:g}"]
    run_autoseg(["plan_and_preprocess", "-d", options.dataset, "-i", str(options.data), "-c", options.configuration, *minutes,
                 "--seed", str(options.seed), "--root", str(options.root)])


def leave_one_out(units: Sequence[Unit], path: Path) -> None:
    """Writes folds that validate one patient each, in the order of their ids.

    Raises:
        SystemExit: there are other folds already.
    """
    folds = tuple(sorted(make_folds(units, count=len(units)), key=lambda fold: fold.validation))
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_value(path, Splits(folds))
    elif read_value(path, Splits).folds != folds:
        raise SystemExit(f"{path} holds other folds, which plans and runs beside it are made on; name another --root")


def train(options: argparse.Namespace, layout: Layout, fold: str, ledger: Ledger) -> None:
    """Trains and validates a fold, and writes down its scores."""
    run_autoseg(["train", "-d", layout.dataset, "--plan", options.plan, "-c", options.configuration, "-f", fold,
                 "--root", str(options.root)])
    folder = layout.run(options.plan, options.configuration, fold)
    last = read_metrics(folder / "metrics.jsonl")[-1]
    baseline = layout.baseline(fold) / "summary.json"
    result = {"iterations": last["iteration"], "seconds": last["seconds"], "machine": describe_machine(),
              "network": records_of(folder / "summary.json"), "baseline": records_of(baseline) if baseline.exists() else []}
    row = f"{layout.dataset}, {options.configuration}, {options.plan}" + (", leave one out" if options.leave_one_out else "")
    ledger.add(f"{row}, fold {fold}", hash_values(read_json(layout.splits)), result | {"row": row})


def records_of(path: Path) -> list[dict[str, Any]]:
    """The Dice of every case of a report."""
    return [{"unit": record.unit, "group": record.group,
             "scores": {name: score for name, score in record.scores.items() if name.endswith(".dice") and isfinite(score)}}
            for record in read_value(path, Report).records]


def render(ledger: Ledger) -> str:
    """A line for every dataset, plan and structure: Dice of all folds that are there, and of the baseline on the same."""
    rows = []
    for row in dict.fromkeys(entry["result"]["row"] for entry in ledger.entries.values()):
        folds = [entry["result"] for entry in ledger.entries.values() if entry["result"]["row"] == row]
        ours, cheap = (summary([record for fold in folds for record in fold[model]]) for model in ("network", "baseline"))
        seconds = sum(fold["seconds"] for fold in folds) / len(folds)
        for name in (name for name in ours if name.endswith(".dice")):
            rows.append([row, str(len(folds)), f"{folds[0]['iterations']:,}", f"{seconds:,.0f}", str(ours[name].count),
                         name.removesuffix(".dice"), interval(ours[name]), interval(cheap[name]) if name in cheap else ""])
    return markdown(["dataset, configuration, plan", "folds", "iterations", "seconds a fold", "cases", "structure", "Dice",
                     "baseline"], rows)


def summary(records: Sequence[dict[str, Any]]) -> dict[str, Estimate]:
    """As autoseg's reports summarise records."""
    return summarise([Record(**record) for record in records], np.random.default_rng(0)) if records else {}


def interval(estimate: Estimate) -> str:
    """Mean with its 95 % interval."""
    return f"{estimate.mean:.3f} [{estimate.lower:.3f}, {estimate.upper:.3f}]"


if __name__ == "__main__":
    main()
