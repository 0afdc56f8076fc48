"""Plans from files: edited by people, of another version, or from a bundle of strangers."""

from __future__ import annotations

from pathlib import Path

from autoseg.core.errors import IncompatibleError
from autoseg.core.plan import PLAN_FORMAT, Plan
from autoseg.core.plan_rules import require_sound_plan
from autoseg.io.values import from_plain, read_json


def read_plan(path: Path) -> Plan:
    """The plan in a file.

    Raises:
        ReadError: the file is missing or not JSON.
        IncompatibleError: it is of a newer format, a key or value is not understood, or its parts do not fit each other; the
            message says which.
    """
    document = read_json(path)
    written = document.get("format", PLAN_FORMAT) if isinstance(document, dict) else PLAN_FORMAT
    if isinstance(written, int) and not 1 <= written <= PLAN_FORMAT:  # first of all: a newer format has other keys
        raise IncompatibleError(f"{path}: plan format {written} is not one that this autoseg understands ({PLAN_FORMAT}); "
                                "update autoseg, or plan again with this version")
    plan = from_plain(document, Plan, source=str(path))
    try:
        require_sound_plan(plan)
    except ValueError as error:
        raise IncompatibleError(f"{path}: {error}") from error
    return plan
