"""Memory of training and of prediction as the plan predicts it, beside what a process takes.

    python -m benchmarks.memory [--precision bf16]

For ten configurations that no constant was fitted on, each in a fresh process: resident memory grows from just before the
network is built to the end of step 3, and its high-water mark over that is compared with `training.memory.predict_peaks`.
For those that name a case the same is done for `autoseg predict`, from loading the network to the written label map, with
each engine. With `--target cuda` training is `torch.cuda.max_memory_reserved`, and prediction is left out. Finished rows are in
`<work>/memory.json`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from autoseg.core.plan import Precision
from autoseg.core.task import Engine
from autoseg.io.atomic import hash_values
from benchmarks import predicting
from benchmarks.ledger import REPOSITORY, Ledger, markdown, source_digest
from benchmarks.measure import begin, describe_machine
from benchmarks.resident import peak_bytes, reset_peak, resident_bytes
from benchmarks.trials import TRIALS, Trial

STEPS = 3
TASK = "segmentation"


def main() -> None:
    begin()
    options = parse_options()
    if options.measure is not None:
        trial = TRIALS[options.measure]
        print(measure(trial, options) if options.engine is None else
              predicting.measure(trial.configuration(options.precision), options.folder, options.engine, options.threads))
        return
    ledger = Ledger(options.work / "memory.json")
    machine = describe_machine()
    for number, trial in enumerate(TRIALS):
        for engine in rows_of(trial, options):
            key = key_of(trial, engine or "training", options.precision)
            inputs = hash_values(trial, options.target, options.threads, options.precision, source_digest(), machine["processor"])
            if not options.table and not ledger.has(key, inputs):
                ledger.add(key, inputs, run(number, engine, options) | {"machine": machine})
                print(key, file=sys.stderr, flush=True)
    print(render(ledger, options.precision))


def key_of(trial: Trial, part: str, precision: Precision) -> str:
    """Names the row of a trial in the ledger."""
    return f"{trial.name}, {part}" + (f", {precision}" if precision != "fp32" else "")


def rows_of(trial: Trial, options: argparse.Namespace) -> list[Engine | None]:
    """What is measured of a trial: None for training, and engines that predict."""
    parts: list[Engine | None] = [None] if "training" in options.parts else []
    if "prediction" in options.parts and trial.case and options.target == "cpu":
        parts += predicting.ENGINES
    return parts


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=["training", "prediction"], default=["training", "prediction"])
    parser.add_argument("--target", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--precision", choices=get_args(Precision), default="fp32",
                        help="of training and of prediction; fp16 with --target cuda only")
    parser.add_argument("--threads", type=int, default=1, help="of torch; every thread has its own workspace")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "benchmarks/.work", help="folder for results")
    parser.add_argument("--table", action="store_true", help="show what is there, run nothing")
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--engine", choices=predicting.ENGINES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def run(number: int, engine: Engine | None, options: argparse.Namespace) -> dict[str, Any]:
    """Prediction and measurement of one row, the latter in a process of its own."""
    from autoseg.planning.case_memory import inference_bytes
    from autoseg.tasks import load_task
    from autoseg.training.memory import predict_peaks

    trial = TRIALS[number]
    configuration = trial.configuration(options.precision)
    training, forward = predict_peaks(load_task(TASK), configuration, target=options.target, threads=options.threads)
    arguments = ["--measure", str(number), "--target", options.target, "--threads", str(options.threads), "--precision",
                 options.precision]
    if engine is None:
        done = subprocess.run([sys.executable, "-m", "benchmarks.memory", *arguments], capture_output=True, text=True,
                              check=False)
        if done.returncode:
            raise SystemExit(f"{trial.name} failed:\n{done.stderr}")
        return {"measured_bytes": json.loads(done.stdout.splitlines()[-1]), "predicted_bytes": training}
    assert trial.case is not None, f"{trial.name}: `rows_of` asks for engines only where there is a case"
    measured = predicting.measure_apart("benchmarks.memory", [*arguments, "--engine", engine], configuration, trial.case,
                                        trial.name)
    known = replace(configuration, median_shape=trial.case)
    return {"measured_bytes": measured, "predicted_bytes": inference_bytes(known, forward)}


def measure(trial: Trial, options: argparse.Namespace) -> int:
    """Growth of this process' memory by three steps of a trial, in bytes."""
    from autoseg.training.device import prepare_allocator

    prepare_allocator()  # as the command line does, before torch takes memory
    import torch

    from autoseg.tasks import load_task
    from autoseg.training.step import Stepper

    torch.set_num_threads(options.threads)
    task, configuration = load_task(TASK), trial.configuration(options.precision)
    before = resident_bytes()
    reset_peak()
    batch = task.blank_batch(configuration)
    batch["image"].normal_()
    stepper = Stepper(task.build_network(configuration), task.phases(configuration), configuration.optimization,
                      device=options.target)
    stepper.network.train()
    for iteration in range(STEPS):
        stepper.step(iteration, batch)
    return torch.cuda.max_memory_reserved() if options.target == "cuda" else peak_bytes() - before


def render(ledger: Ledger, precision: Precision) -> str:
    """What is there of a precision, as two tables; what is predicted for a case is compared with the engine that takes more."""
    rows: dict[str, list[list[str]]] = {"training": [], "prediction": []}
    for trial in TRIALS:
        found = [ledger.result(key_of(trial, part, precision)) for part in ("training", *predicting.ENGINES)]
        for part, results in (("training", found[:1]), ("prediction", found[1:])):
            known = [result for result in results if result is not None]
            if len(known) == len(results):
                predicted, measured = known[0]["predicted_bytes"], [result["measured_bytes"] for result in known]
                case = (f"; case {' x '.join(map(str, trial.case))}, {trial.windows} together"
                        if part == "prediction" and trial.case else "")
                rows[part].append([trial.name + case, *(f"{value / 1e9:.2f}" for value in (predicted, *measured)),
                                   f"{predicted / max(measured):.3f}"])
    training = markdown(["configuration", "predicted GB", "measured GB", "predicted / measured"], rows["training"])
    prediction = markdown(["configuration", "predicted GB", *(f"{engine} GB" for engine in predicting.ENGINES),
                           "predicted / larger"], rows["prediction"])
    return f"{training}\n\n{prediction}"


if __name__ == "__main__":
    main()
