"""Problems of single cases, collected so that the user sees all of them at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from autoseg.core.errors import DatasetError
from autoseg.core.spec import DatasetSpec


@dataclass(frozen=True)
class Problem:
    """Why a case cannot be used, or what is odd about it.

    Attributes:
        case: id.
        code: stable identifier of the kind of problem (`E_...`, `W_...`).
        message: the whole sentence for the user.
        severity: a case with a warning can be used.
    """

    case: str
    code: str
    message: str
    severity: Literal["error", "warning"] = "error"


def require_no_problems(problems: Iterable[Problem], spec: DatasetSpec) -> None:
    """Raise one DatasetError that lists every problem; warnings do not count."""
    errors = [problem for problem in problems if problem.severity == "error"]
    if not errors:
        return
    lines = "\n".join(f"  {problem.case}: {problem.message} [{problem.code}]" for problem in errors)
    count = len({problem.case for problem in errors})
    codes = {problem.code for problem in errors}
    raise DatasetError(f"dataset {spec.name}: {count} case{'s have' if count > 1 else ' has'} problems:\n{lines}\n"
                       "Repair these files, or list the cases under 'exclude' in the specification.",
                       code=codes.pop() if len(codes) == 1 else "E_CASES", hint=f"autoseg check -d {spec.name}")


def absent_labels_text(dataset: str, absent: Sequence[str]) -> str:
    """The sentence about labels that occur nowhere."""
    return (f"no label map of dataset {dataset} holds {', '.join(absent)}; nothing can be learned of what is never seen. Correct "
            "the values in the specification or in the files, or take the label out of the specification")
