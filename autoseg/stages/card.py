"""The model card of a bundle, in Markdown: what it is for, what it learned from, how well it does, how it predicts, its limits.

Every number comes from the files of the runs, the fingerprint and the plan. Sections follow Mitchell et al. 2019, "Model cards
for model reporting".
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from autoseg.core.bundle import Decisions
from autoseg.core.case import Unit
from autoseg.core.fingerprint import Fingerprint
from autoseg.core.plan import Plan
from autoseg.core.provenance import Manifest
from autoseg.core.report import Estimate, Record, Report
from autoseg.core.spec import DatasetSpec
from autoseg.core.task import Task
from autoseg.metrics.patients import patient_records
from autoseg.reporting.numbers import counted, has_interval, short_number
from autoseg.stages.summary import per_patient
from autoseg.stages.trained import Trained, behind_baseline

# The percentile interval of the mean of n normal values is narrower than Student's, by 1.96 sqrt((n - 1) / n) / t(n - 1): 0.91
# for 20, 0.63 for 5.
FEW_PATIENTS = 20
# What an intensity looks like (core.modality), in words.
KINDS = {"hounsfield": "Hounsfield units", "not_hounsfield": "no Hounsfield units", "mask": "a mask", "two_values": "two values",
         "constant": "one value", "other": "other intensities"}


@dataclass(frozen=True)
class CardFacts:
    """All that the card is made of.

    Attributes:
        validated: finished runs of the bundle's configuration; their records are out of fold.
        members: those that predict.
        baseline: the cheap model on the same folds; None where it did not run.
    """

    task: Task
    spec: DatasetSpec
    plan: Plan
    fingerprint: Fingerprint
    units: Mapping[str, Unit]
    validated: Sequence[Trained]
    members: Sequence[Trained]
    decisions: Decisions
    baseline: Report | None
    manifest: Manifest

    @property
    def records(self) -> list[Record]:
        return [record for run in self.validated for record in run.report.records]

    @cached_property
    def behind(self) -> str:
        """The sentence of `behind_baseline`."""
        return behind_baseline(self.task, self.records, self.baseline.records) if self.baseline else ""

    @property
    def patients(self) -> int:
        return len({unit.group or unit.id for unit in self.units.values()})


def model_card(facts: CardFacts) -> str:
    """The card; texts of the specification are escaped, so that none of them is read as a heading, table or HTML."""
    sections = {
        "Intended use": _intended_use(facts), "Trained on": _training(facts),
        "Scores on cases that the network of the fold did not see": _scores(facts),
        "How it predicts": _prediction(facts), "Limits": _limits(facts), "How it was made": _making(facts)}
    lines = [f"# {text(facts.spec.name)}: {text(facts.spec.task)} model", "", "**Not a medical device.** For research only.", ""]
    for title, body in sections.items():
        lines += [f"## {title}", "", *body, ""]
    return "\n".join(lines)


def text(value: str) -> str:
    """One line of plain text as Markdown."""
    return re.sub(r"([\\`*\[\]<|#]|\b_|_\b)", r"\\\1", " ".join("".join(c if c.isprintable() else " " for c in value).split()))


def _intended_use(facts: CardFacts) -> list[str]:
    spec = facts.spec
    channels = ", ".join(text(channel.name) for entry in spec.inputs for channel in entry.channels)
    learned = facts.task.facts(spec, tuple(facts.units.values()))
    return [f"Research on images like those it was trained on: {channels}, within the ranges below.",
            *(["", "What it learned to tell:", "", *(f"- {text(name)}: {text(value)}" for name, value in learned.items()), ""]
              if learned else []),
            *([f"Dataset: {text(spec.description)}"] if spec.description else []),
            "", "Not for diagnosis, treatment, triage or any other decision about a patient. A person has to look at every "
            "result."]


def _training(facts: CardFacts) -> list[str]:
    spec, seen = facts.spec, facts.fingerprint
    spacings, shapes = np.array(seen.spacings_mm), np.array(seen.shapes_after_crop)
    of_patients = f" of {counted(facts.patients, 'patient')}" if facts.patients != len(facts.units) else ""
    rows = ["| | smallest | median | largest |", "|---|---|---|---|",
            _range_row("spacing, mm (z, y, x)", spacings),
            _range_row("shape, voxels (z, y, x), without empty margins", shapes)]
    names = [channel.name for entry in spec.inputs for channel in entry.channels]
    channels = ["| channel | intensities | mean | standard deviation | 0.5 % | median | 99.5 % |",
                "|---|---|---|---|---|---|---|"]
    for number, name in enumerate(names[:seen.channel_count]):
        found = seen.intensity(number)
        values = (found.mean, found.std, found.percentile_00_5, found.median, found.percentile_99_5)
        channels.append(f"| {text(name)} | {_kinds(seen, number)} | " + " | ".join(map(short_number, values)) + " |")
    licence = text(spec.licence) or "not stated"
    return [f"- {counted(seen.case_count, 'case')}{of_patients}",
            f"- source: {text(spec.source) or 'not stated'}; licence: {licence}",
            "", *rows, "", "Intensities of the foreground, every case weighing the same:", "", *channels]


def _range_row(name: str, values: np.ndarray) -> str:
    cells = (" x ".join(short_number(float(value)) for value in measure(values, axis=0))
             for measure in (np.min, np.median, np.max))
    return f"| {name} | " + " | ".join(cells) + " |"


def _kinds(seen: Fingerprint, channel: int) -> str:
    if not seen.kinds:
        return "not looked at"
    return ", ".join(f"{KINDS.get(kind, kind)} ({counted(count, 'case')})" for kind, count in seen.kinds[channel].items())


def _scores(facts: CardFacts) -> list[str]:
    if not facts.records:
        return ["None: every case was trained on, so nothing is known about how well this model does."]
    rng = np.random.default_rng(facts.plan.seed)
    head = ["| score | mean | 95 % interval | median | {} |", "|---|---|---|---|---|"]
    folds = ", ".join(_name(run) for run in facts.validated if run.report.records)
    lines = ["Each case was predicted by the one network that did not see it, with tile step, mirroring and precision as planned "
             f"and without post-processing ({folds}).",
             "", head[0].format("cases"), head[1], *_rows(facts.task.summarise(facts.records, rng))]
    of_patients = per_patient(facts.task, facts.records, rng)
    if of_patients:
        lines += ["", "Every patient counts once, with the mean of its cases:", "",
                  head[0].format("patients"), head[1], *_rows(of_patients)]
    cheap = facts.baseline.summary.get(facts.task.headline) if facts.baseline else None
    if cheap is not None:
        lines += ["", f"A cheap baseline on the same folds, {facts.task.headline}: {_number(cheap.mean)} ({_interval(cheap)})."]
    return [*lines, "", facts.behind] if facts.behind else lines


def _rows(summary: Mapping[str, Estimate]) -> list[str]:
    return [f"| {text(name)} | {_number(e.mean)} | {_interval(e)} | {_number(e.median)} | {e.count} |"
            for name, e in summary.items()]


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"


def _interval(estimate: Estimate) -> str:
    return f"{estimate.lower:.4f} to {estimate.upper:.4f}" if has_interval(estimate) else "none: too few"


def _prediction(facts: CardFacts) -> list[str]:
    planned, decisions = facts.plan.configuration(facts.members[0].configuration).inference, facts.decisions
    rules = (("tile step", decisions.tile_step, planned.tile_step), ("mirroring", decisions.mirror, planned.mirror),
             ("precision", decisions.precision, planned.precision))
    rows = [f"- {name}: {_word(default)}, as planned" if found is None else f"- {name}: {_word(found)}, by cross-validation"
            for name, found, default in rules]
    refinements = ", ".join(decisions.refinements) or "none"
    return [f"- the mean of {counted(len(facts.members), 'network')}: {', '.join(_name(run) for run in facts.members)}", *rows,
            f"- post-processing: {refinements}", "", "Why:", "", *(f"- {text(line)}" for line in decisions.because)]


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _name(run: Trained) -> str:
    return f"{run.configuration} fold {run.fold}"


def _limits(facts: CardFacts) -> list[str]:
    lines = ["- Nothing is known about other scanners, sites, protocols, ages or diseases than those of the training cases: no "
             "case from elsewhere was scored.",
             "- It answers for every image, also for one that shows something else than the training cases did."]
    if not facts.records:
        return lines
    found = len(patient_records(facts.records))
    if found < FEW_PATIENTS:
        lines.append(f"- Scores rest on {counted(found, 'patient')}; with fewer than {FEW_PATIENTS} the intervals are too "
                     "narrow.")
    headline = facts.task.case_headline
    values = [record.scores[headline] for record in facts.records if math.isfinite(record.scores.get(headline, math.nan))]
    if values:
        lines.append(f"- Cases differ: {headline} from {min(values):.4f} to {max(values):.4f}.")
    if len(facts.members) > 1:
        lines.append("- The scores are those of single networks; the bundle predicts with their mean, which nobody scored.")
    if any(run.fold == "all" for run in facts.members):
        lines.append("- The model on all data was not scored; the scores are those of the other folds.")
    return lines


def _making(facts: CardFacts) -> list[str]:
    versions = ", ".join(f"{name} {version}" for name, version in facts.manifest.origin.versions.items())
    budget = facts.plan.budget
    iterations = facts.plan.configuration(facts.members[0].configuration).optimization.iterations
    return [f"- plan `{facts.plan.name}`, digest {facts.manifest.plan[:16]}, seed {facts.plan.seed}",
            f"- {iterations:,} training steps for each network, planned for {budget.target}: "
            f"{text(budget.device) or 'not named'}",
            *([f"- versions: {versions}"] if versions else []),
            "- inputs and digests: `manifest.json`; every file of the bundle: `bundle.json`"]
