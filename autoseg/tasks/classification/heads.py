"""The outputs of a classification network: which belong to which target, and what they mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autoseg.core.errors import IncompatibleError
from autoseg.core.plan import Configuration, Value
from autoseg.tasks.classification.kinds import Kind, Meaning


@dataclass(frozen=True)
class Head:
    """Outputs of one target.

    Attributes:
        outputs: places of its logits among all outputs: one of a binary or continuous target, one per threshold between
            grades, else one per class.
        truths: places of what they are compared with: the place of the class (-1: unknown) where classes exclude each other,
            else 0 or 1 per class, or the standardised value (nan: unknown).
        mean, std: by which a value is standardised.
        weights: in the loss, of the positive class of each output, or of each class of a softmax; the logits are corrected
            for them.
        loss: that it is learned with; empty in plans of earlier versions, whose terms apply to all targets of their kinds.
    """

    name: str
    kind: Kind
    classes: tuple[str, ...]
    outputs: range
    truths: range
    mean: float = 0.0
    std: float = 1.0
    weights: tuple[float, ...] = ()
    loss: str = ""


def output_count(meaning: Meaning) -> int:
    """Logits that a target needs."""
    if meaning.kind in (Kind.BINARY, Kind.CONTINUOUS):
        return 1
    return len(meaning.classes) - (meaning.kind == Kind.ORDINAL)


def truth_count(meaning: Meaning) -> int:
    """Numbers that a target's truth takes."""
    return len(meaning.classes) if meaning.kind == Kind.MULTILABEL else 1


def plan_values(meanings: Sequence[Meaning], weights: Mapping[str, Sequence[float]],
                repeats: Mapping[str, Sequence[float]], losses: Mapping[str, str] | None = None) -> dict[str, Value]:
    """What a plan keeps of the targets, for `heads_of`.

    Args:
        weights, repeats, losses: by target: of each output in the loss; how often units of each class are drawn; the loss.
    """
    values: dict[str, Value] = {"targets": tuple(meaning.name for meaning in meanings)}
    for meaning in meanings:
        values[f"{meaning.name}.kind"] = str(meaning.kind)
        if losses is not None:
            values[f"{meaning.name}.loss"] = losses[meaning.name]
        if meaning.kind == Kind.CONTINUOUS:
            values |= {f"{meaning.name}.mean": meaning.mean, f"{meaning.name}.std": meaning.std}
        else:
            values[f"{meaning.name}.classes"] = meaning.classes
        for place, weight in enumerate(weights.get(meaning.name, ())):
            values[f"{meaning.name}.weight.{place}"] = weight
        for place, factor in enumerate(repeats.get(meaning.name, ())):
            values[f"{meaning.name}.repeat.{place}"] = factor
    return values


def heads_of(configuration: Configuration) -> tuple[Head, ...]:
    """The targets of a plan, in the order of the outputs.

    Raises:
        IncompatibleError: the configuration says no targets.
    """
    values = configuration.task_values
    names = values.get("targets")
    if not isinstance(names, tuple):
        raise IncompatibleError(f"configuration {configuration.name!r} says no targets under task_values; it is no plan of a "
                                "classification. Plan again")
    heads, outputs, truths = [], 0, 0
    for name in map(str, names):
        meaning = Meaning(name, Kind(str(values[f"{name}.kind"])), tuple(map(str, values.get(f"{name}.classes", ()))),  # type: ignore[arg-type]
                          float(values.get(f"{name}.mean", 0.0)), float(values.get(f"{name}.std", 1.0)))  # type: ignore[arg-type]
        count, known = output_count(meaning), truth_count(meaning)
        heads.append(Head(name, meaning.kind, meaning.classes, range(outputs, outputs + count), range(truths, truths + known),
                          meaning.mean, meaning.std, _numbers(values, f"{name}.weight"), str(values.get(f"{name}.loss", ""))))
        outputs, truths = outputs + count, truths + known
    return tuple(heads)


def repeats_of(configuration: Configuration) -> dict[str, tuple[float, ...]]:
    """How often units of each class are drawn, by target; empty where all are drawn alike."""
    values = configuration.task_values
    found = {head.name: _numbers(values, f"{head.name}.repeat") for head in heads_of(configuration)}
    return {name: factors for name, factors in found.items() if factors}


def _numbers(values: Mapping[str, Value], stem: str) -> tuple[float, ...]:
    numbers: list[float] = []
    while f"{stem}.{len(numbers)}" in values:
        numbers.append(float(values[f"{stem}.{len(numbers)}"]))  # type: ignore[arg-type]
    return tuple(numbers)
