"""What the tool understood of a folder, and every problem in it; nothing is written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from autoseg.core.case import Case, Unit, single_units
from autoseg.core.progress import Progress
from autoseg.core.report import Failure
from autoseg.core.spec import DatasetSpec, GroupingSpec
from autoseg.core.task import Task
from autoseg.io.dataset import Facts, Problem, Scan, examine_case
from autoseg.io.grouping import likely_grouping
from autoseg.io.problems import absent_labels_text
from autoseg.planning.splits import FOLDS, crosses_patients
from autoseg.reporting.numbers import counted
from autoseg.stages import suspects
from autoseg.stages.parallel import map_cases, require_all

# Patients from which on every fold is trained on more than one.
FEWEST_PATIENTS = 3
# Warnings whose text is the same for every case.
ABOUT_ALL = ("W_ENDING", "W_GREY", "W_LUMINANCE", "W_MODALITY", "W_NO_GEOMETRY", "W_NO_SPACING", "W_UNIT")


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
    results, failures = map_cases(partial(_examined, spec), scan.cases, [case.id for case in scan.cases], stage="check",
                                  executor=executor, progress=progress)
    deep = [problem for _, facts in results for problem in facts.problems]
    found: dict[str, list[Failure]] = {"error": [], "warning": []}
    for problem in _gathered([*scan.problems, *deep, *_absent_labels(spec, [facts for _, facts in results])]):
        found[problem.severity].append(Failure(problem.case, problem.code, problem.message))
    found["error"] += failures  # cases that could not be looked at: their process died, or they took too long
    ids = [case for case, _ in results]
    found["warning"] += suspects.channel_warnings(spec, ids, [facts.profiles for _, facts in results])
    found["warning"] += suspects.copy_warnings(suspects.find_copies(ids, [facts.content for _, facts in results]))
    for failure in task.examine(units, spec):
        found["warning" if is_warning(failure) else "error"].append(failure)
    ones = single_units(units) if crosses_patients(units) else units
    groups = {unit.group for unit in ones}
    found["warning"] += [*divided_patients(spec, [unit.id for unit in ones], len(groups)), *few_patients(units),
                         *links_outside(scan.outside, folder)]
    channels = ", ".join(f"{entry.role}: {' + '.join(c.name for c in entry.channels)}" for entry in spec.inputs)
    lines = (
        f"dataset    {spec.name} ({spec.task}), layout '{scan.layout}', in {folder}",
        f"cases      {_cases_text(scan, units, len(groups))}",
        *([f"folds      {len(groups)}, one patient left out in each"] if 1 < len(groups) < FOLDS else []),
        f"inputs     {channels}",
        *(f"{name:<10} {value}" for name, value in task.facts(spec, units).items()),
        f"licence    {spec.licence or 'not stated'}",
        f"source     {spec.source or 'not stated'}",
    )
    return Understanding(lines, tuple(found["error"]), tuple(found["warning"]), scan.ignored)


def is_warning(failure: Failure) -> bool:
    """Whether a failure stops nothing, by its code."""
    return failure.code.startswith("W_")


def require_sound_units(task: Task, spec: DatasetSpec, units: Sequence[Unit]) -> list[Failure]:
    """The task's warnings about all units together.

    Raises:
        DatasetError: the task finds something in them that no plan can be made of; everything found is listed.
    """
    found = task.examine(units, spec)
    require_all([failure for failure in found if not is_warning(failure)], f"dataset {spec.name!r}")
    return [failure for failure in found if is_warning(failure)]


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


def links_outside(links: Sequence[Path], folder: Path) -> list[Failure]:
    """One warning for all links that lead out of the folder."""
    if not links:
        return []
    return [Failure(counted(len(links), "file"), "W_LINK", f"links that lead out of {folder} are read, for example {links[0]} -> "
                    f"{links[0].resolve()}; if you did not make them, look where they lead")]


def few_patients(units: Sequence[Unit]) -> list[Failure]:
    """A warning where a fold would be trained on a single patient, or where there is no fold at all."""
    count = len({unit.group for unit in (single_units(units) if crosses_patients(units) else units)})
    if not 0 < count < FEWEST_PATIENTS:
        return []
    what = ("no fold can be validated; autoseg train -f all trains one model without validation" if count == 1 else
            f"there are {count} folds instead of {FOLDS}, each trained on one patient, and scores say little")
    return [Failure(counted(len(units), "case"), "W_FEW_PATIENTS", f"of {counted(count, 'patient')}: {what}")]


def _cases_text(scan: Scan, units: Sequence[Unit], patients: int) -> str:
    """How many cases are trained on or validated, of how many patients, with how many references, and how many are not."""
    used = sum(len(unit.cases) for unit in units)
    known = sum(len(unit.cases) for unit in units if unit.has_reference)
    rest = len(scan.cases) - used
    return f"{used}, of {patients} patients, {known} with reference" + (f"; {rest} more are not trained on" if rest > 0 else "")


def _examined(spec: DatasetSpec, case: Case) -> tuple[str, Facts]:
    return case.id, examine_case(spec, case)


def _absent_labels(spec: DatasetSpec, cases: Sequence[Facts]) -> list[Problem]:
    """Labels that no label map holds; nothing where a label map could not be read, as it may hold them."""
    with_labels = [facts for facts in cases if facts.labels is not None]
    if not with_labels or any(facts.labels is None and facts.problems for facts in cases):
        return []
    present = frozenset[int]().union(*(facts.labels or () for facts in with_labels))
    absent = [f"{label.name} ({label.value})" for label in spec.labels if label.value not in present]
    return [Problem(f"{len(with_labels)} cases", "E_LABEL_ABSENT", absent_labels_text(spec.name, absent))] if absent else []


def _gathered(problems: Sequence[Problem]) -> list[Problem]:
    """The same problems, with those that say one thing about many cases as one."""
    cases: dict[Problem, list[str]] = {}
    for problem in problems:
        key = replace(problem, case="") if problem.code in ABOUT_ALL else problem
        cases.setdefault(key, []).append(problem.case)
    return [replace(problem, case=names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more")
            for problem, names in cases.items()]
