"""Seconds that a plan predicts for preprocessing, training, validation and prediction, beside what they take.

    python -m benchmarks.time --data FOLDER [FOLDER ...] --minutes 2

Plans every dataset with a time budget, then preprocesses, trains fold 0 and predicts one case, each in a cold process. Start-up
is not predicted: from preprocessing the time of the same command with nothing left to do is taken away, and a case is what each
of four further copies of it adds to a prediction. Finished datasets are in `<work>/time.json`.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from itertools import product
from pathlib import Path
from typing import Any

from autoseg.core.layout import Layout
from autoseg.core.plan import Plan
from autoseg.io.atomic import hash_values
from autoseg.io.values import read_json, read_value
from autoseg.training.log import read_metrics
from benchmarks.ledger import REPOSITORY, Ledger, markdown, source_digest
from benchmarks.measure import describe_machine, end_with_children, measure

PARTS = ("preprocess", "training", "validation", "case")
COPIES = 5


def main() -> None:
    end_with_children()
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
    first, again = (command("plan_and_preprocess", *plan_options) for _ in range(2))
    command("train", "-c", options.configuration, "-f", "0")
    layout = Layout(folder / "home", next(path.parent.name for path in (folder / "home").glob("*/spec.yaml")))
    plan = read_value(layout.plan(f"{options.minutes:g}min") / "plan.json", Plan)
    run_folder = layout.run(plan.name, options.configuration, "0")
    taken = {"preprocess": first - again, "training": read_metrics(run_folder / "metrics.jsonl")[-1]["seconds"],
             "validation": read_json(run_folder / "seconds.json")["validation"],
             "case": predict_median_case(data, folder, plan, command)}
    seconds = plan.configuration(options.configuration).predicted_seconds
    return {"predicted": {part: getattr(seconds, part) for part in PARTS}, "taken": taken}


def predict_median_case(data: Path, folder: Path, plan: Plan, command: Any) -> float:
    """Seconds of the case whose file has the median size: what each of four further copies adds, start-up left out."""
    images = data / "imagesTr"
    firsts = sorted((path for path in images.iterdir() if "_0000." in path.name), key=lambda path: path.stat().st_size)
    stem = firsts[len(firsts) // 2].name.split("_0000.")[0]
    seconds = []
    for count in (1, COPIES):
        inputs = folder / f"in_{count}"
        inputs.mkdir(parents=True, exist_ok=True)
        for path, copy in product(images.glob(f"{stem}_*"), range(count)):
            shutil.copy(path, inputs / f"copy{copy}_{path.name}")
        seconds.append(command("predict", "-i", str(inputs), "-o", str(folder / f"out_{count}"), "--plan", plan.name))
    return (seconds[1] - seconds[0]) / (COPIES - 1)


def render(ledger: Ledger, names: list[str]) -> str:
    """Predicted and taken seconds, and their quotient, by dataset and part."""
    rows = []
    for name in names:
        result = ledger.result(name)
        for part in PARTS if result is not None else ():
            predicted, taken = result["predicted"][part], result["taken"][part]
            rows.append([f"{name}, {part}", f"{predicted:.3g}", f"{taken:.3g}", f"{predicted / taken:.2f}"])
    return markdown(["dataset, part", "predicted s", "taken s", "predicted / taken"], rows)


if __name__ == "__main__":
    main()
