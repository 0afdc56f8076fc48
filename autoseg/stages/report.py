"""Writes the report page: scores beside the baseline, pictures of the worst cases, curves, the plan and its reasons."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from markupsafe import Markup

from autoseg.core.case import Unit
from autoseg.core.errors import AutosegError, UsageError
from autoseg.core.fingerprint import Fingerprint
from autoseg.core.layout import Layout
from autoseg.core.plan import Plan
from autoseg.core.report import Estimate, Report
from autoseg.core.spec import DatasetSpec
from autoseg.core.task import Task
from autoseg.io.atomic import write_text
from autoseg.io.images import states_spacing
from autoseg.metrics.patients import has_groups
from autoseg.planning.air import cropped_as_planned
from autoseg.reporting.curves import dot_plot, line_chart
from autoseg.reporting.numbers import counted, has_interval, score
from autoseg.reporting.page import CasePictures, Fact, ReportPage, plan_rows, render
from autoseg.stages.prepare import read_inputs
from autoseg.stages.refine import read_validation
from autoseg.stages.report_tables import Scored, case_columns, case_rows, headline_rows, metric_of, patient_rows, score_of
from autoseg.stages.select import best_configuration
from autoseg.stages.summary import per_patient
from autoseg.stages.trained import Trained, behind_baseline, mean_in, summary_of
from autoseg.stages.verbs import illustrations
from autoseg.training.log import read_metrics

# The worst cases are what a reader must see, the median and the best one say how typical they are.
WORST_CASES = 4
# A flat case is one picture; so many fill some rows of the page.
WORST_FLAT_CASES = 16
# Parts (labels) that have a row of their own in the plot of scores; more are in the table.
PLOTTED_PARTS = 64


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
    best = best_configuration(task, runs)
    chosen = [run for run in runs if run.configuration == best]
    records = tuple(record for run in chosen for record in run.report.records)
    scored = Scored(task, records, {record.unit: record for record in baseline.records} if baseline else {})
    main, further = headline_rows(scored, np.random.default_rng(plan.seed))
    page = ReportPage(
        title=f"{spec.name}: {spec.task}",
        subtitle=f"Plan '{plan.name}', {best}, fold {', '.join(run.fold for run in chosen)}; every scored case was predicted "
                 "by a network that did not see it.",
        highlights=_highlights(plan, scored, runs),
        dataset=_dataset_facts(task, spec, cropped_as_planned(fingerprint, plan.inputs), units),
        headline=main,
        further=further,
        headline_name=task.case_headline,
        case_columns=tuple(case_columns(scored)),
        cases=case_rows(scored),
        patients=patient_rows(scored),
        pictures=(*_pictures(task, spec, units, chosen), *_illustrations(task, spec, units, chosen)),
        charts=(*_curves(runs), *_score_charts(scored),
                *(Markup(chart) for chart in task.charts(records, tuple(scored.baseline.values()), spec))),
        plan=plan_rows(plan),
        notes=(*task.notes(spec), *size_notes(scored, units, spec), *report_notes(scored, best, runs)),
        provenance=tuple(Fact(name, value) for name, value in provenance.items()))
    write_text(layout.report, render(page))
    return layout.report


def size_notes(scored: Scored, units: Mapping[str, Unit], spec: DatasetSpec) -> tuple[str, ...]:
    """That distances and volumes are of voxels, where the files of scored cases do not say how large their voxels are."""
    if not any(name.endswith(("_mm", "_ml")) for record in scored.records for name in record.scores):
        return ()
    unknown = sum(not _has_size(units[record.unit], spec) for record in scored.records)
    if not unknown:
        return ()
    return (f"The size of pixels is not known in {unknown:,} of {counted(len(scored.records), 'case')}: their distances (mm) and "
            "volumes (ml) take a pixel as 1 mm.",)


def _has_size(unit: Unit, spec: DatasetSpec) -> bool:
    """Whether the image that the unit is scored on says its spacing: that of the first case, by any file of its channels."""
    role = next(entry.role for entry in spec.inputs if entry.kind == "image")
    try:
        return any(states_spacing(path) for path in unit.cases[0].inputs[role])
    except AutosegError:
        return True  # a file that went away or was damaged after it was scored: nothing is claimed of it


def report_notes(scored: Scored, best: str, runs: Sequence[Trained]) -> tuple[str, ...]:
    """Whether the baseline keeps up, how intervals were made, what was odd in a run, and how other configurations score; the
    task's own notes come first."""
    behind = behind_baseline(scored.task, scored.records, scored.baseline.values())
    notes = [behind] if behind else []
    if has_groups(scored.records):
        patients = counted(len({record.patient for record in scored.records}), "patient")
        notes.append(f"{counted(len(scored.records), 'case')} of {patients}. Where no other source is named, 95 % intervals are "
                     "of a bootstrap, for which patients are drawn, each with all its cases. In the mean of patients every "
                     "patient counts once, with the mean of its cases.")
    else:
        notes.append("Where no other source is named, 95 % intervals are of a bootstrap over cases.")
    notes += [f"Fold {run.fold} of {run.configuration}: {note}." for run in runs for note in run.report.notes.values()]
    for name in sorted({run.configuration for run in runs} - {best}):
        records = [record for run in runs if run.configuration == name for record in run.report.records]
        found = mean_in(summary_of(scored.task, records), scored.task.headline)
        notes.append(f"Configuration {name}: {scored.task.headline} {score(found)} on "
                     f"{len(records)} cases; {best} is shown because it scores higher.")
    return tuple(notes)


def _highlights(plan: Plan, scored: Scored, runs: Sequence[Trained]) -> tuple[Fact, ...]:
    name = scored.task.headline
    found = [Fact(name, "none", "the model on all data has no validation cases")]
    if scored.records:
        rng = np.random.default_rng(plan.seed)
        of_cases, of_patients = scored.task.summarise(scored.records, rng), per_patient(scored.task, scored.records, rng)
        found = [_estimate_fact(name, of_cases[name], "case")]
        found += [_estimate_fact(f"{name}, per patient", of_patients[name], "patient")] if name in of_patients else []
    iterations = sum(plan.configuration(run.configuration).optimization.iterations for run in runs)
    minutes = "by dataset size" if plan.budget.minutes is None else f"{plan.budget.minutes:g} min a fold"
    return (*found, Fact("training steps", f"{iterations:,}", minutes),
            Fact("networks", str(len(runs)), f"on {plan.budget.target}, {plan.budget.device}"))


def _estimate_fact(name: str, estimate: Estimate, unit: str) -> Fact:
    interval = f"95 % interval {score(estimate.lower)} to {score(estimate.upper)}, " if has_interval(estimate) else ""
    return Fact(name, score(estimate.mean), f"{interval}{counted(estimate.count, unit)}")


def _dataset_facts(task: Task, spec: DatasetSpec, fingerprint: Fingerprint, units: Mapping[str, Unit]) -> tuple[Fact, ...]:
    shape = np.median(fingerprint.shapes_after_crop, axis=0)
    spacing = np.median(fingerprint.spacings_mm, axis=0)
    patients = len({unit.group for unit in units.values()})
    return (Fact("description", spec.description),
            Fact("cases", f"{fingerprint.case_count:,}", "" if patients == len(units) else f"of {patients:,} patients"),
            Fact("channels", ", ".join(channel.name for entry in spec.inputs for channel in entry.channels)),
            *(Fact(name, value) for name, value in task.facts(spec, tuple(units.values())).items()),
            Fact("median shape", " x ".join(f"{size:g}" for size in shape), "voxels, z y x, after cropping"),
            Fact("median spacing", " x ".join(f"{size:.3g}" for size in spacing), "mm, z y x"),
            Fact("licence", spec.licence), Fact("source", spec.source))


def _curves(runs: Sequence[Trained]) -> list[Markup]:
    charts = []
    for run in runs:
        rows = [row for row in read_metrics(run.folder / "metrics.jsonl") if "iteration" in row]
        losses = {name: name for name in (rows[0] if rows else {})
                  if name not in ("epoch", "iteration", "seconds", "learning_rate")}
        charts.append(line_chart(rows, x="iteration", lines=losses, title=f"Loss, {run.configuration} fold {run.fold}",
                                 x_label="iteration", y_label="mean over an epoch"))
        charts.append(line_chart(rows, x="iteration", lines={"learning_rate": "learning rate"},
                                 title=f"Learning rate, {run.configuration} fold {run.fold}", x_label="iteration",
                                 y_label="learning rate"))
    return charts


def _score_charts(scored: Scored) -> list[Markup]:
    """The headline score of model and baseline, and the same measure of every part."""
    headline = scored.task.case_headline
    whole = {"model": {record.unit: scored.headline_of(record) for record in scored.records}}
    if scored.baseline:
        whole["baseline"] = {unit: scored.headline_of(record) for unit, record in scored.baseline.items()}
    charts = [dot_plot(whole, title=f"{headline} per case", x_label=headline)]
    names = [name for name in scored.of_parts if any(name in record.scores for record in scored.records)]
    if 1 < len(names) <= PLOTTED_PARTS:
        model, cheap = ({name.rpartition(".")[0]: {record.unit: score_of(record, name) for record in records} for name in names}
                        for records in (scored.records, scored.baseline.values()))
        metric = metric_of(headline)
        charts.append(dot_plot(model, title=f"{metric} per label; hollow: baseline", x_label=metric,
                               baseline=cheap if scored.baseline else None))
    return charts


def _pictures(task: Task, spec: DatasetSpec, units: Mapping[str, Unit], runs: Sequence[Trained]) -> tuple[CasePictures, ...]:
    """The worst cases, then the median and the best one."""
    scored = [(score_of(record, task.case_headline), run, record) for run in runs for record in run.report.records]
    ranked = sorted((entry for entry in scored if not math.isnan(entry[0])), key=lambda entry: entry[0])
    pictures: list[CasePictures] = []
    for place in shown_places(len(ranked), WORST_FLAT_CASES):
        is_flat = all(len(group.pictures) == 1 for group in pictures)
        if place >= WORST_CASES and not is_flat and place not in shown_places(len(ranked), WORST_CASES):
            continue
        value, run, record = ranked[place]
        unit = units[record.unit]
        image = next(iter(read_inputs(unit, spec).values()))
        drawn = task.figures(read_validation(task, spec, run, unit), task.read_target(unit, spec), image, spec)
        remark = f"{task.case_headline} {score(value)}, {_rank(place, len(ranked))}, fold {run.fold}"
        pictures.append(CasePictures(unit.id, drawn, remark))
    return tuple(pictures)


def _illustrations(task: Task, spec: DatasetSpec, units: Mapping[str, Unit], runs: Sequence[Trained]) -> list[CasePictures]:
    """What the task's own commands show of units of validation, each by the network that did not see it."""
    return [CasePictures(unit.id, pictures, f"{verb.name}, fold {run.fold}")
            for verb, run, unit, pictures in illustrations(task, spec, units, runs) if pictures]


def shown_places(count: int, worst: int) -> list[int]:
    """Places in a ranking of `count` cases, worst first: the `worst` ones, the median and the best."""
    return sorted({*range(min(worst, count)), *((count // 2, count - 1) if count else ())})


def _rank(place: int, count: int) -> str:
    if count == 1:
        return "the only case"
    names = {count // 2: "the median", 0: "the worst", count - 1: "the best"}
    return f"{names[place]} of {count:,}" if place in names else f"{place + 1} of {count:,} from the worst"
