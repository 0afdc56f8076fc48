"""Chooses tile step, mirroring and precision of a bundle: the cheapest that is not measurably worse on out-of-fold cases.

Nothing is measured where there is nothing to choose: cases that fit into one window, a network that was not trained with
mirroring, a processor without a faster precision. What is measured costs less than validating the runs did.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
from numpy.typing import NDArray
from torch import nn

from autoseg.core.bundle import Decisions
from autoseg.core.geometry import Shape
from autoseg.core.plan import Inference, Precision
from autoseg.core.progress import Progress
from autoseg.core.report import Estimate, Record
from autoseg.core.task import Context, Task
from autoseg.inference.engine import in_use, usable_precision
from autoseg.inference.sliding_window import window_starts
from autoseg.io.atomic import hash_values
from autoseg.io.values import read_value, write_value
from autoseg.nn.weights import load_weights
from autoseg.stages.prepare import read_inputs
from autoseg.stages.train import Run, predict_unit, seeded_network
from autoseg.stages.trained import Trained, mean_in, mean_score, parts_of, summary_of

TILE_STEPS = (0.5, 0.75, 1.0)
# The standard error of n differences is itself uncertain by 1 / sqrt(2 (n - 1)): a sixth with twenty, a third with five.
MOST_CASES = 20
FEWEST_CASES = 5
# Passes that may be spent on each of the two questions (windows and mirrorings; precision), over those that validation took.
SHARE_OF_VALIDATION = 0.25
# What a reduced precision may cost in the headline score and in any of its parts. Requirement of the project; MLPerf asks
# for 99.9 % of the reference's mean Dice of its 3-D U-Net, which is 0.0009 there.
LARGEST_LOSS = 0.002
LARGEST_LOSS_OF_A_PART = 0.005


@dataclass(frozen=True)
class Sample:
    """An out-of-fold case: the run that did not see it, and how it scored as planned."""

    run: Run
    planned: Record

    @property
    def shape(self) -> Shape:
        """Of the case on the model grid."""
        return self.run.store.record(self.run.units[self.planned.unit].cases[0].id).model_shape


@dataclass(frozen=True)
class Candidate:
    """A way to place and mirror windows; `cost` is the mean number of passes of a window through a network per case."""

    tile_step: float
    mirror: bool
    cost: float

    def __str__(self) -> str:
        return f"tile step {self.tile_step:g} {'with' if self.mirror else 'without'} mirroring, {self.cost:.1f} passes a case"


def decide_passes(task: Task, runs: Sequence[Trained], decisions: Decisions, context: Context, progress: Progress) -> Decisions:
    """The decisions with tile step, mirroring and precision, each None where nothing was compared.

    Args:
        runs: of one configuration.
        context: device and engine to measure with.
    """
    samples = [Sample(trained.run, record) for trained in runs if trained.run is not None for record in trained.report.records]
    if len(samples) < FEWEST_CASES:
        return _because(decisions, f"tile step, mirroring and precision as planned: fewer than {FEWEST_CASES} validation cases")
    rules = samples[0].run.configuration.inference
    planned, *others = candidates(rules, samples[0].run.configuration.patch_size, [sample.shape for sample in samples])
    others, count = affordable(planned, others, len(samples))
    best = planned
    if others:
        chosen = evenly(samples, count)
        records = [measured(task, chosen, applied(rules, candidate), context, progress) for candidate in (planned, *others)]
        scores = np.array([[record.scores.get(task.case_headline, np.nan) for record in found] for found in records])
        place = cheapest_within_one_error(scores, [candidate.cost for candidate in (planned, *others)])
        best = (planned, *others)[place]
        lines = [f"{candidate}: {task.case_headline} {mean_score(found, task.case_headline):.4f} on {count} cases"
                 f"{', kept: the cheapest within one standard error of the best' if candidate is best else ''}"
                 for candidate, found in zip((planned, *others), records, strict=True)]
        decisions = _because(replace(decisions, tile_step=best.tile_step, mirror=best.mirror), *lines)
    reduced = reduced_precision(rules.precision, context.device)
    if reduced is None:
        return decisions
    count = min(MOST_CASES, int(SHARE_OF_VALIDATION * len(samples)))
    if count < FEWEST_CASES:
        return _because(decisions, f"precision {rules.precision} as planned: too few validation cases to measure another")
    return _decide_precision(task, evenly(samples, count), applied(rules, best), reduced, decisions, context, progress)


def candidates(rules: Inference, patch_size: Shape, shapes: Sequence[Shape]) -> list[Candidate]:
    """Ways to predict cases of these shapes that differ in where windows stand or in mirroring; as planned comes first."""
    found: dict[tuple, Candidate] = {}
    mirrors = sorted({False, bool(rules.mirror_axes)}, key=lambda mirror: mirror != rules.mirror)
    for tile_step in (rules.tile_step, *TILE_STEPS):
        starts = [tuple(window_starts(max(size, patch), patch, tile_step) for size, patch in zip(shape, patch_size, strict=True))
                  for shape in shapes]
        windows = float(np.mean([prod(map(len, axes)) for axes in starts]))
        for mirror in mirrors:
            passes = windows * 2 ** (len(rules.mirror_axes) if mirror else 0)
            found.setdefault((tuple(starts), mirror), Candidate(tile_step, mirror, passes))
    return list(found.values())


def affordable(planned: Candidate, others: Sequence[Candidate], sample_count: int) -> tuple[list[Candidate], int]:
    """The cheapest of the candidates that can be measured, and on how many cases; the dearest are left out first.

    Nothing, on no case, where not even the cheapest can be measured on `FEWEST_CASES`.
    """
    kept = sorted(others, key=lambda candidate: candidate.cost)
    while kept:
        share = SHARE_OF_VALIDATION * sample_count * planned.cost / sum(candidate.cost for candidate in kept)
        count = min(MOST_CASES, sample_count, int(share))
        if count >= FEWEST_CASES:
            return kept, count
        kept.pop()
    return [], 0


def evenly(samples: Sequence[Sample], count: int) -> list[Sample]:
    """So many of the samples, spread evenly over them and therefore over the runs."""
    return [samples[place] for place in np.linspace(0, len(samples) - 1, count).round().astype(int)]


def cheapest_within_one_error(scores: NDArray[np.float64], costs: Sequence[float]) -> int:
    """Place of the cheapest candidate whose mean score lies within one standard error of the best one's.

    The error is that of the mean of the differences per case; cases with an undefined score are left out. Among equally
    cheap ones the better wins; with fewer than `FEWEST_CASES` cases the first.

    Args:
        scores: (candidates, cases), larger is better.
    Source: the one-standard-error rule (Breiman et al. 1984, section 3.4.3), on paired differences.
    """
    scores = scores[:, np.isfinite(scores).all(axis=0)]
    if scores.shape[1] < FEWEST_CASES:
        return 0
    means = scores.mean(axis=1)
    lost = scores[means.argmax()] - scores
    errors = lost.std(axis=1, ddof=1) / np.sqrt(scores.shape[1])
    good = [place for place in range(len(costs)) if lost[place].mean() <= errors[place]]
    return min(good, key=lambda place: (costs[place], -means[place]))


def reduced_precision(planned: Precision, device: str) -> Precision | None:
    """The precision below fp32 that this device would gain from; None where it has none."""
    reduced: Precision = "bf16" if planned == "fp32" else planned
    return reduced if usable_precision(reduced, device) == reduced else None


def loses_little(full: Mapping[str, Estimate], reduced: Mapping[str, Estimate], headline: str) -> bool:
    """True when the headline of a summary falls by less than `LARGEST_LOSS` and none of its parts by more than allowed.

    A score that is defined with one precision and not with the other counts as lost.
    """
    def loss(name: str) -> float:
        before, after = mean_in(full, name), mean_in(reduced, name)
        return 0.0 if np.isnan(before) and np.isnan(after) else before - after

    return loss(headline) < LARGEST_LOSS and all(loss(part) <= LARGEST_LOSS_OF_A_PART for part in parts_of(headline, full))


def _decide_precision(task: Task, samples: Sequence[Sample], rules: Inference, reduced: Precision, decisions: Decisions,
                      context: Context, progress: Progress) -> Decisions:
    before, after = (summary_of(task, measured(task, samples, replace(rules, precision=precision), context, progress))
                     for precision in ("fp32", reduced))
    small = loses_little(before, after, task.headline)
    line = (f"{reduced} instead of fp32: {task.headline} {mean_in(before, task.headline):.4f} -> "
            f"{mean_in(after, task.headline):.4f} on {len(samples)} cases, "
            f"{'kept for processors that have it' if small else 'not kept'}")
    return _because(replace(decisions, precision=reduced if small else "fp32"), line)


def measured(task: Task, samples: Sequence[Sample], rules: Inference, context: Context, progress: Progress) -> list[Record]:
    """Scores of the samples with these rules; those of the plan are there already, others are kept beside their run."""
    networks: dict[str, nn.Module] = {}
    records = []
    for place, sample in enumerate(samples):
        run, unit = sample.run, sample.planned.unit
        kept = run.folder / "candidates" / f"{unit}_{hash_values(run.inputs_hash(), rules, context)[:16]}.json"
        if rules == run.configuration.inference:
            records.append(sample.planned)
        elif kept.exists():
            records.append(read_value(kept, Record))
        else:
            if run.fold_name not in networks:
                networks[run.fold_name] = _network(run, rules, context)
            records.append(_measure(task, sample, networks[run.fold_name], rules, context))
            write_value(kept, records[-1])
        progress("select", place + 1, len(samples), f"tile step {rules.tile_step:g}, {rules.precision}")
    return records


def applied(rules: Inference, candidate: Candidate) -> Inference:
    """The planned rules as a candidate has them."""
    if candidate.mirror == (rules.mirror and bool(rules.mirror_axes)):
        return replace(rules, tile_step=candidate.tile_step)
    return replace(rules, tile_step=candidate.tile_step, mirror=candidate.mirror)


def _network(run: Run, rules: Inference, context: Context) -> nn.Module:
    network = seeded_network(run)
    load_weights(run.folder / "training" / "model.safetensors", network)
    return in_use(network, rules, context.device, context.engine)


def _measure(task: Task, sample: Sample, network: nn.Module, rules: Inference, context: Context) -> Record:
    run, unit = sample.run, sample.run.units[sample.planned.unit]
    prediction = predict_unit(run, network, unit, replace(run.configuration, inference=rules), context)
    image = next(iter(read_inputs(unit, run.spec).values()))
    return Record(unit.id, task.score(prediction, task.read_target(unit, run.spec), run.spec, image))


def _because(decisions: Decisions, *lines: str) -> Decisions:
    return replace(decisions, because=(*decisions.because, *lines))
