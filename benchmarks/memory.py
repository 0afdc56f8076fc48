"""Memory of training predicted by the plan, beside what a process takes.

    python -m benchmarks.memory

For ten configurations that no constant was fitted on, each in a fresh process: resident memory grows from just before the
network is built to the end of step 3, and its high-water mark over that is compared with `training.memory.predict_peaks`.
With `--target cuda` it is `torch.cuda.max_memory_reserved`. Finished configurations are in `<work>/memory.json`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from autoseg.core.plan import Augmentation, Configuration, Inference, Loss, Network, Resampling
from autoseg.io.atomic import hash_values
from autoseg.planning import recipes
from autoseg.planning.memory import stage_widths
from autoseg.planning.topology import plan_topology
from benchmarks.ledger import REPOSITORY, Ledger, markdown, source_digest
from benchmarks.measure import describe_machine, end_with_children

STEPS = 3
KINDS = {"plain": ("plain_unet", 2), "residual": ("residual_unet", 1)}
OPTIMIZERS = {"sgd": recipes.NNUNET_SGD, "adamw": recipes.SHORT_RUN_ADAMW, "muon": recipes.SHORT_RUN_MUON}
TASK = "segmentation"


@dataclass(frozen=True)
class Trial:
    """One configuration.

    Attributes:
        patch: voxels, z y x; two numbers for 2-D.
        features: of the first stage, doubled per stage.
        labels: outputs of the network, background included.
    """

    kind: str
    patch: tuple[int, ...]
    batch: int
    features: int
    labels: int
    optimizer: str
    memory_format: str
    channels: int = 1
    spacing_mm: tuple[float, ...] = ()

    @property
    def name(self) -> str:
        return (f"{self.kind} {' x '.join(map(str, self.patch))}, batch {self.batch}, {self.features} features, "
                f"{self.channels} in, {self.labels} out, {self.optimizer}, {self.memory_format}")

    def configuration(self) -> Configuration:
        kind, convs = KINDS[self.kind]
        dims = len(self.patch)
        topology = plan_topology(self.spacing_mm or (1.0,) * dims, self.patch)
        stages = len(topology.strides)
        network = Network(
            kind, dims, self.channels, self.labels, stage_widths(stages, first=self.features, largest=16 * self.features),
            topology.strides, topology.kernel_sizes, (convs,) * stages, (convs,) * (stages - 1), kind == "plain_unet")
        optimization = replace(OPTIMIZERS[self.optimizer], memory_format=self.memory_format,
                               ema_decay=None if self.optimizer == "sgd" else 0.99)
        patch = topology.patch_size if dims == 3 else (1, *topology.patch_size)
        return Configuration(
            "3d_fullres" if dims == 3 else "2d", (1.0, 1.0, 1.0), tuple(map(float, patch)), patch, self.batch, Resampling(),
            network, Loss({"dice": 1.0, "cross_entropy": 1.0}), Augmentation(), optimization,
            Inference(0.5, 0.125, 1, (), False, memory_format=self.memory_format))


TRIALS = (
    Trial("plain", (64, 64, 64), 2, 32, 3, "sgd", "contiguous"),
    Trial("plain", (64, 80, 56), 2, 32, 4, "adamw", "channels_last", channels=4),
    Trial("plain", (80, 80, 64), 2, 24, 15, "muon", "contiguous", channels=2),
    Trial("plain", (20, 128, 112), 2, 32, 4, "sgd", "contiguous", spacing_mm=(5.0, 1.4, 1.4)),
    Trial("residual", (96, 96, 80), 2, 16, 3, "muon", "channels_last"),
    Trial("residual", (96, 80, 80), 2, 16, 5, "adamw", "contiguous"),
    Trial("residual", (24, 160, 160), 2, 16, 2, "sgd", "channels_last", spacing_mm=(3.0, 0.8, 0.8)),
    Trial("plain", (256, 224), 8, 32, 4, "adamw", "contiguous"),
    Trial("plain", (320, 256), 6, 32, 2, "muon", "channels_last", channels=3),
    Trial("residual", (256, 256), 12, 32, 4, "sgd", "contiguous"),
)


def main() -> None:
    end_with_children()
    options = parse_options()
    if options.measure is not None:
        print(json.dumps(measure(TRIALS[options.measure], options.target, options.threads)))
        return
    ledger = Ledger(options.work / "memory.json")
    machine = describe_machine()
    for number, trial in enumerate(TRIALS):
        inputs = hash_values(trial, options.target, options.threads, source_digest(), machine["processor"])
        if not options.table and not ledger.has(trial.name, inputs):
            ledger.add(trial.name, inputs, run(number, options) | {"machine": machine})
            print(trial.name, file=sys.stderr, flush=True)
    print(render(ledger))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="of torch; every thread has its own workspace")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "benchmarks/.work", help="folder for results")
    parser.add_argument("--table", action="store_true", help="show what is there, run nothing")
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def run(number: int, options: argparse.Namespace) -> dict[str, Any]:
    """Prediction and measurement of one trial, the latter in a process of its own."""
    from autoseg.tasks import load_task
    from autoseg.training.memory import predict_peaks

    command = [sys.executable, "-m", "benchmarks.memory", "--measure", str(number), "--target", options.target, "--threads",
               str(options.threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{TRIALS[number].name} failed:\n{done.stderr}")
    predicted, _ = predict_peaks(load_task(TASK), TRIALS[number].configuration(), target=options.target,
                                 threads=options.threads)
    return json.loads(done.stdout.splitlines()[-1]) | {"predicted_bytes": predicted}


def measure(trial: Trial, target: str, threads: int) -> dict[str, int]:
    """Growth of this process' memory by three steps of a trial, in bytes."""
    from autoseg.training.device import prepare_allocator

    prepare_allocator()  # as the command line does, before torch takes memory
    import torch

    from autoseg.tasks import load_task
    from autoseg.training.step import Stepper

    torch.set_num_threads(threads)
    task, configuration = load_task(TASK), trial.configuration()
    before = resident_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark back
    batch = task.blank_batch(configuration)
    batch["image"].normal_()
    stepper = Stepper(task.build_network(configuration), task.phases(configuration), configuration.optimization, device=target)
    stepper.network.train()
    for iteration in range(STEPS):
        stepper.step(iteration, batch)
    if target == "cuda":
        return {"measured_bytes": torch.cuda.max_memory_reserved()}
    return {"measured_bytes": resident_bytes("VmHWM") - before}


def resident_bytes(key: str) -> int:
    """`VmRSS` (now) or `VmHWM` (most so far) of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) * 1024


def render(ledger: Ledger) -> str:
    """What is there, as a table."""
    rows = []
    for trial in TRIALS:
        result = ledger.result(trial.name)
        if result is not None:
            predicted, measured = result["predicted_bytes"], result["measured_bytes"]
            rows.append([trial.name, f"{predicted / 1e9:.2f}", f"{measured / 1e9:.2f}", f"{predicted / measured:.3f}"])
    return markdown(["configuration", "predicted GB", "measured GB", "predicted / measured"], rows)


if __name__ == "__main__":
    main()
