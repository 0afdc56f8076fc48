"""Seconds that a plan predicts for preprocessing, training, validation and prediction, beside what they take.

    python -m benchmarks.time --data FOLDER [FOLDER ...] --minutes 2

Plans every dataset with a time budget, then preprocesses, trains fold 0 and predicts one case, each in a cold process. Start-up
is not predicted. From preprocessing, the median of three runs, the median of three runs of planning alone is taken away, with
the plan already there; a case, the one that is said to take the median time, is what each further copy of it adds to a
prediction, as many copies as take some seconds. Finished datasets are in `<work>/time.json`.
"""

from __future__ import annotations

import argparse
import math
import shutil
import statistics
import sys
from itertools import product
from pathlib import Path
from typing import Any

from autoseg.core.budget import CaseTime
from autoseg.core.layout import Layout
from autoseg.core.plan import Configuration, Plan
from autoseg.core.report import Report
from autoseg.io.atomic import hash_values
from autoseg.io.store import Store
from autoseg.io.values import read_json, read_value
from autoseg.planning.budget import case_key
from autoseg.planning.costs import predicting_seconds, validating_seconds
from autoseg.training.log import read_metrics
from benchmarks.ledger import REPOSITORY, Ledger, markdown, source_digest
from benchmarks.measure import begin, describe_machine, measure

PARTS = ("preprocess", "training", "validation", "case")
REPEATS = 3
# Copies of a case take together so long by prediction, which the 50 ms by which process starts differ cannot decide.
COPIES_SECONDS, FEWEST_COPIES, MOST_COPIES = 8.0, 4, 400


def main() -> None:
    begin()
    options = parse_options()
    ledger = Ledger(options.work / "time.json")
    machine = describe_machine()
    for data in options.data:
        inputs = hash_values(options.minutes, options.configuration, source_digest(), machine["processor"])
        if not options.table and not ledger.has(data.name, inputs):
            ledger.add(data.name, inputs, run(data.resolve(), options) | {"machine": machine})
    print(render(ledger, [data.name for data in options.data]))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders in nnU-Net or Decathlon layout")
    parser.add_argument("--minutes", type=float, default=2.0, help="time for training steps")
    parser.add_argument("--configuration", default="3d_fullres")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "benchmarks/.work", help="folder for results and logs")
    parser.add_argument("--table", action="store_true", help="show what is there, run nothing")
    return parser.parse_args()


def run(data: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Predicted and taken seconds of one dataset, by part."""
    folder = options.work.resolve() / "time" / data.name
    shutil.rmtree(folder, ignore_errors=True)
    plan_options = ["-i", str(data), "-c", options.configuration, "--minutes", str(options.minutes), "--jobs", "1"]

    def command(verb: str, *arguments: str) -> float:
        line = [sys.executable, "-m", "autoseg.cli", verb, "-d", str(data), "--root", str(folder / "home"), *arguments]
        return measure(line, log=folder / f"{verb}.log").wall_seconds

    command("plan", *plan_options)
    planned = statistics.median(command("plan", *plan_options) for _ in range(REPEATS))
    layout = Layout(folder / "home", next(path.parent.name for path in (folder / "home").glob("*/spec.yaml")))
    whole = []
    for _ in range(REPEATS):
        shutil.rmtree(layout.folder / "store", ignore_errors=True)
        whole.append(command("plan_and_preprocess", *plan_options))
    command("train", "-c", options.configuration, "-f", "0")
    plan = read_value(layout.plan(f"{options.minutes:g}min") / "plan.json", Plan)
    configuration = plan.configuration(options.configuration)
    run_folder, predicted = layout.run(plan.name, configuration.name, "0"), configuration.predicted_seconds
    store, times = Store(next(layout.folder.glob("store/*"))), plan.budget.case_time(case_key(configuration))
    if predicted is None or times is None:
        raise SystemExit(f"{data.name}: the plan in {layout.plan(plan.name)} predicts no seconds, so there is nothing to compare")
    validated = [record.unit for record in read_value(run_folder / "summary.json", Report).records]
    stem = median_case(store, configuration, times)
    alone = predicting_seconds(configuration, times, store.record(stem).model_shape)
    taken = {"preprocess": statistics.median(whole) - planned,
             "training": read_metrics(run_folder / "metrics.jsonl")[-1]["seconds"],
             "validation": read_json(run_folder / "seconds.json")["validation"],
             "case": predict_copies(data, folder, plan, stem, alone, command)}
    shapes = [store.record(name).model_shape for name in validated]
    return {"predicted": {part: getattr(predicted, part) for part in PARTS}, "taken": taken, "these": {
        "validation": times.start_seconds + validating_seconds(configuration, times, shapes), "case": alone}}


def median_case(store: Store, configuration: Configuration, times: CaseTime) -> str:
    """Id of the prepared case whose prediction is said to take the median time: the plan's figure is of such a case."""
    cases = sorted(store.cases(), key=lambda name: predicting_seconds(configuration, times, store.record(name).model_shape))
    return cases[len(cases) // 2]


def predict_copies(data: Path, folder: Path, plan: Plan, stem: str, predicted: float, command: Any) -> float:
    """Seconds that each further copy of a case adds to a prediction; start-up is left out so."""
    images, further = data / "imagesTr", min(max(math.ceil(COPIES_SECONDS / predicted), FEWEST_COPIES), MOST_COPIES)
    seconds = []
    for count in (1, 1 + further):
        inputs = folder / f"in_{count}"
        inputs.mkdir(parents=True, exist_ok=True)
        for path, copy in product((path for path in images.iterdir() if path.name.startswith(f"{stem}_0")), range(count)):
            shutil.copy(path, inputs / f"copy{copy}_{path.name}")
        seconds.append(command("predict", "-i", str(inputs), "-o", str(folder / f"out_{count}"), "--plan", plan.name))
    return (seconds[1] - seconds[0]) / further


def render(ledger: Ledger, names: list[str]) -> str:
    """Predicted and taken seconds, and their quotient, by dataset and part.

    The plan predicts for a fold of average cases and for the median case; what the same rule says of the very cases that
    were taken stands beside.
    """
    rows = []
    for name in names:
        result = ledger.result(name)
        if result is None:
            continue
        for part in PARTS:
            predicted, taken = result["predicted"][part], result["taken"][part]
            these = result["these"].get(part)
            rows.append([f"{name}, {part}", f"{predicted:.3g}", "" if these is None else f"{these:.3g}", f"{taken:.3g}",
                         f"{predicted / taken:.2f}", "" if these is None else f"{these / taken:.2f}"])
    return markdown(["dataset, part", "plan s", "for these cases s", "taken s", "plan / taken", "these / taken"], rows)


if __name__ == "__main__":
    main()
