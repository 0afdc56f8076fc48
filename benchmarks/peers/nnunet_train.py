"""Trains nnU-Net's planned configuration for a number of iterations, by nnU-Net's own trainer, and predicts its validation cases.

Runs in nnU-Net's environment, after nnU-Net has planned and preprocessed the dataset; nnUNet_raw, nnUNet_preprocessed and
nnUNet_results are set. nnU-Net's epochs (250 iterations, then 50 of validation) do not fit into minutes on a CPU: here is one
run of N iterations, with the same steps, batches and poly schedule, lowered after each of them. A run that was stopped while it
predicted takes its network up again: `trained.json` beside the checkpoint says of how many steps on which cases that is.

    python nnunet_train.py time DATASET CONFIGURATION FOLD STEPS        prints the median seconds of a step
    python nnunet_train.py train DATASET CONFIGURATION FOLD ITERATIONS
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from pathlib import Path

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

POLY_POWER = 0.9  # nnU-Net 2.8.1, polylr.py


def make_trainer(dataset: str, configuration: str, fold: str) -> nnUNetTrainer:
    planned = Path(os.environ["nnUNet_preprocessed"]) / dataset  # noqa: SIM112  nnU-Net's own spelling
    plans = json.loads((planned / "nnUNetPlans.json").read_text())
    description = json.loads((planned / "dataset.json").read_text())
    torch.manual_seed(0)
    return nnUNetTrainer({**plans, "continue_training": False}, configuration, int(fold), description, torch.device("cpu"))


def record_of(trainer: nnUNetTrainer) -> Path:
    """What says of how many steps on which cases the checkpoint beside it is."""
    return Path(trainer.output_folder) / "trained.json"


def run_steps(trainer: nnUNetTrainer, iterations: int) -> list[float]:
    """Seconds of every step, drawing the batch included."""
    record_of(trainer).unlink(missing_ok=True)  # the checkpoint of these steps takes the place of another one
    trainer.on_train_start()
    trainer.network.train()
    seconds = []
    for iteration in range(iterations):
        start = time.perf_counter()
        for group in trainer.optimizer.param_groups:
            group["lr"] = trainer.initial_lr * (1 - iteration / iterations) ** POLY_POWER
        trainer.train_step(next(trainer.dataloader_train))
        seconds.append(time.perf_counter() - start)
        print(f"{iteration + 1}/{iterations} {seconds[-1]:.2f} s", file=sys.stderr, flush=True)
    return seconds


def trained(trainer: nnUNetTrainer, iterations: int) -> float:
    """Seconds of all steps, of a run before where there was one of as many on the same cases."""
    record = record_of(trainer)
    trainer.initialize()
    what = {"iterations": iterations, "cases": sorted(trainer.do_split()[0])}
    known = json.loads(record.read_text()) if record.exists() else None
    if known is not None and known["what"] == what:
        trainer.load_checkpoint(str(record.with_name("checkpoint_final.pth")))
        return known["seconds"]
    seconds = sum(run_steps(trainer, iterations))
    trainer.on_train_end()
    record.write_text(json.dumps({"what": what, "seconds": seconds}))
    return seconds


def main(verb: str, dataset: str, configuration: str, fold: str, count: str) -> None:
    trainer = make_trainer(dataset, configuration, fold)
    if verb == "train":
        seconds = trained(trainer, int(count))
        start = time.perf_counter()
        trainer.perform_actual_validation(False)
        print(json.dumps({"training": seconds, "validation": time.perf_counter() - start}))
    else:
        steps = run_steps(trainer, int(count))
        trainer.on_train_end()
        print(json.dumps({"step": statistics.median(steps[1:])}))


if __name__ == "__main__":
    main(*sys.argv[1:])
