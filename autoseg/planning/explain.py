"""A plan as a table: every planned value with what it was derived from, why, and by which rule."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, TypeAlias

from autoseg.core.plan import Plan, Reason

Reasons: TypeAlias = dict[str, Reason]

EXPLAINED = ("transpose", "inputs", "configurations", "seed")


@dataclass(frozen=True)
class Row:
    """One planned value and its reason; `value` is text, numbers of tuples joined by `x` or commas."""

    path: str
    value: str
    inputs: str
    because: str
    source: str


def explain(plan: Plan) -> list[Row]:
    """One row per planned value, in the order of the plan; a value without a reason says so."""
    rows = []
    for key in EXPLAINED:
        for path, value in _leaves(getattr(plan, key), key):
            reason = nearest_reason(plan.reasons, path)
            rows.append(Row(path, _text(value), reason.inputs, reason.because, reason.source))
    return rows


def nearest_reason(reasons: Mapping[str, Reason], path: str) -> Reason:
    """The reason of the longest path that covers `path`."""
    parts = path.split(".")
    for length in range(len(parts), 0, -1):
        found = reasons.get(".".join(parts[:length]))
        if found is not None:
            return found
    return Reason("", "no reason is recorded", "")


def below(prefix: str, reasons: Mapping[str, Reason]) -> Reasons:
    """The same reasons with `prefix.` before every path."""
    return {f"{prefix}.{path}": reason for path, reason in reasons.items()}


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if path == "inputs":
        children = {f"{entry.role}.{index}": channel for entry in value for index, channel in enumerate(entry.channels)}
    elif is_dataclass(value):
        children = {entry.name: getattr(value, entry.name) for entry in fields(value)}
    elif isinstance(value, dict):
        children = value
    else:
        yield path, value
        return
    for key, child in children.items():
        yield from _leaves(child, f"{path}.{key}")


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, tuple):
        return (", " if any(isinstance(v, tuple) for v in value) else " x ").join(_text(v) for v in value) or "none"
    return str(value)
