"""Registration beside its baseline: labels unused and used, the network alone and with refinement, pairs without training.

    python -m benchmarks.registration --data FOLDER --part hippocampus --minutes 20
    python -m benchmarks.registration --data FOLDER --part fetal
    python -m benchmarks.registration --data FOLDER --part slices [--tried] [--ants benchmarks/peers/.envs/ants/bin/python]

`--data` holds the folders `Dataset004_Hippocampus`, `Dataset105_FetalBrainSB` and `reg_oasis_trt_2d`. Networks of `hippocampus`
are planned and trained for `--minutes` by `autoseg plan_and_preprocess` and `autoseg train -f 0`, which go on where they were
interrupted. Every pair is a row of the ledger `<work>/registration.json`: a run that was stopped measures only what is missing.
Seconds, and those of all threads together, are those of one pair in memory. `--ants` adds ANTs SyN from an environment of its own
(`benchmarks/peers/ants.sh`). Errors under warps that are known are measured by `benchmarks.known_warps`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from autoseg import pipeline
from autoseg.core.budget import Budget
from autoseg.core.case import Case, Unit
from autoseg.core.fingerprint import sum_fingerprints
from autoseg.core.plan import Configuration, Plan
from autoseg.core.progress import silent
from autoseg.core.report import Scores
from autoseg.core.spec import DatasetSpec
from autoseg.core.task import Context, Inputs, PlanRequest
from autoseg.io.atomic import hash_values
from autoseg.io.dataset import scan
from autoseg.io.images import read_label_map
from autoseg.io.specs import load_spec
from autoseg.stages.fingerprint import measure_unit
from autoseg.stages.plan import make_probe
from autoseg.stages.prepare import prepare_inputs, read_inputs
from autoseg.tasks.registration import TASK, recipes
from autoseg.tasks.registration.output import Registration
from autoseg.tasks.registration.score import label_scores
from autoseg.tasks.registration.spec import pair_unit
from autoseg.training.device import Stopwatch
from autoseg.workspace import Workspace, open_workspace
from benchmarks.ledger import REPOSITORY, Ledger, markdown, source_digest
from benchmarks.measure import begin, run_autoseg

# The issue's: 40 pairs of validation cases, seed 0.
PAIRS, SEED = 40, 0
# Weeks of gestation between the two images of a fetal pair.
WEEKS = 2
# The first slices of OASIS-TRT, by id: levels, affine stage and smoothness of pairs by themselves were chosen on them.
TRIED_SLICES = 7
SHOWN = ("mean.dice", "mean.hd95_mm", "landmarks.tre_mm", "field.end_point_error_mm", "inside.end_point_error_mm",
         "field.folded_percent", "field.sd_log_jacobian", "seconds", "processor_seconds")
Solve = Callable[[Inputs], Registration]
Part = Callable[[argparse.Namespace, Ledger], None]


def main() -> None:
    parser = parser_of_parts(__doc__, PARTS)
    parser.add_argument("--pairs", type=int, default=PAIRS, help="at most so many pairs")
    parser.add_argument("--ants", type=Path, help="Python of an environment with antspyx: its SyN registers the same pairs")
    parser.add_argument("--tried", action="store_true", help="of the slices those on which plans were tried, not the others")
    run_part(parser.parse_args(), PARTS, "registration.json")


def parser_of_parts(description: str | None, parts: Mapping[str, Part]) -> argparse.ArgumentParser:
    """The options of a benchmark of several parts, the first of which is the default."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data folders")
    parser.add_argument("--part", choices=list(parts), default=next(iter(parts)))
    parser.add_argument("--minutes", type=float, default=20.0, help="time for training steps")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "benchmarks/.work", help="folder for results and runs")
    parser.add_argument("--table", action="store_true", help="show what is there, run nothing")
    return parser


def run_part(options: argparse.Namespace, parts: Mapping[str, Part], ledger_name: str) -> None:
    """Measures what is missing of a part, and prints the ledger."""
    begin()
    ledger = Ledger(options.work / ledger_name)
    if not options.table:
        parts[options.part](options, ledger)
    print(render(ledger))


def hippocampus(options: argparse.Namespace, ledger: Ledger) -> None:
    """Fold 0, labels unused and used: the network, the network and refinement; pairs by themselves, and the baseline."""
    data = options.data / "Dataset004_Hippocampus"
    for name, uses in (("labels unused", False), ("labels used", True)):
        spec = options.work / f"HippocampusPairs_{'used' if uses else 'unused'}.yaml"
        spec.parent.mkdir(parents=True, exist_ok=True)
        spec.write_text(_specification_text("HippocampusPairs", spec.stem, f"  use_labels: {str(uses).lower()}\n"))
        workspace, plan, predictor = trained(spec, data, options.work, options.minutes)
        held = [workspace.units_by_id[unit] for unit in workspace.folds()[0].validation]
        cases = sorted({case.id: case for unit in held for case in unit.cases}.values(), key=lambda case: case.id)
        units = drawn_pairs(cases, options.pairs)
        configuration = predictor.configuration
        for label, steps in (("network", 0), ("network and refinement", recipes.REFINE_ITERATIONS)):
            chosen = replace(configuration, task_values=configuration.task_values | {"refine_iterations": steps})
            measure(ledger, f"hippocampus, {name}, {label}", workspace.spec, units,
                    solver(plan, chosen, predictor._networks), extra=hash_values(chosen, predictor.bundle.digest))
        if not uses:
            without_training(options, ledger, "hippocampus", workspace.spec, units)


def trained(spec: Path, data: Path, work: Path, minutes: float) -> tuple[Workspace, Plan, Any]:
    """Workspace, plan and predictor of fold 0, planned and trained by the command line, or as they were left there."""
    root, name = work / "registration_home", f"{minutes:g}min"
    run_autoseg(["plan_and_preprocess", "-d", str(spec), "--root", str(root), "-i", str(data.resolve()),
                 "--minutes", f"{minutes:g}"])
    run_autoseg(["train", "-d", spec.stem, "--root", str(root), "--plan", name, "-f", "0"])
    workspace = open_workspace(root, spec.stem, None, silent)
    return workspace, workspace.plan(name), pipeline.load_predictor(workspace.layout.bundle(name))


def fetal(options: argparse.Namespace, ledger: Ledger) -> None:
    """Weeks two apart, each pair by itself."""
    spec = load_spec("FetalBrainPairs")
    cases = {case.id: case for case in scan(spec, options.data / "Dataset105_FetalBrainSB").cases}
    weeks = {int(name.split("GA")[1][:2]): case for name, case in cases.items()}
    units = [pair_unit(weeks[week], weeks[week + WEEKS]) for week in sorted(weeks) if week + WEEKS in weeks]
    without_training(options, ledger, "fetal", spec, units[:options.pairs])


def slices(options: argparse.Namespace, ledger: Ledger) -> None:
    """Slices of any two of eight brains, each pair by itself; or of the other seven, on which plans were tried."""
    spec = load_spec("OasisTrt2D")
    cases = sorted(scan(spec, options.data / "reg_oasis_trt_2d").cases, key=lambda case: case.id)
    cases, name = (cases[:TRIED_SLICES], "tried slices") if options.tried else (cases[TRIED_SLICES:], "slices")
    units = drawn_pairs(cases, options.pairs)
    without_training(options, ledger, name, spec, units)
    if options.ants is not None:
        compare_with_ants(options.ants, ledger, name, spec, units)


PARTS = {"hippocampus": hippocampus, "fetal": fetal, "slices": slices}


def drawn_pairs(cases: Sequence[Case], count: int) -> list[Unit]:
    """Random ordered pairs of cases, by the seed, none twice; all where there are fewer."""
    ordered = list(permutations(cases, 2))
    chosen = np.random.default_rng(SEED).permutation(len(ordered))[:count]
    return [pair_unit(*ordered[place]) for place in chosen]


def without_training(options: argparse.Namespace, ledger: Ledger, name: str, spec: DatasetSpec, units: Sequence[Unit]) -> None:
    """Every pair by a plan of its dataset that trains nothing, and by the baseline."""
    spec = replace(spec, options={**spec.options, "method": "pair"})
    plan = planned(spec, units, options.work)
    measure(ledger, f"{name}, pair by itself", spec, units, solver(plan, plan.configurations["pairs"], []),
            extra=hash_values(plan))
    compare_with_baseline(ledger, name, spec, units)


def planned(spec: DatasetSpec, units: Sequence[Unit], work: Path) -> Plan:
    """The plan of a dataset of these pairs on a CPU."""
    singles = {case.id: Unit(case.id, (case,), case.group) for unit in units for case in unit.cases}
    fingerprint = sum_fingerprints([measure_unit(TASK, spec, unit) for unit in singles.values()], 1)
    budget, request = Budget("cpu", 8 * 10**9, threads=2), PlanRequest("benchmark")
    return TASK.make_plan(spec, fingerprint, budget, request, make_probe(TASK, spec, units, fingerprint, request, budget, work))


def solver(plan: Plan, configuration: Configuration, networks: Sequence[Any]) -> Solve:
    """What registers a pair of images by a configuration."""
    def solve(inputs: Inputs) -> Registration:
        arrays, record = prepare_inputs(inputs, plan, configuration)
        return TASK.restore(TASK.infer(networks, arrays, configuration, Context()), record, configuration, Context())

    return solve


def compare_with_baseline(ledger: Ledger, name: str, spec: DatasetSpec, units: Sequence[Unit]) -> None:
    samples = ((unit, read_inputs(unit, spec), None) for unit in units)
    arrays = TASK.fit_baseline(samples, spec, np.random.default_rng(SEED))
    measure(ledger, f"{name}, SimpleITK affine and demons", spec, units,
            lambda inputs: TASK.apply_baseline(arrays, inputs, spec))


def compare_with_ants(python: Path, ledger: Ledger, name: str, spec: DatasetSpec, units: Sequence[Unit]) -> None:
    """Dice and HD95 of labels that ANTs SyN warps, as antspyx has it by default; seconds are its own."""
    script = REPOSITORY / "benchmarks/peers/ants_register.py"
    for unit in units:
        key, inputs = f"{name}, ANTs SyN: {unit.id}", hash_values(source_digest(), spec, script.read_text())
        if ledger.has(key, inputs):
            continue
        fixed, moving = unit.cases
        with TemporaryDirectory() as folder:
            warped = Path(folder) / "warped.nii.gz"
            command = [str(python), str(script), *(str(path) for path in (
                fixed.inputs["image"][0], moving.inputs["image"][0], moving.targets["label"], warped))]
            seconds = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])
            target = TASK.read_target(unit, spec)
            label = read_label_map(warped, reference=target.fixed.geometry)
        scores = label_scores(label.voxels[0], target, spec, target.fixed.geometry)
        ledger.add(key, inputs, {"scores": {**scores, "seconds": seconds}})


def measure(ledger: Ledger, name: str, spec: DatasetSpec, units: Sequence[Unit], solve: Solve, *, extra: str = "") -> None:
    """Scores and seconds of every pair; those that are there already are not measured again."""
    ledger.keep_only(f"{name}: ", [f"{name}: {unit.id}" for unit in units])
    for place, unit in enumerate(units):
        key, inputs = f"{name}: {unit.id}", hash_values(source_digest(), spec, extra)
        if ledger.has(key, inputs):
            continue
        images = read_inputs(unit, spec)
        found, seconds = timed(solve, images)
        scores = TASK.score(found, TASK.read_target(unit, spec), spec, next(iter(images.values())))
        ledger.add(key, inputs, {"scores": {**scores, **seconds}})
        print(f"{place + 1}/{len(units)} {key}", file=sys.stderr, flush=True)


def timed(solve: Solve, images: Inputs) -> tuple[Registration, Scores]:
    """What was found; seconds, and those of all threads together, which other jobs on the machine change little."""
    watch, processor = Stopwatch(), time.process_time()
    found = solve(images)
    return found, {"seconds": watch.seconds(), "processor_seconds": time.process_time() - processor}


def _specification_text(name: str, called: str, options: str) -> str:
    from autoseg.io.specs import known_specs

    text = known_specs()[name].read_text(encoding="utf-8")
    return text.replace(f"name: {name}", f"name: {called}", 1).rstrip() + "\n" + options


def render(ledger: Ledger) -> str:
    """Means over pairs and their standard errors, a row per method; of seconds the median."""
    rows: dict[str, list[Scores]] = {}
    for key, entry in ledger.entries.items():
        rows.setdefault(key.rpartition(":")[0], []).append(entry["result"]["scores"])

    def told(scores: Sequence[Scores], name: str) -> str:
        values = np.array([one[name] for one in scores if one.get(name) is not None], float)
        values = values[np.isfinite(values)]
        if not len(values):
            return "-"
        if name.endswith("seconds"):
            return f"{np.median(values):.3g}"
        spread = f" ± {values.std(ddof=1) / len(values)**0.5:.2g}" if len(values) > 1 else ""
        return f"{values.mean():.4g}{spread}"

    return markdown(["method", "pairs", *SHOWN], [[name, str(len(scores)), *(told(scores, shown) for shown in SHOWN)]
                                                  for name, scores in rows.items()])


if __name__ == "__main__":
    main()
