"""Writes the report page: scores beside the baseline, pictures of the worst cases, curves, the plan and its reasons."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup

from autoseg.core.case import Unit
from autoseg.core.errors import UsageError
from autoseg.core.fingerprint import Fingerprint
from autoseg.core.layout import Layout
from autoseg.core.plan import Plan
from autoseg.core.report import Record, Report
from autoseg.core.spec import DatasetSpec
from autoseg.core.task import Task
from autoseg.io.atomic import write_text
from autoseg.metrics.bootstrap import bootstrap_mean
from autoseg.reporting.curves import dot_plot, line_chart
from autoseg.reporting.page import CasePictures, CaseRow, Fact, HeadlineRow, ReportPage, plan_rows, render
from autoseg.stages.prepare import read_inputs
from autoseg.stages.select import read_validation
from autoseg.stages.trained import Trained
from autoseg.training.log import read_metrics

# Cases with pictures: the worst ones are what a reader must see, and three pictures of 100 kB each keep the page small.
PICTURED_CASES = 6
# Measures that stand in the headline table where a task has them, in this order; volumes are in the table of cases.
LEADING_METRICS = ("dice", "iou", "surface_dice", "hd95_mm")


@dataclass(frozen=True)
class Results:
    """All validation records of a plan, and of the baseline on the same cases.

    Attributes:
        runs: finished runs; a unit has one record per configuration.
    """

    runs: Sequence[Trained]
    records: tuple[Record, ...]
    baseline: Mapping[str, Record]


def run_report(task: Task, spec: DatasetSpec, plan: Plan, fingerprint: Fingerprint, units: Mapping[str, Unit],
               runs: Sequence[Trained], baseline: Report | None, layout: Layout,
               provenance: Mapping[str, str]) -> Path:
    """Path of the page; one file that needs no network.

    Raises:
        UsageError: nothing has been trained yet.
    """
    if not runs:
        raise UsageError(f"plan {plan.name!r} of {spec.name!r} has no finished training run to report",
                         hint=f"autoseg train -d {spec.name}")
    records = tuple(record for run in runs for record in run.report.records)
    cheap = {record.unit: record for record in baseline.records} if baseline else {}
    results = Results(runs, records, cheap)
    columns = tuple(column for column in _columns(task, records) if column != task.headline)
    page = ReportPage(
        title=f"{spec.name}: {spec.task}",
        subtitle=f"Plan '{plan.name}', {', '.join(f'{run.configuration} fold {run.fold}' for run in runs)}; every scored "
                 "case was predicted by a network that did not see it.",
        highlights=_highlights(task, plan, results),
        dataset=_dataset_facts(spec, fingerprint),
        headline=_headline(task, results, np.random.default_rng(plan.seed)),
        headline_name=task.headline,
        case_columns=columns,
        cases=tuple(CaseRow(r.unit, r.scores.get(task.headline, math.nan),
                            tuple(r.scores.get(column, math.nan) for column in columns)) for r in records),
        pictures=_pictures(task, spec, units, results),
        charts=_charts(task, results),
        plan=plan_rows(plan),
        notes=("A label that neither prediction nor reference contains has no score and is not counted. Where only one of "
               "them contains it, overlaps count as 0; distances are then infinite and left out of the means, so read them "
               "beside the overlaps.",
               "Intervals are 95 % bootstrap intervals of the mean over cases."),
        provenance=tuple(Fact(name, value) for name, value in provenance.items()))
    write_text(layout.report, render(page))
    return layout.report


def _highlights(task: Task, plan: Plan, results: Results) -> tuple[Fact, ...]:
    score = Fact(task.headline, "none", "the model on all data has no validation cases")
    if results.records:
        estimate = task.summarise(results.records, np.random.default_rng(plan.seed))[task.headline]
        score = Fact(task.headline, f"{estimate.mean:.3f}",
                     f"95 % interval {estimate.lower:.3f} to {estimate.upper:.3f}, {estimate.count} cases")
    iterations = sum(plan.configuration(run.configuration).optimization.iterations for run in results.runs)
    minutes = "by dataset size" if plan.budget.minutes is None else f"{plan.budget.minutes:g} min a fold"
    return (score,
            Fact("training steps", str(iterations), minutes),
            Fact("networks", str(len(results.runs)), f"on {plan.budget.target}, {plan.budget.device}"))


def _dataset_facts(spec: DatasetSpec, fingerprint: Fingerprint) -> tuple[Fact, ...]:
    shape = np.median(fingerprint.shapes_after_crop, axis=0)
    spacing = np.median(fingerprint.spacings_mm, axis=0)
    return (Fact("description", spec.description), Fact("cases", str(fingerprint.case_count)),
            Fact("channels", ", ".join(channel.name for entry in spec.inputs for channel in entry.channels)),
            Fact("labels", ", ".join(f"{label.value} {label.name}" for label in spec.labels)),
            Fact("median shape", " x ".join(f"{size:g}" for size in shape), "voxels, z y x, after cropping"),
            Fact("median spacing", " x ".join(f"{size:.3g}" for size in spacing), "mm, z y x"),
            Fact("licence", spec.licence), Fact("source", spec.source))


def _metrics(task: Task, records: Sequence[Record]) -> tuple[list[str], list[str]]:
    """Names of the parts (labels) and of the measures that scores consist of, the headline's part first."""
    names = list(records[0].scores) if records else []
    head = task.headline.rpartition(".")[0]
    parts = dict.fromkeys([head, *(name.rpartition(".")[0] for name in names)])
    found = dict.fromkeys(name.rpartition(".")[2] for name in names)
    leading = [metric for metric in LEADING_METRICS if metric in found]
    return list(parts), leading or list(found)


def _columns(task: Task, records: Sequence[Record]) -> tuple[str, ...]:
    parts, metrics = _metrics(task, records)
    present = records[0].scores if records else {}
    return tuple(f"{part}.{metric}" for part in parts for metric in metrics if f"{part}.{metric}" in present)


def _headline(task: Task, results: Results, rng: np.random.Generator) -> tuple[HeadlineRow, ...]:
    model = task.summarise(results.records, rng) if results.records else {}
    cheap = task.summarise(list(results.baseline.values()), rng) if results.baseline else {}
    rows = []
    for column in _columns(task, results.records):
        part, _, metric = column.rpartition(".")
        paired = [record.scores.get(column, math.nan) - _score_of(results.baseline.get(record.unit), column)
                  for record in results.records]
        difference = bootstrap_mean([value if math.isfinite(value) else math.nan for value in paired], rng)
        rows.append(HeadlineRow(part, metric, model[column], cheap.get(column), difference if cheap else None))
    return tuple(rows)


def _score_of(record: Record | None, name: str) -> float:
    return math.nan if record is None else record.scores.get(name, math.nan)


def _charts(task: Task, results: Results) -> tuple[Markup, ...]:
    charts = []
    for run in results.runs:
        rows = [row for row in read_metrics(run.folder / "metrics.jsonl") if "iteration" in row]
        losses = {name: name for name in (rows[0] if rows else {})
                  if name not in ("epoch", "iteration", "seconds", "learning_rate")}
        charts.append(line_chart(rows, x="iteration", lines=losses, title=f"Loss, {run.configuration} fold {run.fold}",
                                 x_label="iteration", y_label="mean over an epoch"))
        charts.append(line_chart(rows, x="iteration", lines={"learning_rate": "learning rate"},
                                 title=f"Learning rate, {run.configuration} fold {run.fold}", x_label="iteration",
                                 y_label="learning rate"))
    scores = {"model": {r.unit: r.scores.get(task.headline, math.nan) for r in results.records}}
    if results.baseline:
        scores["baseline"] = {unit: _score_of(record, task.headline) for unit, record in results.baseline.items()}
    charts.append(dot_plot(scores, title=f"{task.headline} per case", x_label=task.headline))
    return tuple(charts)


def _pictures(task: Task, spec: DatasetSpec, units: Mapping[str, Unit], results: Results) -> tuple[CasePictures, ...]:
    scored = [(record.scores.get(task.headline, math.nan), run, record) for run in results.runs
              for record in run.report.records]
    worst = sorted((entry for entry in scored if not math.isnan(entry[0])), key=lambda entry: entry[0])[:PICTURED_CASES]
    pictures = []
    for value, run, record in worst:
        unit = units[record.unit]
        image = next(iter(read_inputs(unit, spec).values()))
        drawn = task.figures(read_validation(task, spec, run, unit), task.read_target(unit, spec), image, spec)
        pictures.append(CasePictures(unit.id, drawn, f"{task.headline} {value:.3f}, fold {run.fold}"))
    return tuple(pictures)
