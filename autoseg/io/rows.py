"""Which row of a dataset's tables belongs to which case."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from autoseg.core.errors import DatasetError
from autoseg.core.spec import DatasetSpec, GroupingSpec, LayoutSpec
from autoseg.core.text import has_control_characters, printable
from autoseg.io.images.endings import LOSSY_ENDINGS, image_ending
from autoseg.io.patterns import filled, match_whole, pattern_regex
from autoseg.io.problems import Problem
from autoseg.io.tables import Table, read_table, read_text

# Endings that a table may name and that are stripped: of images, and of what they were made from.
_OTHER_ENDINGS = (*LOSSY_ENDINGS, ".dcm", ".npy")
# Cells that say "this one" in a column for one class (ISIC writes floats).
_YES, _NO = ("1", "1.0", "true"), ("0", "0.0", "false", "")
_NAMED_CASES = 3
# The value of a case that says which split it belongs to.
SPLIT = "split"


@dataclass(frozen=True)
class CaseRows:
    """Cells by case and column.

    Attributes:
        columns: of all tables, and values that were made from them.
        by_case: rows of the cases that every table and one of the lists of splits names.
        problems: rows without a file, and what is odd about the text.
    """

    columns: tuple[str, ...]
    by_case: Mapping[str, Mapping[str, str]]
    problems: tuple[Problem, ...]


def case_rows(spec: DatasetSpec, folder: Path, layout: LayoutSpec, cases: Collection[str]) -> CaseRows:
    """The rows of all cases in the tables and lists of a specification.

    A cell names a case by its id, by a file name with its ending, or by a path that fits a pattern of the layout, perhaps
    below folders that are not there.

    Raises:
        DatasetError: see `grouping.read_groups`.
    """
    grouping = spec.grouping
    names = _CaseNames(layout, frozenset(cases))
    columns: list[str] = []
    problems: list[Problem] = []
    parts: list[dict[str, dict[str, str]]] = []
    for name in [file for file in (grouping.table, *grouping.more_tables) if file is not None]:
        table = read_table(_file(folder, name), _wanted(grouping))
        again = [column for column in table.columns if column in columns and column != grouping.case_column]
        if again:
            raise DatasetError(f"{table.path}: the column {again[0]!r} is in an earlier table too; rename one", code="E_TABLE")
        columns += [column for column in table.columns if column not in columns]
        rows, fileless = _rows_by_case(table, grouping, names)
        problems += [*table.problems, *_without_file(table.path, fileless)]
        parts.append(rows)
    if grouping.splits:
        columns.append(SPLIT)
        parts.append(_splits(grouping, folder, names))
    _add_chosen(grouping, columns, parts, folder)
    by_case = {case: merged for case in parts[0] if (merged := _merged(case, parts)) is not None}
    return CaseRows((*columns, *grouping.one_of), by_case, tuple(problems))


class _CaseNames:
    """Finds the case that a cell means."""

    def __init__(self, layout: LayoutSpec, cases: frozenset[str]) -> None:
        self.cases = cases
        self._patterns = [pattern_regex(pattern) for pattern in layout.patterns]
        self._template = layout.case_id

    def __call__(self, cell: str) -> str | None:
        """The id of a case; None where no case has this name."""
        text = cell.strip().replace("\\", "/")
        return next((name for name in self._candidates(text) if name in self.cases), None)

    def _candidates(self, text: str) -> Iterator[str]:
        yield text
        yield _without_ending(text)
        below = text
        while "/" in below and not has_control_characters(below):
            yield from (filled(self._template, match) for pattern in self._patterns if (match := match_whole(pattern, below)))
            below = below.partition("/")[2]
        yield _without_ending(below)


def is_table(name: str, grouping: GroupingSpec) -> bool:
    """True for a file, relative to the dataset folder, that the grouping names."""
    return any(match_whole(pattern_regex(file), name) for file in grouping.files)


def _file(folder: Path, name: str) -> Path:
    """The file that a specification names, perhaps with `*`."""
    found = sorted(folder.glob(name)) if "*" in name else [folder / name]
    if len(found) != 1:
        raise DatasetError(f"{folder} has " + (f"{len(found)} tables that are called {name}; keep one" if found else
                                               f"no table that is called {name}; put it there"), code="E_TABLE")
    return found[0]


def _without_ending(name: str) -> str:
    ending = image_ending(Path(name)) or next((ending for ending in _OTHER_ENDINGS if name.lower().endswith(ending)), "")
    return name[:len(name) - len(ending)] if ending else name


def _wanted(grouping: GroupingSpec) -> list[str]:
    columns = (grouping.case_column, grouping.group_column, grouping.site_column, grouping.date_column, grouping.stratify_column)
    return [column for column in columns if column is not None]


def _rows_by_case(table: Table, grouping: GroupingSpec, names: _CaseNames) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Rows by case, and the cells that name no case."""
    place = table.place(grouping.case_column)
    found: dict[str, dict[str, str]] = {}
    fileless = []
    shared: dict[str, str] = {}  # one object per text: most cells are one of few classes
    for number, cells in table.rows:
        case = names(cells[place])
        if case is None:
            fileless.append(cells[place])
        elif case in found:
            raise DatasetError(f"{table.path} has two rows for case {case}, the second is row {number}; remove one",
                               code="E_TABLE")
        else:
            found[case] = {column: shared.setdefault(cell, cell) for column, cell in zip(table.columns, cells, strict=True)}
    if fileless and not found and names.cases:
        raise DatasetError(f"{table.path}: no row names a case; the column {grouping.case_column!r} holds cells such as "
                           f"{printable(fileless[0][:80])!r}, and cases are called {min(names.cases)!r}. Correct case_column, or "
                           "the patterns of the layout", code="E_TABLE")
    return found, fileless


def _without_file(path: Path, cells: Sequence[str]) -> list[Problem]:
    if not cells:
        return []
    first = ", ".join(printable(cell[:80]) for cell in cells[:_NAMED_CASES])
    more = len(cells) - _NAMED_CASES
    return [Problem(path.name, "W_NO_FILE", f"{len(cells)} row{'s' if len(cells) > 1 else ''} of {path} name no file that is "
                    f"there: {first}{f' and {more} more' if more > 0 else ''}; the rows are not used", "warning")]


def _splits(grouping: GroupingSpec, folder: Path, names: _CaseNames) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for split, name in grouping.splits.items():
        for line in read_text(_file(folder, name))[0].splitlines():
            case = names(line) if line.strip() else None
            if case is not None and found.setdefault(case, {SPLIT: split})[SPLIT] != split:
                raise DatasetError(f"{folder / name} names case {case}, which is in the split "
                                   f"{found[case][SPLIT]!r} too; remove it from one of the lists", code="E_TABLE")
    if not found and names.cases:
        raise DatasetError(f"{', '.join(grouping.splits.values())} in {folder} name no case; cases are called "
                           f"{min(names.cases)!r}", code="E_TABLE")
    return found


def _add_chosen(grouping: GroupingSpec, columns: Sequence[str], parts: Sequence[dict[str, dict[str, str]]], folder: Path) -> None:
    """Adds the values of `one_of`: the name of the column that is 1."""
    for value, choices in grouping.one_of.items():
        where = f"{folder / grouping.files[0]}: one_of {value}"
        missing = [column for column in choices if column not in columns]
        if missing or value in columns:
            raise DatasetError(f"{where} " + (f"names the column {missing[0]!r}, which is not there" if missing else
                                              "is called like a column; give it another name"), code="E_TABLE")
        rows = next(part for part in parts if choices[0] in next(iter(part.values()), {choices[0]: ""}))
        for case, row in rows.items():
            row[value] = _chosen(f"{where} of case {case}", {column: row.get(column, "").strip().lower() for column in choices})


def _chosen(where: str, cells: Mapping[str, str]) -> str:
    chosen = [column for column, cell in cells.items() if cell in _YES]
    if len(chosen) != 1 or any(cell not in (*_YES, *_NO) for cell in cells.values()):
        raise DatasetError(f"{where}: exactly one of the columns must be 1 and the others 0, found {dict(cells)}", code="E_TABLE")
    return chosen[0]


def _merged(case: str, parts: Sequence[Mapping[str, Mapping[str, str]]]) -> dict[str, str] | None:
    """The row of a case over all tables; None where one of them has none."""
    if any(case not in part for part in parts):
        return None
    return {column: cell for part in parts for column, cell in part[case].items()}
