"""How a stage tells how far it is, without knowing who listens."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called with the stage's name, the steps done and all steps; `detail` is short text (losses, case ids)."""

    def __call__(self, stage: str, done: int, total: int, detail: str = "") -> None: ...


def silent(stage: str, done: int, total: int, detail: str = "") -> None:
    """Listens to nothing."""
