"""Chooses post-processing on out-of-fold predictions: steps that help on units that they were not fitted on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from autoseg.core.bundle import Decisions
from autoseg.core.case import Unit
from autoseg.core.progress import Progress
from autoseg.core.report import Record
from autoseg.core.spec import DatasetSpec
from autoseg.core.task import Arrays, Given, Refinement, Task
from autoseg.io.images import written_ending
from autoseg.stages.prepare import read_inputs
from autoseg.stages.trained import Trained, mean_in, parts_of, summary_of

# Groups of patients of a jackknife: the standard error then has 19 degrees of freedom and costs as many summaries.
GROUPS = 20


@dataclass(frozen=True)
class Sample:
    """A validation unit: the run that did not see it, how it scored, and the part of the units that it belongs to."""

    run: Trained
    record: Record
    part: str


@dataclass(frozen=True)
class Step:
    """A post-processing step with its numbers.

    Attributes:
        by_part: fitted on the units of all other parts, by part.
        fitted: fitted on all units.
    """

    refinement: Refinement
    by_part: Mapping[str, dict[str, float]] = field(default_factory=dict)
    fitted: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Evidence:
    """Out-of-fold predictions of one configuration.

    Attributes:
        units: all units by id.
        baselines: the cheap model of each fold that has one, by the fold's name.
    """

    task: Task
    spec: DatasetSpec
    units: Mapping[str, Unit]
    samples: Sequence[Sample]
    baselines: Mapping[str, Arrays]

    def prediction(self, sample: Sample, steps: Sequence[Step]) -> Any:
        """The prediction of a unit after these steps, each with numbers that were not fitted on this unit."""
        unit = self.units[sample.record.unit]
        prediction = read_validation(self.task, self.spec, sample.run, unit)
        for step in steps:
            baseline = None
            if step.refinement.uses_baseline:
                arrays = self.baselines[sample.run.fold]
                baseline = self.task.apply_baseline(arrays, read_inputs(unit, self.spec), self.spec)
            given = Given(step.by_part.get(sample.part, {}), baseline)
            prediction = step.refinement.apply(prediction, self.spec, given)
        return prediction

    def record(self, sample: Sample, steps: Sequence[Step]) -> Record:
        """How a unit scores after these steps."""
        unit = self.units[sample.record.unit]
        image = next(iter(read_inputs(unit, self.spec).values()))
        scores = self.task.score(self.prediction(sample, steps), self.task.read_target(unit, self.spec), self.spec, image)
        return Record(unit.id, scores, unit.group)

    def fit(self, refinement: Refinement, steps: Sequence[Step], wanted: Callable[[Sample], bool]) -> dict[str, float]:
        """Numbers of a step, fitted on the wanted units after the steps before it."""
        assert refinement.fit is not None
        samples = [sample for sample in self.samples if wanted(sample)]

        def pair(sample: Sample) -> tuple[Any, Any]:
            return self.prediction(sample, steps), self.task.read_target(self.units[sample.record.unit], self.spec)

        return dict(refinement.fit(_Read(samples, pair), self.spec))


class _Read(Sequence):
    """What `read` says of each sample, read when it is asked for: predictions of a dataset may not fit into memory."""

    def __init__(self, samples: Sequence[Sample], read: Callable[[Sample], tuple[Any, Any]]) -> None:
        self._samples = samples
        self._read = read

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, place: Any) -> Any:
        found = self._samples[place]
        return [self._read(sample) for sample in found] if isinstance(place, slice) else self._read(found)


def decide_refinements(task: Task, spec: DatasetSpec, units: Mapping[str, Unit], runs: Sequence[Trained],
                       progress: Progress, *, baselines: Mapping[str, Arrays] | None = None) -> Decisions:
    """Keeps a candidate when the score that judges it rises on out-of-fold predictions and none of its parts falls.

    Where the candidate says so, a part may fall by one standard error of its paired difference: of many parts some fall by
    chance whatever the step does (of 14 that are not changed at all, at least one with probability 1 - 0.5**14).

    Candidates are tried in the task's order, each on top of those kept before. A candidate that is fitted is judged on units
    that its numbers were not fitted on: those of one fold with numbers from the other folds, or, where one fold was trained,
    of one half of its patients with numbers from the other half. What is kept is fitted on all units.
    Source: nnU-Net v2.8.1, remove_connected_components.py, for trying, keeping and the rule of the parts; one standard error:
        Breiman et al. 1984 (Classification and Regression Trees, section 3.4.3), as for the choice between ways to predict.

    Args:
        baselines: the cheap model by fold; a candidate that uses it is left out where that of a fold is missing.
    """
    evidence = Evidence(task, spec, units, divide(runs), baselines or {})
    if not evidence.samples:
        return Decisions(because=("no validation cases: no post-processing was tried",))
    kept: list[Step] = []
    because = []
    best = [sample.record for sample in evidence.samples]
    candidates = task.refinements(spec)
    for place, candidate in enumerate(candidates):
        step = _fitted(candidate, evidence, kept)
        if isinstance(step, str):
            because.append(f"{candidate.name}: not tried, {step}")
        else:
            tried = [evidence.record(sample, [*kept, step]) for sample in evidence.samples]
            helps, line = judged(task, step, best, tried)
            because.append(line)
            if helps:
                kept, best = [*kept, step], tried
        progress("select", place + 1, len(candidates), candidate.name)
    fitted = {step.refinement.name: step.fitted for step in kept if step.refinement.fit is not None}
    return Decisions(tuple(step.refinement.name for step in kept), tuple(because), fitted=fitted)


def divide(runs: Sequence[Trained]) -> list[Sample]:
    """All validation units, in parts that share no patient: their folds, or else two halves of one fold's patients."""
    folds = {run.fold for run in runs if run.report.records}
    patients = sorted({record.patient for run in runs for record in run.report.records})
    halves = {patient: f"half {place % 2}" for place, patient in enumerate(patients)}
    return [Sample(run, record, f"fold {run.fold}" if len(folds) > 1 else halves[record.patient])
            for run in runs for record in run.report.records]


def _fitted(candidate: Refinement, evidence: Evidence, kept: Sequence[Step]) -> Step | str:
    """The candidate with its numbers, or why it cannot be tried."""
    if candidate.uses_baseline:
        missing = sorted({sample.run.fold for sample in evidence.samples} - set(evidence.baselines))
        if missing:
            return f"there is no baseline of fold {', '.join(missing)}"
    if candidate.fit is None:
        return Step(candidate)
    parts = sorted({sample.part for sample in evidence.samples})
    if len(parts) < 2:
        return "what is fitted on the cases of one patient cannot be judged on them"
    by_part = {part: evidence.fit(candidate, kept, lambda sample, part=part: sample.part != part)  # type: ignore[misc]
               for part in parts}
    step = Step(candidate, by_part, evidence.fit(candidate, kept, lambda sample: True))
    finite = all(math.isfinite(value) for numbers in (*by_part.values(), step.fitted) for value in numbers.values())
    return step if finite else "its numbers are not finite"


def judged(task: Task, step: Step, records: Sequence[Record], refined: Sequence[Record]) -> tuple[bool, str]:
    """Whether a step helps the units of these records, and what was compared, in words."""
    name = step.refinement.judged_by or task.headline
    before, after = summary_of(task, records), summary_of(task, refined)
    falls = {part: mean_in(before, part) - mean_in(after, part) for part in parts_of(name, before)}
    falls = {part: fall for part, fall in falls.items() if fall > 0}
    rises, remarks = mean_in(after, name) > mean_in(before, name), []
    if rises and falls and step.refinement.parts_may_vary:
        errors = standard_errors(task, list(falls), records, refined)
        remarks = [f"{part} falls by {fall:.4f}, standard error {errors[part]:.4f}" for part, fall in falls.items()]
        falls = {part: fall for part, fall in falls.items() if not fall <= errors[part]}
    helps = rises and not falls
    numbers = ", ".join([*(f"{key} {value:.4g}" for key, value in step.fitted.items()), *remarks])
    return helps, (f"{step.refinement.name}: {name} {mean_in(before, name):.4f} -> {mean_in(after, name):.4f} on {len(records)} "
                   f"cases, {'kept' if helps else 'not kept'}{f' ({numbers})' if numbers else ''}")


def standard_errors(task: Task, names: Sequence[str], records: Sequence[Record], refined: Sequence[Record]) -> dict[str, float]:
    """Standard error of the paired difference of scores of the summary, by name; nan where they cannot be said without some
    patients, or there is one patient.

    Args:
        records, refined: of the same units in the same order.
    Source: the delete-a-group jackknife over patients (Kott 2001, Journal of Official Statistics 17:521): square root of
        (G - 1) / G sum (d_g - mean)**2, d_g the difference without group g. With a group for every patient and means of cases
        it is the standard deviation over the square root of their number.
    """
    patients = sorted({record.patient for record in records})
    count = min(GROUPS, len(patients))
    group_of = {patient: place % count for place, patient in enumerate(patients)}
    differences: dict[str, list[float]] = {name: [] for name in names}
    for group in range(count if count > 1 else 0):
        before, after = (summary_of(task, [record for record in found if group_of[record.patient] != group])
                         for found in (records, refined))
        for name, values in differences.items():
            values.append(mean_in(after, name) - mean_in(before, name))
    return {name: math.sqrt((count - 1) * float(np.var(values))) if values else math.nan for name, values in differences.items()}


def read_validation(task: Task, spec: DatasetSpec, run: Trained, unit: Unit) -> Any:
    """The prediction that a run made for one of its validation units."""
    ending = written_ending(next(iter(unit.cases[0].inputs.values()))[0])
    return task.read_prediction(run.folder / "validation" / unit.id / f"{unit.id}{ending}", spec)
