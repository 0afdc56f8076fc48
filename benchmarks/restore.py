"""Logits of many classes to a label map on the case grid, beside nnU-Net's own export: seconds and peak memory.

    python -m benchmarks.restore

Both programs get the same smooth logits (half precision values, `logits.py`) in a cold process of their own: autoseg as a
stream, nnU-Net as the array that it makes. Finished runs are in `<work>/restore.json` and not repeated unless autoseg's
source or the machine changed. nnU-Net needs several arrays of classes x voxels; `--peer-classes` are what fits.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from autoseg.io.atomic import hash_values
from benchmarks.ledger import REPOSITORY, Ledger, markdown, source_digest
from benchmarks.logits import Case, smooth_planes
from benchmarks.measure import begin, describe_machine, measure
from benchmarks.resident import peak_bytes, resident_bytes

SHAPE, SPACING_MM = (400, 512, 512), (1.0, 0.8, 0.8)
MODEL_GRIDS = {"1.5 mm": (1.5, 1.5, 1.5), "case grid": SPACING_MM}


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        grid: of the model, a key of `MODEL_GRIDS`.
        precision: of nnU-Net's logits; empty for autoseg.
    """

    program: str
    grid: str
    classes: int
    precision: str = ""

    @property
    def case(self) -> Case:
        return Case(self.classes, SHAPE, SPACING_MM, MODEL_GRIDS[self.grid])

    @property
    def key(self) -> str:
        return " ".join([self.program, self.grid, str(self.classes), self.precision]).strip()


def main() -> None:
    begin()
    options = parse_options()
    if options.case:
        restore_once(Case(**json.loads(options.case.read_text())), options.folder)
        return
    machine = describe_machine()
    about_machine = hash_values(sorted(set(machine.items()) - {("date", machine["date"])}))
    ledger = Ledger(options.work / "restore.json")
    rows = make_rows(options)
    for row in [] if options.table else rows:
        run_row(row, ledger, options, about_machine)
    print(", ".join(f"{name} {value}" for name, value in machine.items()) + "\n\n" + render(rows, ledger, options.work))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, nargs="*", default=[60], help="that autoseg restores")
    parser.add_argument("--peer-classes", type=int, nargs="*", default=[20], help="that both restore in half precision, as "
                        "nnU-Net keeps its logits; 20 take it 10 GB")
    parser.add_argument("--exact-classes", type=int, nargs="*", default=[8], help="that both restore in single precision, so "
                        "that no rounding to half precision makes labels differ")
    parser.add_argument("--grids", nargs="+", choices=tuple(MODEL_GRIDS), default=tuple(MODEL_GRIDS))
    parser.add_argument("--nnunet", type=Path, default=REPOSITORY / "benchmarks/peers/.envs/nnunet",
                        help="environment made by peers/nnunet.sh")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "benchmarks/.work", help="folder for results and logs")
    parser.add_argument("--table", action="store_true", help="show what is there, run nothing")
    parser.add_argument("--case", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.work = options.work.resolve()
    return options


def make_rows(options: argparse.Namespace) -> list[Row]:
    """autoseg for every number of classes, nnU-Net for those it is asked for."""
    rows = []
    for grid in options.grids:
        peers = [(classes, "float16") for classes in options.peer_classes]
        peers += [(classes, "float32") for classes in options.exact_classes]
        alone = [classes for classes in options.classes if classes not in dict(peers)]
        rows += [Row("autoseg", grid, classes) for classes in alone]
        for classes, precision in peers:
            rows += [Row("autoseg", grid, classes), Row("nnU-Net 2.8.1", grid, classes, precision)]
    return rows


def run_row(row: Row, ledger: Ledger, options: argparse.Namespace, machine: str) -> None:
    """Restores once in a cold process and records it; nothing where that is recorded."""
    own = row.program == "autoseg"
    inputs = hash_values(machine, asdict(row), SHAPE, SPACING_MM, source_digest() if own else "")
    folder = folder_of(row, options.work)
    if ledger.has(row.key, inputs) and (folder / "label.npy").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    case = folder / "case.json"
    case.write_text(json.dumps(asdict(row.case)))
    script = REPOSITORY / "benchmarks/peers/nnunet_restore.py"
    command = ([sys.executable, "-m", "benchmarks.restore", "--case", str(case), "--folder", str(folder)] if own else
               [str(options.nnunet / "bin/python"), str(script), str(case), row.precision, str(folder)])
    measure(command, log=folder / "log.txt", environment={"PYTHONPATH": str(REPOSITORY), "nnUNet_def_n_proc": cores()},
            folder=REPOSITORY)
    result = json.loads((folder / "usage.json").read_text())
    ledger.add(row.key, inputs, result)
    print(f"{row.key}: {result['seconds']:.1f} s, {result['peak_bytes'] / 1e9:.2f} GB", file=sys.stderr, flush=True)


def cores() -> str:
    return str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def folder_of(row: Row, work: Path) -> Path:
    """What a row writes lies here."""
    return work / "restore" / row.key.replace(" ", "_")


def other_labels(row: Row, work: Path) -> str:
    """Share of voxels whose label differs from autoseg's; empty where there is nothing to compare."""
    files = [folder_of(each, work) / "label.npy" for each in (row, Row("autoseg", row.grid, row.classes))]
    if row.program == "autoseg" or not all(file.exists() for file in files):
        return ""
    one, two = (np.load(file, mmap_mode="r") for file in files)
    return f"{sum(int(np.count_nonzero(a != b)) for a, b in zip(one, two, strict=True)) / one.size:.1e}"


def restore_once(case: Case, folder: Path) -> None:
    """autoseg's restore of a case, measured in this process; writes the label map and what it took."""
    from autoseg.core.geometry import IDENTITY_AXES, Geometry, GridRecord, Orientation
    from autoseg.core.task import Context
    from autoseg.ops.slabs import LogitSlabs, planes_per_slab
    from autoseg.tasks.segmentation.output import restore

    box = tuple((0, size) for size in case.shape)
    record = GridRecord(Geometry(case.shape, case.spacing_mm), Orientation(), (box[0], box[1], box[2]), IDENTITY_AXES,
                        case.model_shape, case.model_spacing_mm)
    step = planes_per_slab(case.classes, *case.model_shape[1:])
    before = resident_bytes()
    drawing = [0.0]
    slabs = LogitSlabs((case.classes, *case.model_shape), timed_slabs(case, step, drawing))
    started = time.perf_counter()
    prediction = restore(slabs, record, plain_configuration(case), Context())
    seconds = time.perf_counter() - started
    result = {"seconds": seconds - drawing[0], "source_seconds": drawing[0], "peak_bytes": peak_bytes() - before}
    np.save(folder / "label.npy", prediction.label)
    (folder / "usage.json").write_text(json.dumps(result))


def timed_slabs(case: Case, step: int, drawing: list[float]) -> Iterator[np.ndarray]:
    """Slabs of `step` planes; the seconds that making them takes are added to `drawing`."""
    planes = smooth_planes(case)
    while True:
        started = time.perf_counter()
        group = list(islice(planes, step))
        slab = np.stack(group, axis=1) if group else None
        drawing[0] += time.perf_counter() - started
        if slab is None:
            return
        yield slab


def plain_configuration(case: Case):
    """A configuration of which `restore` reads the resampling alone: linear, nearest along a coarse axis."""
    from autoseg.core.plan import Augmentation, Configuration, Inference, Loss, Network, Optimization, Resampling

    network = Network("plain_unet", 3, 1, case.classes, (4,), ((1, 1, 1),), ((3, 3, 3),), (1,), (), False)
    return Configuration("3d", case.model_spacing_mm, case.model_shape, (64, 64, 64), 1, Resampling(), network, Loss({}),
                         Augmentation(), Optimization("sgd", 0.1, 0.0, 1, 1), Inference(0.5, 0.125, 1, (), False))


def render(rows: list[Row], ledger: Ledger, work: Path) -> str:
    """The table; the ratio is to autoseg with as many classes."""
    lines: list[list[str]] = []
    reference: dict[tuple[str, int], float] = {}
    for row in rows:
        result = ledger.result(row.key)
        name = f"{row.program}, {row.precision}" if row.precision else row.program
        if result is None:
            lines.append([row.grid, str(row.classes), name, "not measured", "", "", "", ""])
            continue
        seconds = result["seconds"]
        reference.setdefault((row.grid, row.classes), seconds)
        lines.append([row.grid, str(row.classes), name, f"{seconds:.1f}", f"{result['source_seconds']:.1f}",
                      f"{seconds / reference[row.grid, row.classes]:.1f}", f"{result['peak_bytes'] / 1e9:.2f}",
                      other_labels(row, work)])
    return markdown(["model grid", "classes", "program", "restore s", "source s", "ratio", "peak GB", "other labels"], lines)


if __name__ == "__main__":
    main()
