"""Specifications as text for people: all of them in short, or one in full."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from autoseg.cli.screen import Screen

if TYPE_CHECKING:
    from autoseg.core.spec import DatasetSpec, LayoutSpec

# Wider text is hard to read; narrower terminals wrap the lines themselves.
_WIDEST, _NARROWEST = 120, 60


def overview(screen: Screen, specs: Sequence[DatasetSpec]) -> None:
    """Two lines per specification: channels and labels, then the licence."""
    width = max(len(spec.name) for spec in specs)
    for spec in specs:
        channels = " + ".join(channel.name for entry in spec.inputs for channel in entry.channels)
        labels = ", ".join(label.name for label in spec.labels) or spec.task
        licence = spec.licence.replace("; ", ". ").split(". ")[0] or "not stated"
        screen.say(f"{spec.name:{width}}  {_short(f'{channels} -> {labels}', width)}\n"
                   f"{'':{width}}  {_short(f'licence: {licence}', width)}")
    screen.say("\nnext: autoseg datasets NAME, or autoseg check -d NAME -i FOLDER")


def in_full(screen: Screen, spec: DatasetSpec) -> None:
    """Everything that a specification says."""
    screen.say(f"{spec.name} ({spec.task})")
    for key in ("description", "source", "licence", "reference"):
        screen.say(_wrapped(key, getattr(spec, key) or "not stated"))
    for entry in spec.inputs:
        screen.say(_wrapped(entry.role, " + ".join(f"{channel.name}" if channel.normalization == "auto" else
                                                   f"{channel.name} ({channel.normalization})" for channel in entry.channels)))
    screen.say(_wrapped("labels", ", ".join(f"{label.value} {label.name}" for label in spec.labels) or "none"))
    for region in spec.regions:
        screen.say(_wrapped("region", f"{region.name}: {' + '.join(region.labels)}"))
    grouping = spec.grouping
    patients = f"in the case id: {grouping.pattern}" if grouping.pattern else f"in {grouping.table}" if grouping.table else ""
    for key, value in (("patients", patients), ("strata", ", ".join(grouping.strata))):
        if value:
            screen.say(_wrapped(key, value))
    for layout in spec.layouts:
        _show_layout(screen, layout)


def _show_layout(screen: Screen, layout: LayoutSpec) -> None:
    screen.say(f"\nlayout '{layout.name}'")
    for role, patterns in layout.inputs.items():
        for pattern in patterns:
            screen.say(_wrapped(role, pattern))
    for role, pattern in layout.targets.items():
        screen.say(_wrapped(role, pattern + (" (the union of the masks in this folder)" if pattern.endswith("/") else "")))
    if layout.case_id != "{case}":
        screen.say(_wrapped("case id", layout.case_id))
    if layout.values:
        screen.say(_wrapped("values", _listed(layout.values)))
    for value, array in layout.arrays.items():
        screen.say(_wrapped(value, f"array {array}, one row per entry"))
    for pattern, reason in layout.leave_out.items():
        screen.say(_wrapped("left out", f"{pattern} ({reason})"))


def _listed(values: Mapping[str, int]) -> str:
    return ", ".join(f"{value} {name}" for name, value in values.items())


def _short(text: str, indent: int) -> str:
    return textwrap.shorten(text, _columns() - indent - 2, placeholder=" ...")


def _wrapped(key: str, text: str) -> str:
    lines = textwrap.wrap(text, _columns() - 14, break_long_words=False, break_on_hyphens=False)
    return "\n".join(f"  {name:<12}{line}".rstrip() for name, line in zip([key, *[""] * len(lines)], lines, strict=False))


def _columns() -> int:
    return min(_WIDEST, max(_NARROWEST, shutil.get_terminal_size((_WIDEST, 24)).columns))
