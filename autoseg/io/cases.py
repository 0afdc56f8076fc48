"""From files that were found to cases: what each lacks, and what is known of it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from autoseg.core.case import Case
from autoseg.core.spec import DatasetSpec, LayoutSpec
from autoseg.io.grouping import GroupRow, GroupTable
from autoseg.io.layouts import Found, is_safe_id
from autoseg.io.problems import Problem


@dataclass(frozen=True)
class Match:
    """One layout, tried on a folder."""

    layout: LayoutSpec
    found: Found
    complete: tuple[str, ...] = field(default=())


@dataclass(frozen=True)
class Assembled:
    """Cases, sorted by id, why others are none, and how many are left out for which reason."""

    cases: tuple[Case, ...]
    problems: tuple[Problem, ...]
    left_out: dict[str, int]


def assemble(match: Match, wanted: Sequence[str], groups: GroupTable) -> Assembled:
    """The cases among the ids `wanted`."""
    cases: list[Case] = []
    problems: list[Problem] = []
    left_out: Counter[str] = Counter()
    for case_id in sorted(wanted):
        mistakes = incomplete(case_id, match)
        problems += mistakes
        if mistakes or not is_safe_id(case_id):
            continue
        row = groups.row(case_id, match.found.groups.get(case_id), match.found.values.get(case_id, {}))
        if isinstance(row, Problem):
            problems.append(row)
            continue
        if row.left_out is not None:
            left_out[row.left_out] += 1
        else:
            cases.append(_case(case_id, match.found, row))
    return Assembled(tuple(cases), tuple(problems), dict(left_out))


def incomplete(case_id: str, match: Match) -> list[Problem]:
    """What a case lacks in its layout."""
    files = match.found.cases[case_id]
    problems = []
    for role, patterns in match.layout.inputs.items():
        missing = [pattern for index, pattern in enumerate(patterns) if (role, index) not in files]
        if len(missing) == len(patterns):
            problems.append(Problem(case_id, "E_NO_IMAGE", f"no {role} file; expected {', '.join(patterns)}"))
        elif missing:
            problems.append(Problem(case_id, "E_CHANNEL_MISSING", f"no {role} file {', '.join(missing)}"))
    for role, pattern in match.layout.targets.items():
        if (role, None) not in files:
            problems.append(Problem(case_id, "E_NO_LABEL", f"no {role} file; expected {pattern}"))
    return problems


def _case(case_id: str, found: Found, row: GroupRow) -> Case:
    files = found.cases[case_id]
    roles = sorted({role for role, index in files if index is not None})
    inputs = {role: tuple(files[key] for key in sorted(key for key in files if key[0] == role and key[1] is not None))
              for role in roles}
    targets = {role: path for (role, index), path in files.items() if index is None}
    return Case(case_id, row.group, inputs, targets, row.site, row.date, row.stratum, dict(row.values))


def twins(case_ids: Iterable[str]) -> list[Problem]:
    """Ids that differ in letter case only: one file on many file systems."""
    by_folded = defaultdict(list)
    for case_id in sorted(case_ids):
        by_folded[case_id.casefold()].append(case_id)
    return [Problem(ids[0], "E_CASE_TWIN", f"the ids {', '.join(ids)} differ in letter case only and would overwrite each "
                    "other; rename one") for ids in by_folded.values() if len(ids) > 1]


def split_channels(spec: DatasetSpec, cases: Iterable[Case]) -> list[Problem]:
    """Ids `a_0000`, `a_0001`, `b_0000`, `b_0001`: channels of nnU-Net that would each be taken for a case."""
    numbers = defaultdict(set)
    for case in cases:
        stem, _, number = case.id.rpartition("_")
        if not (stem and len(number) == 4 and number.isdigit()):
            return []
        numbers[stem].add(int(number))
    counts = set(map(len, numbers.values()))
    if len(numbers) < 2 or len(counts) > 1 or counts == {1} or any(max(found) + 1 > len(found) for found in numbers.values()):
        return []
    count, expected = counts.pop(), sum(len(entry.channels) for entry in spec.inputs)
    return [Problem(f"{stem}_{number:04d}", "E_CHANNEL_EXTRA", f"the files are named like {count} channels of case {stem}, "
                    f"and the model reads {expected}; give only the channels that it was trained on")
            for stem, found in sorted(numbers.items()) for number in sorted(found)]
