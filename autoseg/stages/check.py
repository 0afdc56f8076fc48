"""What the tool understood of a folder, and every problem in it; nothing is written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from autoseg.core.case import Unit
from autoseg.core.progress import Progress
from autoseg.core.report import Failure
from autoseg.core.spec import DatasetSpec, GroupingSpec
from autoseg.core.task import Task
from autoseg.io.dataset import Problem, Scan, check_case
from autoseg.io.grouping import likely_grouping
from autoseg.stages.parallel import map_cases

# Warnings whose text is the same for every case.
ABOUT_ALL = ("W_MODALITY",)


@dataclass(frozen=True)
class Understanding:
    """A scanned folder in words.

    Attributes:
        lines: what was understood, one fact a line.
        problems: everything that would stop planning or training.
        warnings: what would not, but deserves a look (an empty label map).
        ignored: files that were not used, with why.
    """

    lines: tuple[str, ...]
    problems: tuple[Failure, ...]
    warnings: tuple[Failure, ...]
    ignored: tuple[str, ...]


def run_check(task: Task, spec: DatasetSpec, scan: Scan, units: Sequence[Unit], folder: Path, *,
              executor: Executor | None, progress: Progress) -> Understanding:
    """Reads every file of the dataset completely and collects all problems."""
    results, failures = map_cases(partial(check_case, spec), scan.cases, [case.id for case in scan.cases], stage="check",
                                  executor=executor, progress=progress)
    deep = [problem for problems in results for problem in problems]
    found: dict[str, list[Failure]] = {"error": [], "warning": []}
    for problem in _gathered([*scan.problems, *deep]):
        found[problem.severity].append(Failure(problem.case, problem.code, problem.message))
    found["error"] += failures  # cases that could not be looked at: their process died, or they took too long
    groups = {unit.group for unit in units}
    found["warning"] += divided_patients(spec, [unit.id for unit in units], len(groups))
    channels = ", ".join(f"{entry.role}: {' + '.join(c.name for c in entry.channels)}" for entry in spec.inputs)
    labels = ", ".join(f"{label.value} {label.name}" for label in spec.labels)
    lines = (
        f"dataset    {spec.name} ({spec.task}), layout '{scan.layout}', in {folder}",
        f"cases      {len(scan.cases)}, of {len(groups)} patients, {sum(bool(c.targets) for c in scan.cases)} with reference",
        f"inputs     {channels}",
        f"labels     0 background, {labels}" if labels else "labels     none",
        *([] if spec.ignore is None else [f"ignored    {spec.ignore}: voxels that nobody annotated"]),
        *(f"region     {region.name}: {' + '.join(region.labels)}" for region in spec.regions),
        f"licence    {spec.licence or 'not stated'}",
        f"source     {spec.source or 'not stated'}",
    )
    return Understanding(lines, tuple(found["error"]), tuple(found["warning"]), scan.ignored)


def divided_patients(spec: DatasetSpec, ids: Sequence[str], group_count: int) -> list[Failure]:
    """A warning where every case counts as a patient and the ids look as if patients had several."""
    if spec.grouping != GroupingSpec() or group_count < len(ids):
        return []
    likely = likely_grouping(ids).pattern
    if likely is None:
        return []
    patients = {match[1] for name in ids if (match := re.search(likely, name))}
    return [Failure(f"{len(ids)} cases", "W_GROUPING", f"every case counts as a patient of its own; if {min(patients)!r} names a "
                    f"patient there are {len(patients)}, folds divide them and scores are too good. Then write in a "
                    f"specification: grouping: {{pattern: '{likely}'}} (autoseg init writes one)")]


def _gathered(problems: Sequence[Problem]) -> list[Problem]:
    """The same problems, with those that say one thing about many cases as one."""
    cases: dict[Problem, list[str]] = {}
    for problem in problems:
        key = replace(problem, case="") if problem.code in ABOUT_ALL else problem
        cases.setdefault(key, []).append(problem.case)
    return [replace(problem, case=names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more")
            for problem, names in cases.items()]
