"""Patient, site, date and stratum of a case: from its id, its path, or a table."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autoseg.core.errors import DatasetError, ReadError, UnsafeError, unknown_name
from autoseg.core.spec import DatasetSpec, GroupingSpec
from autoseg.core.text import has_control_characters, printable
from autoseg.io.documents import read_document
from autoseg.io.patterns import search
from autoseg.io.problems import Problem

# A grouping by guess needs as many patients as there are folds (nnU-Net: five); with fewer it could stop a training.
_FEWEST_PATIENTS = 5
# A row per case of some 200 bytes: room for 300,000.
_MAX_TABLE_BYTES = 2**26


@dataclass(frozen=True)
class GroupRow:
    """What is known of a case besides its files."""

    group: str
    site: str | None = None
    date: str | None = None
    stratum: str | None = None


@dataclass(frozen=True)
class GroupTable:
    """The grouping of a dataset.

    Attributes:
        table: rows by case id; None: there is no table, or it does not matter here.
    """

    grouping: GroupingSpec
    table: dict[str, dict[str, str]] | None

    def row(self, case_id: str, path_group: str | None) -> GroupRow | Problem:
        """What is known of a case; without any rule every case is its own patient.

        Args:
            path_group: text that `{group}` stood for in the case's paths.
        """
        row: dict[str, str] = {}
        if self.table is not None:
            if case_id not in self.table:
                return Problem(case_id, "E_NOT_IN_TABLE", f"the table {self.grouping.table} has no row for this case; add one")
            row = self.table[case_id]
        group = path_group
        if self.grouping.pattern is not None:
            found = search(self.grouping.pattern, case_id)
            group = found.group(1) if found else None
            if not group:
                return Problem(case_id, "E_NO_GROUP", f"the grouping pattern {self.grouping.pattern!r} finds no patient in "
                               "the id")
        group = self._cell(row, self.grouping.group_column) or group or case_id
        site, date, stratum = (self._cell(row, column) for column in (
            self.grouping.site_column, self.grouping.date_column, self.grouping.stratify_column))
        if self.grouping.strata:
            stratum = next((name for name, expression in self.grouping.strata.items() if search(expression, case_id)), None)
            if stratum is None:
                return Problem(case_id, "E_NO_STRATUM", "none of the grouping's strata is found in the id; looked for "
                               + ", ".join(self.grouping.strata.values()))
        return GroupRow(group, site, date, stratum)

    @staticmethod
    def _cell(row: dict[str, str], column: str | None) -> str | None:
        return (row.get(column) or None) if column is not None else None


def patient_in_id(spec: DatasetSpec, case_id: str) -> str:
    """The patient as the specification's pattern finds it in a case id; empty where it has none, or finds none.

    For files that stand alone (a folder of predictions): tables and folders of the dataset are not at hand there.
    """
    found = None if spec.grouping.pattern is None else search(spec.grouping.pattern, case_id)
    return (found.group(1) or "") if found else ""


def read_groups(spec: DatasetSpec, folder: Path) -> GroupTable:
    """The grouping of the dataset in `folder`, its table read.

    Raises:
        DatasetError: the table is missing, lacks a column, or has two rows for a case.
    """
    grouping = spec.grouping
    if grouping.table is None:
        return GroupTable(grouping, None)
    path = folder / grouping.table
    if Path(grouping.table).is_absolute() or ".." in Path(grouping.table).parts:
        raise UnsafeError(f"the specification {spec.name} names the table {grouping.table!r}, which lies outside the folder "
                          f"{folder}; put the table into the folder", code="E_PATH_ESCAPE")
    try:
        text = read_document(path, _MAX_TABLE_BYTES)
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter="\t" if path.suffix.lower() == ".tsv" else ",",
                                strict=True)
        rows, columns = list(reader), list(reader.fieldnames or ())
    except (ReadError, csv.Error) as error:
        raise DatasetError(f"the table {path} of dataset {spec.name} cannot be read: {error}", code="E_TABLE") from error
    wanted = (grouping.case_column, grouping.group_column, grouping.site_column, grouping.date_column, grouping.stratify_column)
    for column in wanted:
        if column is not None and column not in columns:
            raise DatasetError(f"{path}: {unknown_name(column, columns, 'column')}", code="E_TABLE")
    table: dict[str, dict[str, str]] = {}
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise DatasetError(f"{path}: row {number} does not have the {len(columns)} cells of the first row; correct it",
                               code="E_TABLE")
        odd = next((cell for cell in row.values() if has_control_characters(cell)), None)
        if odd is not None:
            raise DatasetError(f"{path}: row {number} holds the cell '{printable(odd[:60])}' with control characters; remove "
                               "them", code="E_TABLE")
        case_id = row[grouping.case_column]
        if case_id in table:
            raise DatasetError(f"{path} has two rows for case {case_id}; remove one", code="E_TABLE")
        table[case_id] = row
    return GroupTable(grouping, table)


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
