"""The second head of a joint network among the planned values."""

from __future__ import annotations

from dataclasses import asdict

from autoseg.core.errors import IncompatibleError
from autoseg.core.networks import ImageHead
from autoseg.core.plan import Configuration, Value
from autoseg.io.values import from_plain

# Names of its values begin so; those of the tasks' values begin with a task's name.
STEM = "image_head"
LIST = "output_bias"


def head_values(head: ImageHead) -> dict[str, Value]:
    """What a plan keeps of a head, for `head_of`; every number by itself."""
    values = {f"{STEM}.{name}": value for name, value in asdict(head).items() if name != LIST}
    return values | {f"{STEM}.{LIST}.{place}": value for place, value in enumerate(head.output_bias)}


def head_of(configuration: Configuration) -> ImageHead:
    """The head of a planned configuration.

    Raises:
        IncompatibleError: it has none, or one that cannot be built.
    """
    stem = f"{STEM}."
    plain = {name.removeprefix(stem): value for name, value in configuration.task_values.items() if name.startswith(stem)}
    bias = [plain.pop(name) for name in list(plain) if name.startswith(f"{LIST}.")]
    source = f"configuration {configuration.name!r}, {STEM} under task_values"
    if not plain:
        raise IncompatibleError(f"{source}: there is none; it is no plan of a joint task. Plan again")
    head = from_plain({**plain, LIST: bias}, ImageHead, source=source)
    if len(head.output_bias) not in (0, head.out_channels):
        raise IncompatibleError(f"{source}: {len(head.output_bias)} values of {LIST} for {head.out_channels} outputs; give one "
                                "for each, or none")
    return head
