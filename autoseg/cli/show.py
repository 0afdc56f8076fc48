"""Results as text for people."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autoseg.cli.screen import Screen, table

if TYPE_CHECKING:
    from autoseg.core.plan import Plan
    from autoseg.core.report import Estimate, Report
    from autoseg.core.spec import DatasetSpec
    from autoseg.core.task import Task
    from autoseg.stages.check import Understanding
    from autoseg.stages.predict import PredictionManifest

Seed = Annotated[int, typer.Option("--seed", min=0, help="Of weights and batches; the same seed gives the same CPU run.")]


def datasets(screen: Screen, specs: Sequence[DatasetSpec]) -> None:
    """One line per specification, then its layouts."""
    for spec in specs:
        screen.say(f"{spec.name}  ({spec.task})  {spec.description}\n"
                   f"  source   {spec.source}\n  licence  {spec.licence}\n"
                   f"  layouts  {', '.join(layout.name for layout in spec.layouts)}")


def understanding(screen: Screen, understood: Understanding) -> None:
    """What was understood, then the problems."""
    for line in understood.lines:
        screen.say(line)
    for line in understood.ignored[:10]:
        screen.say(f"not used   {line}")
    if len(understood.ignored) > 10:
        screen.say(f"not used   and {len(understood.ignored) - 10} more files")
    for warning in understood.warnings:
        screen.say(f"warning    {warning.unit}: {warning.message} [{warning.code}]")
    for problem in understood.problems:
        screen.say(f"PROBLEM    {problem.unit}: {problem.message} [{problem.code}]")
    screen.say(f"\n{len(understood.problems)} problem(s)" if understood.problems else "\nno problems")


def plan(screen: Screen, made: Plan) -> None:
    """The main values of every configuration."""
    budget = f"{made.budget.target}, {made.budget.memory_bytes / 1e9:.1f} GB"
    if made.budget.minutes is not None:
        budget += f", {made.budget.minutes:g} minutes a fold"
    screen.say(f"plan '{made.name}' of {made.dataset} for {budget}")
    rows = []
    for name, c in made.configurations.items():
        spacing = " x ".join("own" if s is None else f"{s:.3g}" for s in c.spacing_mm)
        rows.append([name, spacing, " x ".join(map(str, c.patch_size)), str(c.batch_size),
                     " ".join(map(str, c.network.features)), str(c.optimization.iterations),
                     f"{(c.predicted_peak_bytes or 0) / 1e9:.1f} GB"])
    screen.say(table(["configuration", "spacing mm", "patch", "batch", "features", "iterations", "memory"], rows))
    timed = [[name, *(duration(s) for s in (c.predicted_seconds.preprocess, c.predicted_seconds.training,
                                            c.predicted_seconds.validation, c.predicted_seconds.case))]
             for name, c in made.configurations.items() if c.predicted_seconds is not None]
    if timed:
        screen.say(table(["predicted time", "preprocess", "training a fold", "validating it", "predicting a case"], timed))


def duration(seconds: float) -> str:
    """`1.3 s`, `4 min 10 s` or `2 h 5 min`."""
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def explanation(screen: Screen, made: Plan) -> None:
    """Every planned value: from what, why, by which rule."""
    from autoseg.planning.explain import explain

    for row in explain(made):
        screen.say(f"{row.path} = {row.value}\n    from    {row.inputs}\n    because {row.because}\n    source  {row.source}")


def training(screen: Screen, task: Task, reports: Mapping[str, Report], bundle: Path, page: Path) -> None:
    """The headline score and its parts per fold, the bundle and the page."""
    metric = task.headline.rpartition(".")[2]
    rows = []
    for fold, report in reports.items():
        for name, estimate in report.summary.items():
            if name.endswith(f".{metric}"):
                rows.append([f"fold {fold}  {name}", *numbers(estimate)])
    if rows:
        screen.say(table(["score", "mean", "95 % interval", "median", "cases"], rows))
    screen.say(f"\nbundle  {bundle}\nreport  {page}")


def report(screen: Screen, scored: Report) -> None:
    """The summary as a table, then the failures."""
    rows = [[name, *numbers(estimate)] for name, estimate in scored.summary.items()]
    screen.say(table(["score", "mean", "95 % interval", "median", "cases"], rows))
    screen.say("Both masks empty: not counted. One mask empty: Dice, IoU and surface Dice 0, HD95 not counted.")
    for failure in scored.failures:
        screen.say(f"FAILED  {failure.unit}: {failure.message} [{failure.code}]")


def predictions(screen: Screen, manifest: PredictionManifest, output: Path) -> None:
    """How many cases are there, and those that failed."""
    screen.say(f"{len(manifest.finished)} case(s) predicted in {output}")
    for failure in manifest.failures:
        screen.say(f"FAILED  {failure.unit}: {failure.message} [{failure.code}]")


def numbers(estimate: Estimate) -> list[str]:
    """Mean, interval, median and count as text."""
    if math.isnan(estimate.mean):
        return ["undefined", "", "", str(estimate.count)]
    return [f"{estimate.mean:.4f}", f"{estimate.lower:.4f} to {estimate.upper:.4f}", f"{estimate.median:.4f}",
            str(estimate.count)]
