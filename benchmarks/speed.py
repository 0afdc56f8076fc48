"""Planning, preprocessing and prediction of Hippocampus beside nnU-Net: seconds, processor seconds, peak memory.

    python -m benchmarks.speed --data FOLDER --bundle autoseg_home/Hippocampus/bundles/5min

Every run is a cold process. A round runs each row of the table once, autoseg and nnU-Net in turn, so that other load on
the machine meets both. Finished runs are in `<work>/speed.json` and are not repeated unless autoseg's source, the
dataset, the bundle or the machine changed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from autoseg.io.atomic import hash_values
from autoseg.io.values import read_json
from benchmarks.ledger import REPOSITORY, Ledger, markdown, source_digest
from benchmarks.measure import Usage, begin, describe_machine, measure, median
from benchmarks.peers.nnunet import NnUNet

PARTS = ("plan_and_preprocess", "predict")
AUTOSEG = (sys.executable, "-m", "autoseg.cli")
# An installed program has its byte code beside it; a shell that forbids writing it would have it compiled at every start.
WITH_BYTECODE = {"PYTHONDONTWRITEBYTECODE": ""}


@dataclass(frozen=True)
class Row:
    """One line of the table: a command that is run once per round.

    Attributes:
        depends_on: what a repetition is not needed for as long as it stays the same.
        fresh: folders that are emptied before every run.
        prepare: makes what the command needs; not measured.
        passes: passes of every window through a network; None where there is no network.
        output, count: the folder that must hold `count` label maps afterwards.
    """

    part: str
    name: str
    command: list[str]
    depends_on: str
    environment: dict[str, str] = field(default_factory=dict)
    fresh: tuple[Path, ...] = ()
    prepare: Callable[[], None] = lambda: None
    passes: int | None = None
    output: Path | None = None
    count: int = 0


def main() -> None:
    begin()
    options = parse_options()
    machine = describe_machine()
    ledger = Ledger(options.work / "speed.json")
    rows = make_rows(options, hash_values(sorted(set(machine.items()) - {("date", machine["date"])})))
    if not options.table:
        for number in range(options.repeat):
            for row in rows:
                run_row(row, number, ledger, options.work)
    print(render(rows, ledger, machine))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="Hippocampus in nnU-Net v2 raw layout")
    parser.add_argument("--bundle", type=Path, nargs="+", default=[], help="bundles to predict with; one whose training "
                        "mirrored is measured with mirroring too")
    parser.add_argument("--nnunet", type=Path, default=REPOSITORY / "benchmarks/peers/.envs/nnunet",
                        help="environment made by peers/nnunet.sh")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "benchmarks/.work",
                        help="folder for results, logs and all that the programs write")
    parser.add_argument("--repeat", type=int, default=3, help="rounds; the table shows medians")
    parser.add_argument("--cases", type=int, default=20, help="cases to predict: the first of fold 0's validation cases")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--defaults-only", action="store_true", help="leave out nnU-Net with its processes fitted to the cores")
    parser.add_argument("--table", action="store_true", help="show what is there, run nothing")
    options = parser.parse_args()
    options.work = options.work.resolve()
    if "predict" in options.parts and not options.bundle:
        parser.error("predict needs --bundle FOLDER (autoseg fit -d Hippocampus -i DATA --minutes 5 makes one), "
                     "or leave it out: --parts plan_and_preprocess")
    return options


def make_rows(options: argparse.Namespace, machine: str) -> list[Row]:
    """The rows of all asked parts, in the order of the table."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    peer = NnUNet(options.nnunet, options.work / "nnunet", cores)
    files = [(path.name, path.stat().st_size) for path in sorted(options.data.glob("*Tr/*"))]
    dataset = hash_values(machine, files)
    if not options.table:
        peer.require()
    fits = (False,) if options.defaults_only else (False, True)
    rows: list[Row] = []
    if "plan_and_preprocess" in options.parts:
        rows += autoseg_plans(options, dataset) + [nnunet_plans(options, dataset, peer, fitted) for fitted in fits]
    if "predict" in options.parts:
        rows += [row for bundle in options.bundle for row in autoseg_predicts(options, dataset, bundle)]
        rows += [nnunet_predicts(options, dataset, peer, mirror, fitted) for mirror in (False, True) for fitted in fits]
    return rows


def autoseg_plans(options: argparse.Namespace, dataset: str) -> list[Row]:
    """autoseg into an empty folder, and once more into a folder where all is done."""
    def command(root: Path) -> list[str]:
        return [*AUTOSEG, "plan_and_preprocess", "-d", "Hippocampus", "-i", str(options.data.resolve()), "--root", str(root)]

    def prepare() -> None:
        if not (again / "Hippocampus" / "last.json").exists():
            measure(command(again), log=options.work / "logs" / "prepare.log", folder=REPOSITORY)

    cold, again = options.work / "autoseg_cold", options.work / f"autoseg_again_{source_digest()}"
    depends_on = hash_values(dataset, source_digest())
    return [Row("plan_and_preprocess", "autoseg", command(cold), depends_on, fresh=(cold,)),
            Row("plan_and_preprocess", "autoseg, again", command(again), depends_on, prepare=prepare)]


def nnunet_plans(options: argparse.Namespace, dataset: str, peer: NnUNet, fitted: bool) -> Row:
    """nnU-Net into an empty folder."""
    folder = options.work / "nnunet_cold"
    return Row("plan_and_preprocess", nnunet_name(fitted, f"{peer.processes} processes"),
               peer.plan_and_preprocess(fitted=fitted), dataset, peer.environment(folder), fresh=(folder,),
               prepare=lambda: peer.link_dataset(options.data))


def autoseg_predicts(options: argparse.Namespace, dataset: str, bundle: Path) -> list[Row]:
    """autoseg without mirroring and, where the bundle's training mirrored, with it."""
    described = read_json(bundle / "bundle.json")
    plan = read_json(bundle / "plan.json")
    member = described["members"][0]["configuration"]
    axes = len(plan["configurations"][member]["inference"]["mirror_axes"])
    depends_on = hash_values(dataset, options.cases, source_digest(), described)
    source, rows = options.work / "cases", []
    for mirror in (False, True) if axes else (False,):
        output = options.work / "autoseg_predictions"
        name = f"autoseg, plan {plan['name']}" + (", mirroring" if mirror else "")
        command = [*AUTOSEG, "predict", "-b", str(bundle.resolve()), "-i", str(source), "-o", str(output),
                   "--tta", "mirror" if mirror else "none"]
        rows.append(Row("predict", name, command, depends_on, fresh=(output,), prepare=lambda: link_cases(options, source),
                        passes=len(described["members"]) * (2**axes if mirror else 1), output=output, count=options.cases))
    return rows


def nnunet_predicts(options: argparse.Namespace, dataset: str, peer: NnUNet, mirror: bool, fitted: bool) -> Row:
    """nnU-Net with fresh weights, without or with its eight mirrorings."""
    def prepare() -> None:
        link_cases(options, source)
        peer.link_dataset(options.data)
        peer.make_model()

    source, output = options.work / "cases", options.work / "nnunet_predictions"
    name = nnunet_name(fitted, "1 + 1 processes") + (", mirroring" if mirror else "")
    return Row("predict", name, peer.predict(source, output, mirror=mirror, fitted=fitted),
               hash_values(dataset, options.cases), peer.environment(peer.work / "planned"), fresh=(output,), prepare=prepare,
               passes=8 if mirror else 1, output=output, count=options.cases)


def nnunet_name(fitted: bool, processes: str) -> str:
    return "nnU-Net 2.8.1, " + (processes if fitted else "as typed")


def link_cases(options: argparse.Namespace, folder: Path) -> None:
    """Fills `folder` with links to the images of the first validation cases of fold 0."""
    from autoseg.io.dataset import scan
    from autoseg.io.specs import load_spec
    from autoseg.planning.splits import make_folds
    from autoseg.tasks import load_task

    spec = load_spec("Hippocampus")
    units = load_task(spec.task).index(spec, scan(spec, options.data).cases)
    images = {unit.id: paths for unit in units for paths in unit.cases[0].inputs.values()}
    wanted = make_folds(units)[0].validation[:options.cases]
    if len(wanted) < options.cases:
        raise SystemExit(f"fold 0 has {len(wanted)} validation cases, fewer than --cases {options.cases}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in wanted:
        for channel, path in enumerate(images[name]):
            (folder / f"{name}_{channel:04d}.nii.gz").symlink_to(path.resolve())


def run_row(row: Row, number: int, ledger: Ledger, work: Path) -> None:
    """Runs a row's command once and records it; nothing where this round of it is recorded."""
    key = row_key(row, number)
    if ledger.has(key, row.depends_on):
        return
    row.prepare()
    for folder in row.fresh:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    usage = measure(row.command, log=work / "logs" / f"{key.replace(' ', '_').replace('/', '-')}.log",
                    environment={**WITH_BYTECODE, **row.environment}, folder=REPOSITORY)
    written = len(list(row.output.rglob("*.nii.gz"))) if row.output else 0
    if written != row.count:
        raise SystemExit(f"{key}: {written} label maps in {row.output}, expected {row.count}; nothing was recorded")
    ledger.add(key, row.depends_on, asdict(usage))
    print(f"{key}: {usage.wall_seconds:.1f} s", file=sys.stderr, flush=True)


def row_key(row: Row, number: int) -> str:
    return f"{row.part}/{row.name}/{number}"


def recorded(row: Row, ledger: Ledger) -> list[Usage]:
    """All recorded rounds of a row that were measured with what is there now."""
    usages, number = [], 0
    while ledger.has(row_key(row, number), row.depends_on):
        usages.append(Usage(**(ledger.result(row_key(row, number)) or {})))
        number += 1
    return usages


def render(rows: list[Row], ledger: Ledger, machine: dict[str, str]) -> str:
    """The machine and the table of medians; the ratio is to the first row of the part."""
    lines: list[list[str]] = []
    first: dict[str, float] = {}
    for row in rows:
        usages = recorded(row, ledger)
        if not usages:
            lines.append([row.part, row.name, passes_of(row), "", "", "", "", "not measured", ""])
            continue
        middle = median(usages)
        first.setdefault(row.part, middle.wall_seconds)
        lines.append([row.part, row.name, passes_of(row), f"{middle.wall_seconds:.1f}",
                      f"{middle.wall_seconds / first[row.part]:.2f}", f"{middle.cpu_seconds:.1f}",
                      f"{middle.peak_bytes / 1e9:.2f}", str(len(usages)), f"{middle.load_before:.1f}"])
    header = ["what", "program", "passes", "wall s", "ratio", "CPU s", "peak GB", "runs", "load before"]
    about = ", ".join(f"{name} {value}" for name, value in machine.items())
    return f"{about}\n\n{markdown(header, lines)}"


def passes_of(row: Row) -> str:
    return "" if row.passes is None else str(row.passes)


if __name__ == "__main__":
    main()
