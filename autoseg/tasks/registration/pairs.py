"""Which cases are registered with which: by a rule of the specification, or as a table lists them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from autoseg.core.case import Case
from autoseg.core.errors import DatasetError, unknown_name
from autoseg.core.spec import DatasetSpec
from autoseg.io.grouping import patient_in_id
from autoseg.io.patterns import search
from autoseg.io.tables import read_table
from autoseg.tasks.registration.spec import RegistrationOptions, pair_id, registration_options

Pair = tuple[Case, Case]  # fixed, moving

COLUMNS = ("fixed", "moving")
# Of the partners of a cohort's cases: the same cases always have the same pairs.
SEED = 0
# Folders above an image in which a table of pairs may lie: layouts have two or three levels.
LEVELS = 4


def list_pairs(spec: DatasetSpec, cases: Sequence[Case]) -> list[Pair]:
    """Fixed and moving case of every pair.

    A table of pairs decides where the specification says so, and where it lies beside the images of a folder to predict.

    Raises:
        DatasetError: see `index_units`.
    """
    options = registration_options(spec)
    ordered = sorted(cases, key=lambda case: case.id)
    table = find_table(options, ordered)
    if table is not None:
        pairs = listed(table, ordered)
    elif options.pairs == "table":
        raise DatasetError(f"no table {options.table!r} lies beside the images of {spec.name!r} or above them; make one with the "
                           "columns fixed and moving, which hold case ids", code="E_PAIRS")
    else:
        pairs = {"cohort": cohort, "within_patient": within_patient, "atlas": with_atlas}[options.pairs](options, spec, ordered)
    if not pairs:
        raise DatasetError(f"{len(cases)} case(s) of {spec.name!r} make no pair by the rule '{options.pairs}'; a pair needs two "
                           "images" + (" of one patient" if options.pairs == "within_patient" else ""), code="E_PAIRS")
    twice = [name for name, count in Counter(pair_id(fixed.id, moving.id) for fixed, moving in pairs).items() if count > 1]
    if twice:
        raise DatasetError(f"{twice[0]} stands for two pairs of {spec.name!r}; list each pair once, and rename cases whose ids "
                           "hold '_to_'", code="E_PAIRS")
    return pairs


def find_table(options: RegistrationOptions, cases: Sequence[Case]) -> Path | None:
    """The table of pairs: in the folder of the images; where the specification asks for one, also above it."""
    paths = [paths[0] for case in cases[:1] for paths in case.inputs.values() if paths]
    folders = [folder for path in paths[:1] for folder in list(path.parents)[:LEVELS if options.pairs == "table" else 1]]
    return next((folder / options.table for folder in folders if (folder / options.table).is_file()), None)


def listed(table: Path, cases: Sequence[Case]) -> list[Pair]:
    """The pairs of a table.

    Raises:
        DatasetError: a column is missing, or rows name cases that do not exist or the same case twice; all are counted.
    """
    found = read_table(table, COLUMNS)
    places = [found.place(column) for column in COLUMNS]
    by_id = {case.id: case for case in cases}
    pairs, problems = [], []
    for number, row in found.rows:
        names = [row[place].strip() for place in places]
        unknown = [name for name in names if name not in by_id]
        if unknown:
            problems.append(f"row {number}: {unknown_name(unknown[0], list(by_id), 'case')}")
        elif names[0] == names[1]:
            problems.append(f"row {number}: {names[0]} is to be registered with itself")
        else:
            pairs.append((by_id[names[0]], by_id[names[1]]))
    if problems:
        raise DatasetError(f"{table}: {problems[0]}" + (f" (and {len(problems) - 1} more rows)" if problems[1:] else ""),
                           code="E_PAIRS", hint="correct the table; cases are named without ending and channel number")
    return pairs


def cohort(options: RegistrationOptions, spec: DatasetSpec, cases: Sequence[Case]) -> list[Pair]:
    """Ordered pairs of any two cases: each is the fixed one for equally many others, drawn by a fixed seed."""
    partners = min(len(cases) - 1, max(1, round(options.pair_count / max(len(cases), 1))))
    rng = np.random.default_rng(SEED)
    pairs = []
    for place, fixed in enumerate(cases):
        others = [*cases[:place], *cases[place + 1:]]
        chosen = sorted(rng.permutation(len(others))[:partners])
        pairs += [(fixed, others[int(other)]) for other in chosen]
    return pairs


def within_patient(options: RegistrationOptions, spec: DatasetSpec, cases: Sequence[Case]) -> list[Pair]:
    """The fixed image of every patient with each other one of the patient."""
    patients: dict[str, list[Case]] = {}
    for case in cases:  # the patients of images to predict are in their ids only
        patients.setdefault(case.group if case.group != case.id else patient_in_id(spec, case.id) or case.id, []).append(case)
    pairs = []
    for found in patients.values():
        fixed = [case for case in found if search(options.fixed, case.id)] if options.fixed else found[:1]
        pairs += [(one, other) for one in fixed for other in found if other not in fixed]
    return pairs


def with_atlas(options: RegistrationOptions, spec: DatasetSpec, cases: Sequence[Case]) -> list[Pair]:
    """The atlas with every other case.

    Raises:
        DatasetError: no case is called like the atlas.
    """
    atlas = next((case for case in cases if case.id == options.atlas), None)
    if atlas is None:
        raise DatasetError(unknown_name(str(options.atlas), [case.id for case in cases],
                                        f"atlas of {spec.name!r}, which must be a case:"), code="E_PAIRS")
    others = [case for case in cases if case is not atlas]
    return [(atlas, case) if options.atlas_is == "fixed" else (case, atlas) for case in others]
