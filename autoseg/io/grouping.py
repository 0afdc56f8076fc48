"""Patient, site, date, stratum and values of a case: from its id, its path, or tables."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from autoseg.core.errors import DatasetError, UnsafeError, unknown_name
from autoseg.core.spec import DatasetSpec, GroupingSpec, LayoutSpec
from autoseg.core.text import has_control_characters, printable
from autoseg.io.patterns import search
from autoseg.io.problems import Problem
from autoseg.io.rows import case_rows

# A grouping by guess needs as many patients as there are folds (nnU-Net: five); with fewer it could stop a training.
_FEWEST_PATIENTS = 5


@dataclass(frozen=True)
class GroupRow:
    """What is known of a case besides its files.

    Attributes:
        values: of the table, of the named parts of its paths and of arrays beside it.
        left_out: why the case is not used; None: it is.
    """

    group: str
    site: str | None = None
    date: str | None = None
    stratum: str | None = None
    values: Mapping[str, str] = field(default_factory=dict)
    left_out: str | None = None


@dataclass(frozen=True)
class GroupTable:
    """The grouping of a dataset.

    Attributes:
        table: rows by case id; None: there is no table, or it does not matter here.
        problems: what is odd about the tables.
    """

    grouping: GroupingSpec
    table: Mapping[str, Mapping[str, str]] | None
    problems: tuple[Problem, ...] = ()

    def row(self, case_id: str, path_group: str | None, parts: Mapping[str, str]) -> GroupRow | Problem:
        """What is known of a case; without any rule every case is its own patient.

        Args:
            path_group: text that `{group}` stood for in the case's paths.
            parts: what the other named parts stood for.
        """
        row: Mapping[str, str] = {}
        if self.table is not None:
            if case_id not in self.table:
                return Problem(case_id, "E_NOT_IN_TABLE", f"{' and '.join(self.grouping.files)} have no row for this case; add "
                               "one, or exclude the case")
            row = self.table[case_id]
        differing = [name for name in parts if name in row and row[name] != parts[name]]
        if differing:
            name = differing[0]
            return Problem(case_id, "E_VALUE", f"{name} is {printable(row[name][:60])!r} in the table and {parts[name]!r} by the "
                           "name of the file; correct one, or rename the part in the layout")
        return self._grouped(case_id, path_group, {**parts, **row})

    def _grouped(self, case_id: str, path_group: str | None, values: dict[str, str]) -> GroupRow | Problem:
        grouping = self.grouping
        group = path_group
        if grouping.pattern is not None:
            found = search(grouping.pattern, case_id)
            group = found.group(1) if found else None
            if not group:
                return Problem(case_id, "E_NO_GROUP", f"the grouping pattern {grouping.pattern!r} finds no patient in the id")
        columns = (grouping.group_column, grouping.site_column, grouping.date_column, grouping.stratify_column)
        cells = [(values.get(column) or None) if column is not None else None for column in columns]
        odd = next((cell for cell in cells if cell and has_control_characters(cell)), None)
        if odd is not None:
            return Problem(case_id, "E_TABLE", f"'{printable(odd[:60])}' holds line ends or tabs, and a patient, site, date or "
                           "stratum is expected; correct the table, or the columns under grouping")
        group, (site, date, stratum) = cells[0] or group or case_id, cells[1:]
        if grouping.strata:
            stratum = next((name for name, expression in grouping.strata.items() if search(expression, case_id)), None)
            if stratum is None:
                return Problem(case_id, "E_NO_STRATUM", "none of the grouping's strata is found in the id; looked for "
                               + ", ".join(grouping.strata.values()))
        reason = next((why for column, cells in grouping.leave_out.items() if (why := cells.get(values.get(column, "")))), None)
        return GroupRow(group, site, date, stratum, values, reason)


def patient_in_id(spec: DatasetSpec, case_id: str) -> str:
    """The patient as the specification's pattern finds it in a case id; empty where it has none, or finds none.

    For files that stand alone (a folder of predictions): tables and folders of the dataset are not at hand there.
    """
    found = None if spec.grouping.pattern is None else search(spec.grouping.pattern, case_id)
    return (found.group(1) or "") if found else ""


def read_groups(spec: DatasetSpec, folder: Path, layout: LayoutSpec, cases: Collection[str]) -> GroupTable:
    """The grouping of the dataset in `folder`, its tables read.

    Args:
        layout: of the folder; its named parts can stand for columns, and its patterns tell the case of a path in a table.
        cases: ids that the layout found.
    Raises:
        DatasetError: a table is missing, lacks a column, has two rows for a case or no row for any.
    """
    grouping = spec.grouping
    for name in grouping.files:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise UnsafeError(f"the specification {spec.name} names the table {name!r}, which lies outside the folder {folder}; "
                              "put the table into the folder", code="E_PATH_ESCAPE")
    rows = case_rows(spec, folder, layout, cases) if grouping.files else None
    columns = () if rows is None else rows.columns
    _require_columns(spec, columns, layout)
    return GroupTable(grouping, None if rows is None else rows.by_case, () if rows is None else rows.problems)


def _require_columns(spec: DatasetSpec, columns: Sequence[str], layout: LayoutSpec) -> None:
    """Raises a DatasetError where the grouping names a column that neither the tables nor the paths have."""
    grouping = spec.grouping
    known = [*columns, *sorted(layout.parts), *layout.arrays]
    wanted = (grouping.group_column, grouping.site_column, grouping.date_column, grouping.stratify_column, *grouping.leave_out)
    for column in wanted:
        if column is not None and column not in known and column.rpartition(".")[0] not in layout.arrays:
            where = ", ".join(grouping.files) or f"the specification {spec.name}"
            raise DatasetError(f"{where}: {unknown_name(column, known, 'column')}", code="E_TABLE")


def likely_grouping(cases: Sequence[str]) -> GroupingSpec:
    """The patient as the part of the case id that several cases share; no grouping where that is not plausible."""
    subjects = [re.match(r"(sub-[A-Za-z0-9]+)[_-]", case) for case in cases]
    if cases and all(subjects) and len({match[1] for match in subjects if match}) < len(cases):
        return GroupingSpec(pattern="^(sub-[A-Za-z0-9]+)")
    for count in range(1, max((len(re.findall(r"[_-]", case)) for case in cases), default=0) + 1):
        pattern = "^(.+)" + "[_-][^_-]+" * count + "$"
        groups = [match[1] if (match := re.fullmatch(pattern, case)) else case for case in cases]
        patients = len(set(groups))
        if _FEWEST_PATIENTS <= patients <= len(cases) / 2 and all(re.fullmatch(pattern, case) for case in cases):
            return GroupingSpec(pattern=pattern)
    return GroupingSpec()
