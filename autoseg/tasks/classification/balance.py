"""Rare classes: how much they weigh in the loss, how often they are drawn, and where the outputs start."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autoseg.core.errors import DatasetError
from autoseg.core.fingerprint import Fingerprint
from autoseg.core.plan import Reason
from autoseg.tasks.classification.kinds import Kind, Meaning, read_cell, understand
from autoseg.tasks.classification.objectives import WEIGHTED, planned_loss
from autoseg.tasks.classification.spec import TargetOptions

# The bare ratio of Hernia in ChestX-ray14 is 493; square root and bounds keep order, variance and calibration.
SMALLEST_WEIGHT, LARGEST_WEIGHT = 1.0, 10.0
# Units of a class are repeated only where fewer patients have it; the share of units that a class is brought towards.
REPEAT_BELOW = 200
REPEAT_SHARE = 0.25

RULE = "rule for rare classes, docs/classification.md"


@dataclass(frozen=True)
class Counted:
    """A target with its counts.

    Attributes:
        counts: units per class.
        known: units whose truth is known.
        missing: units whose truth is not.
        patients: per class, those who have it in some unit; units of one patient are no independent evidence.
        known_patients: those whose truth is known in some unit.
        loss: that the target is learned with.
    """

    meaning: Meaning
    counts: tuple[int, ...]
    known: int
    missing: int
    patients: tuple[int, ...]
    known_patients: int
    loss: str

    @property
    def weights(self) -> tuple[float, ...]:
        """Of each output in the loss: of its positive class, or of a class beside the most frequent one; none of a loss
        without weights."""
        if self.loss not in WEIGHTED:
            return ()
        if self.meaning.kind == Kind.BINARY:
            return (positive_weight(self.counts[1], self.known),)
        if self.meaning.kind == Kind.MULTILABEL:
            return tuple(positive_weight(count, self.known) for count in self.counts)
        if self.meaning.kind == Kind.MULTICLASS:
            return tuple(_clipped(max(self.counts) / count if count else math.inf) for count in self.counts)
        return ()

    @property
    def repeats(self) -> tuple[float, ...]:
        """How often units of each class are drawn; empty where all are drawn alike."""
        if self.meaning.kind == Kind.CONTINUOUS:
            return ()
        factors = tuple(repeat_factor(count, self.known, len(self.counts), patients=patients)
                        for count, patients in zip(self.counts, self.patients, strict=True))
        return factors if max(factors, default=1.0) > 1 else ()

    @property
    def bias(self) -> tuple[float, ...]:
        """What the outputs start from, so that they give the prevalence once the weights are taken back."""
        kind, total = self.meaning.kind, self.known
        if kind in (Kind.BINARY, Kind.MULTILABEL):
            counts = self.counts[1:] if kind == Kind.BINARY else self.counts
            return tuple(round(log_odds(count, total) + math.log(weight), 3)
                         for count, weight in zip(counts, self.weights or (1.0,) * len(counts), strict=True))
        if kind == Kind.MULTICLASS:
            logs = [math.log((count + 0.5) / (total + 0.5 * len(self.counts))) + math.log(weight)
                    for count, weight in zip(self.counts, self.weights or (1.0,) * len(self.counts), strict=True)]
            return tuple(round(value - math.fsum(logs) / len(logs), 3) for value in logs)
        if kind == Kind.ORDINAL:
            return tuple(round(log_odds(sum(self.counts[place + 1:]), total), 3) for place in range(len(self.counts) - 1))
        return (0.0,)


def positive_weight(positives: int, known: int) -> float:
    """clip(sqrt(negatives / positives), 1, 10)."""
    return _clipped((known - positives) / positives if positives else math.inf)


def repeat_factor(count: int, known: int, classes: int, *, patients: int) -> float:
    """max(1, sqrt(t / f)), f the share of the units that have the class, t = 1 / (4 classes); 1 from 200 patients on.

    Source: Gupta et al. 2019 (LVIS, arXiv 1908.03195), section 4.1.
    """
    if not count or patients >= REPEAT_BELOW:
        return 1.0
    return round(max(1.0, math.sqrt(REPEAT_SHARE / classes / (count / known))), 3)


def log_odds(count: int, total: int) -> float:
    """Logarithm of the odds of a share, half a unit added to both sides, so that nothing is impossible."""
    return math.log((count + 0.5) / (total - count + 0.5))


def count_targets(targets: Sequence[TargetOptions], fingerprint: Fingerprint) -> tuple[Counted, ...]:
    """The targets of a dataset with their counts, from what the fingerprint counted of their cells.

    Raises:
        DatasetError: nothing was counted of a target, all its cells say the same, or its loss does not suit its kind.
    """
    return tuple(_count(target, _cells(target, fingerprint), fingerprint.patients_with) for target in targets)


def _cells(target: TargetOptions, fingerprint: Fingerprint) -> dict[str, int]:
    stem = f"target.{target.label}="
    return {name.removeprefix(stem): count for name, count in fingerprint.properties.items() if name.startswith(stem)}


def _count(target: TargetOptions, cells: Mapping[str, int], patients: Mapping[str, int]) -> Counted:
    """Where no patients were counted (fingerprints of earlier versions), every unit stands for one."""
    meaning = understand(target, cells)
    counts, known = [0.0] * len(meaning.classes), 0
    for cell, count in cells.items():
        found = read_cell(cell, target, meaning)
        if found is not None:
            known += count
            counts = [total + value * count for total, value in zip(counts, found, strict=False)]
    if not known:
        raise DatasetError(f"target {target.label!r}: all {sum(cells.values())} cells of column {target.column!r} are missing; "
                           "remove the target, or correct the column", code="E_TARGET_EMPTY")
    present = [name for name, count in zip(meaning.classes, counts, strict=True) if count]
    if meaning.kind != Kind.CONTINUOUS and len(present) < (1 if meaning.kind == Kind.MULTILABEL else 2):
        raise DatasetError(f"target {target.label!r} has nothing but {', '.join(present) or 'no label'} in {known} cases, so "
                           "there "
                           "is nothing to learn; add cases of another class, or remove the target", code="E_TARGET_CONSTANT")
    having = [patients.get(f"class.{meaning.name}={name}", int(count))
              for name, count in zip(meaning.classes, counts, strict=True)]
    known_patients = patients.get(f"known.{meaning.name}", known)
    return Counted(meaning, tuple(int(count) for count in counts), known, sum(cells.values()) - known, tuple(having),
                   known_patients, planned_loss(target, meaning, known_patients))


def balance_reasons(counted: Sequence[Counted]) -> dict[str, Reason]:
    """Why targets are what they are, weigh what they weigh and start where they start, relative to a configuration."""
    reasons: dict[str, Reason] = {
        "task_values": Reason("; ".join(_text(entry) for entry in counted), "targets of the specification with kinds, classes, "
                              "weights and repeats", "dataset specification and table")}
    for entry in counted:
        name, meaning = entry.meaning.name, entry.meaning
        inputs = _text(entry)
        reasons[f"task_values.{name}.kind"] = Reason(inputs, meaning.because, "rules for kinds of targets, "
                                                                              "docs/classification.md")
        reasons[f"task_values.{name}.loss"] = Reason(inputs, "as the specification says, else by the kind of the target",
                                                     "docs/classification.md")
        for place, _ in enumerate(entry.weights):
            reasons[f"task_values.{name}.weight.{place}"] = Reason(
                inputs, "square root of negative / positive units (of several classes: of the most frequent / this one), "
                        "clipped to "
                f"{SMALLEST_WEIGHT:g} to {LARGEST_WEIGHT:g}; probabilities are corrected for it", RULE)
        for place, _ in enumerate(entry.repeats):
            reasons[f"task_values.{name}.repeat.{place}"] = Reason(
                inputs, f"classes of fewer than {REPEAT_BELOW} patients are drawn sqrt(t / share) times as often, t = 1 / (4 "
                        "classes)",
                RULE)
    return reasons


def _text(entry: Counted) -> str:
    meaning = entry.meaning
    if meaning.kind == Kind.CONTINUOUS:
        classes = f"mean {meaning.mean:.4g}, standard deviation {meaning.std:.4g}"
    else:
        rows = zip(meaning.classes, entry.counts, entry.patients, strict=True)
        classes = ", ".join(f"{name} {count}" + (f" ({patients} patients)" if patients < count else "")
                            for name, count, patients in rows)
    known = f"{entry.known} units" + (f" of {entry.known_patients} patients" if entry.known_patients < entry.known else "")
    return f"{meaning.name}: {meaning.kind}, {classes} of {known}" + (f", missing in {entry.missing}" if entry.missing else "")


def _clipped(ratio: float) -> float:
    return round(min(max(math.sqrt(ratio), SMALLEST_WEIGHT), LARGEST_WEIGHT), 3)
