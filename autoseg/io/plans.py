"""Plans from files: edited by people, of another version, or from a bundle of strangers."""

from __future__ import annotations

from pathlib import Path

from autoseg.core.errors import IncompatibleError
from autoseg.core.plan import Plan
from autoseg.core.plan_rules import require_sound_plan
from autoseg.io.values import read_value


def read_plan(path: Path) -> Plan:
    """The plan in a file.

    Raises:
        ReadError: the file is missing or not JSON.
        IncompatibleError: it is of a newer format, a key or value is not understood, or its parts do not fit each other; the
            message says which.
    """
    plan = read_value(path, Plan)
    if plan.format < 1:
        raise IncompatibleError(f"{path}: plan format {plan.format} is none; the first is 1")
    try:
        require_sound_plan(plan)
    except ValueError as error:
        raise IncompatibleError(f"{path}: {error}") from error
    return plan
