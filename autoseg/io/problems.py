"""Problems of single cases, collected so that the user sees all of them at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from autoseg.core.errors import DatasetError
from autoseg.core.spec import DatasetSpec

# Of the values that are said; a map of floats that was taken for labels has thousands.
MOST_VALUES = 5
# Of many cases with one problem so many are named; a table can lack thousands.
_NAMED_CASES = 5


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


def require_no_problems(problems: Iterable[Problem], spec: DatasetSpec, folder: Path | None = None) -> None:
    """Raise one DatasetError that lists every problem, those that say the same of many cases as one; warnings do not count.

    Args:
        folder: with the images, for the next command.
    """
    errors = [problem for problem in problems if problem.severity == "error"]
    if not errors:
        return
    cases: dict[tuple[str, str], list[str]] = {}
    for problem in errors:
        cases.setdefault((problem.message, problem.code), []).append(problem.case)
    lines = "\n".join(f"  {_named(names)}: {message} [{code}]" for (message, code), names in cases.items())
    count = len({problem.case for problem in errors})
    codes = {problem.code for problem in errors}
    raise DatasetError(f"dataset {spec.name}: {count} case{'s have' if count > 1 else ' has'} problems:\n{lines}\n"
                       "Repair these files, or list the cases under 'exclude' in the specification (`autoseg init FOLDER`"
                       " writes one).",
                       code=codes.pop() if len(codes) == 1 else "E_CASES", hint=f"autoseg check {_dataset_options(spec, folder)}")


def _named(cases: Sequence[str]) -> str:
    more = len(cases) - _NAMED_CASES
    return ", ".join(cases[:_NAMED_CASES]) + (f" and {more} more" if more > 0 else "")


def _dataset_options(spec: DatasetSpec, folder: Path | None) -> str:
    """How a dataset is named that may not be remembered yet."""
    if folder is None:
        return f"-d {spec.name}"
    return f"-d {folder}" if (folder / "dataset.json").is_file() else f"-d {spec.name} -i {folder}"


def unlisted_values_text(label: NDArray, spec: DatasetSpec) -> str:
    """The sentence about values of a label map that the specification does not list, with their voxels."""
    values, counts = np.unique(label, return_counts=True)
    unlisted = [f"{value} ({count} voxel{'s' if count > 1 else ''})" for value, count in zip(values, counts, strict=True)
                if value not in (0, *spec.listed_values)]
    listed = [f"{entry.value} {entry.name}" for entry in spec.labels]
    listed += [] if spec.ignore is None else [f"{spec.ignore} ignored"]
    more = f" and {len(unlisted) - MOST_VALUES} more" if len(unlisted) > MOST_VALUES else ""
    return (f"label values {', '.join(unlisted[:MOST_VALUES])}{more} are not in the specification {spec.name!r}, which lists 0 "
            f"background, {', '.join(listed)}; add them to its labels or correct the file")


def absent_labels_text(dataset: str, absent: Sequence[str]) -> str:
    """The sentence about labels that occur nowhere."""
    return (f"no label map of dataset {dataset} holds {', '.join(absent)}; nothing can be learned of what is never seen. Correct "
            "the values in the specification or in the files, or take the label out of the specification")
