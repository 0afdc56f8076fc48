"""Results as text for people."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autoseg.cli.screen import Screen, table
from autoseg.reporting.numbers import counted, has_interval

if TYPE_CHECKING:
    from autoseg.core.bundle import Bundle
    from autoseg.core.networks import Classifier, Network, Registrar
    from autoseg.core.plan import Plan
    from autoseg.core.report import Estimate, Failure, Report, Scores
    from autoseg.core.task import Task
    from autoseg.io.initial import Proposal
    from autoseg.stages.check import Understanding
    from autoseg.stages.predict import PredictionManifest

# Enough to see what they have in common; of references without a prediction there may be hundreds.
MOST_SHOWN = 10
Seed = Annotated[int, typer.Option("--seed", min=0, help="Of weights and batches; the same seed gives the same CPU run.")]


def proposal(screen: Screen, proposed: Proposal, text: str, path: Path, folder: Path) -> None:
    """What was found, where it was written, how many places want a look, and the next command."""
    for line in (f"dataset     {proposed.spec.name}", *proposed.found):
        screen.say(line)
    screen.say(f"\nwritten     {path}, {counted(text.count('# ?') - 1, 'place')} marked '# ?' want your knowledge\n"
               f"next: autoseg check -d {path} -i {folder}")


def understanding(screen: Screen, understood: Understanding) -> None:
    """What was understood, then the problems."""
    for line in understood.lines:
        screen.say(line)
    for reason, names in _by_reason(understood.ignored).items():
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        screen.say(f"not used   {', '.join(names[:3])}{more}: {reason}")
    for warning in understood.warnings:
        screen.say(f"warning    {warning.unit}: {warning.message} [{warning.code}]")
    for problem in understood.problems:
        screen.say(f"PROBLEM    {problem.unit}: {problem.message} [{problem.code}]")
    screen.say(f"\n{len(understood.problems)} problem(s)" if understood.problems else "\nno problems")


def by_case(failures: Sequence[Failure]) -> list[dict[str, str]]:
    """Problems of a dataset as `--json` lists them."""
    return [{"case": failure.unit, "code": failure.code, "message": failure.message} for failure in failures]


def _by_reason(ignored: Sequence[str]) -> dict[str, list[str]]:
    """Names of files by the reason why they are not used; every line is `<name>: <reason>`."""
    names: dict[str, list[str]] = {}
    for name, _, reason in (line.partition(": ") for line in ignored):
        names.setdefault(reason, []).append(name)
    return names


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
                     _network(c.network), str(c.optimization.iterations),
                     "fits" if c.predicted_peak_bytes is None else f"{c.predicted_peak_bytes / 1e9:.1f} GB"])
    screen.say(table(["configuration", "spacing mm", "patch", "batch", "features", "iterations", "memory"], rows))
    timed = [[name, *(duration(s) for s in (c.predicted_seconds.preprocess, c.predicted_seconds.training,
                                            c.predicted_seconds.validation, c.predicted_seconds.case))]
             for name, c in made.configurations.items() if c.predicted_seconds is not None]
    if timed:
        screen.say(table(["predicted time", "preprocess", "training a fold", "validating it", "predicting a case"], timed))


def _network(network: Network | Classifier | Registrar) -> str:
    """Features per stage, and of a network other than a U-Net its kind."""
    features = " ".join(map(str, network.features))
    return features if hasattr(network, "deep_supervision") else f"{network.kind} {features}"


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


def training(screen: Screen, task: Task, reports: Mapping[str, Report], bundle: Bundle, folder: Path, page: Path) -> None:
    """The headline score and its parts per fold, what was decided for prediction, the bundle's folder and the page."""
    metric = task.headline.rpartition(".")[2]
    rows = []
    for fold, report in reports.items():
        for name, estimate in report.summary.items():
            if name.endswith(f".{metric}"):
                rows.append([f"fold {fold}  {name}", *numbers(estimate)])
        rows += [[f"fold {fold}  {name}, per patient", *numbers(estimate)] for name, estimate in report.per_patient.items()
                 if name.endswith(f".{metric}")]
    if rows:
        screen.say(table(["score", "mean", "95 % interval", "median", "cases"], rows))
    for line in bundle.decisions.because:
        screen.say(f"decided  {line}")
    screen.say(f"\nbundle  {folder}\nreport  {page}")


def report(screen: Screen, scored: Report, notes: Sequence[str]) -> None:
    """The summary as a table, how it is to be read, then the failures."""
    rows = [[name, *numbers(estimate)] for name, estimate in scored.summary.items()]
    rows += [[f"{name}, per patient", *numbers(estimate)] for name, estimate in scored.per_patient.items()]
    screen.say(table(["score", "mean", "95 % interval", "median", "cases"], rows))
    for note in notes:
        screen.say(note)
    failures(screen, scored.failures)


def predictions(screen: Screen, manifest: PredictionManifest, output: Path) -> None:
    """How many cases are there, and those that failed."""
    screen.say(f"{len(manifest.finished)} case(s) predicted in {output}")
    failures(screen, manifest.failures)


def failures(screen: Screen, found: Sequence[Failure]) -> None:
    """A line for each failed case; of many with one code the first ones, and how many there are."""
    by_code: dict[str, list[Failure]] = {}
    for failure in found:
        by_code.setdefault(failure.code, []).append(failure)
    for code, alike in by_code.items():
        for failure in alike[:MOST_SHOWN]:
            screen.say(f"FAILED  {failure.unit}: {failure.message} [{code}]")
        if len(alike) > MOST_SHOWN:
            screen.say(f"FAILED  and {counted(len(alike) - MOST_SHOWN, 'more case')} [{code}]; --json lists them all")


def numbers(estimate: Estimate) -> list[str]:
    """Mean, interval, median and count as text."""
    if math.isnan(estimate.mean):
        return ["undefined", "", "", str(estimate.count)]
    interval = f"{estimate.lower:.4f} to {estimate.upper:.4f}" if has_interval(estimate) else "-"
    median = "-" if math.isnan(estimate.median) else f"{estimate.median:.4f}"  # a score of all units together has none
    return [f"{estimate.mean:.4f}", interval, median, str(estimate.count)]


def answer(screen: Screen, files: Sequence[Path], scores: Scores, seconds: float, page: Path) -> None:
    """What was written of one unit, and how it scores."""
    told = ([name, "-" if math.isnan(value) else f"{value:.4g}"] for name, value in scores.items())
    screen.say(table(["score", "value"], list(told)))
    screen.say(f"\n{seconds:.1f} s; written: " + ", ".join(str(path) for path in (*files, page)))
