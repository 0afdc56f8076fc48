"""Which output of a network speaks for what is said of a unit, and how likely that output says it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from autoseg.core.errors import UsageError, choose, unknown_name
from autoseg.tasks.classification.heads import Head
from autoseg.tasks.classification.kinds import Kind
from autoseg.tasks.classification.output import reading_of
from autoseg.tasks.classification.target import Answer, Reading

if TYPE_CHECKING:
    from torch import Tensor

# What is explained of a continuous target.
VALUE = "value"


@dataclass(frozen=True)
class Said:
    """Something that was said of a unit, and the output of the network that speaks for it.

    Attributes:
        name: of the class, or `value`.
        place: of the class among those of its target; -1 of a value.
        output: place of the logit among all.
        against: the class is the more likely, the smaller the logit.
        probability: of the class, after post-processing; nan of a value.
    """

    head: Head
    name: str
    place: int
    output: int
    against: bool
    probability: float

    @property
    def text(self) -> str:
        """In words; of grades the output says whether the grade is reached."""
        if self.head.kind == Kind.ORDINAL:
            return f"{self.head.name}: {self.name}" + (" or higher" if not self.against else ", none higher")
        return f"{self.head.name}: {self.name}"


def require_known(heads: Sequence[Head], target: str | None, cls: str | None) -> None:
    """Raises a UsageError where no target is called so, or none of them has the class."""
    chosen = {head.name: head for head in heads}
    if target is not None:
        chosen = {target: choose(chosen, target, "target")}
    if cls is not None:
        known = [name for head in chosen.values() for name in names_of(head)]
        if cls not in known:
            raise UsageError(unknown_name(cls, known, "class" if target is None else f"class of target {target!r}"))


def names_of(head: Head) -> tuple[str, ...]:
    """What can be explained of a target."""
    return (VALUE,) if head.kind == Kind.CONTINUOUS else head.classes


def what_was_said(answer: Answer, heads: Sequence[Head], target: str | None = None, cls: str | None = None) -> list[Said]:
    """What is explained of a unit: the asked class of the asked target, else what was decided of every target.

    Of several labels all that were decided to be there; where none was, the most probable one.
    """
    found = []
    for head in heads:
        if target is not None and head.name != target:
            continue
        reading = answer.reading(head.name)
        places = [place for place, name in enumerate(names_of(head)) if name == cls] if cls is not None else decided(reading)
        found += [_said(head, reading, place) for place in places]
    return found


def decided(reading: Reading) -> list[int]:
    """Places of what was decided; of a value the only one."""
    if reading.kind == Kind.CONTINUOUS:
        return [0]
    return list(reading.decided) or [int(np.argmax(reading.probabilities))]


def _said(head: Head, reading: Reading, place: int) -> Said:
    if head.kind == Kind.CONTINUOUS:
        return Said(head, VALUE, -1, head.outputs.start, False, float("nan"))
    probability = reading.probabilities[reading.classes.index(head.classes[place])]
    if head.kind == Kind.BINARY:
        output, against = head.outputs.start, place == 0
    elif head.kind == Kind.ORDINAL:  # the k-th output says whether the grade is above the k-th
        output, against = head.outputs[max(place - 1, 0)], place == 0
    else:
        output, against = head.outputs[place], False
    return Said(head, head.classes[place], place, output, against, probability)


def probabilities_for(said: Said) -> Callable[[Tensor], Tensor] | None:
    """(B, K) logits -> the probability of what was said in every column (B, K), as the network alone has it; None of a value.

    Of grades it is that of the grade or a higher one, as the output says it.
    """
    if said.place < 0:
        return None
    head = said.head

    def probabilities(logits: Tensor) -> Tensor:
        rows = logits.detach().cpu().numpy()[:, head.outputs.start:head.outputs.stop]
        shares = [_share(reading_of(head, row), said) for row in rows]
        return logits.new_tensor(shares)[:, None].expand(-1, logits.shape[1])

    return probabilities


def _share(reading: Reading, said: Said) -> float:
    if said.head.kind == Kind.ORDINAL and not said.against:
        return float(sum(reading.probabilities[said.place:]))
    return reading.probabilities[said.place]
