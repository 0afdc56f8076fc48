"""Charts of all units for the report: ROC, precision and recall, reliability, confusion, agreement; the baseline beside."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from autoseg.core.report import Estimate, Record
from autoseg.core.spec import DatasetSpec
from autoseg.metrics.calibration import calibration_bins, expected_calibration_error, top_label
from autoseg.metrics.confusion import confusion
from autoseg.metrics.roc import average_precision, precision_recall_points, roc_points
from autoseg.reporting.diagnostic import (
    bland_altman_chart,
    confusion_chart,
    precision_recall_chart,
    reliability_chart,
    roc_chart,
)
from autoseg.tasks.classification.summary import Column, Table, column_area, tables_of

# Curves of one chart that can still be told apart; further classes have their numbers in the table.
MOST_CURVES = 12
NETWORK, BASELINE = "network", "baseline"


def charts(records: Sequence[Record], baseline: Sequence[Record], spec: DatasetSpec) -> tuple[str, ...]:
    """The charts of every target; none where nothing is known of it."""
    others = {table.name: table for table in tables_of(baseline)}
    patients = [record.patient for record in records]
    drawn: list[str] = []
    for table in tables_of(records):
        other = others.get(table.name)
        if len(table.columns) == 1:
            drawn += _of_two_classes(table, other, patients)
        elif table.columns:
            drawn += _of_several(table, other, patients)
        elif table.ranks is not None and table.truth is not None:
            drawn += [str(bland_altman_chart(ranks, truth, title=f"{table.name}: predicted and true value, {name}"))
                      for name, ranks, truth in _valued(table, other)]
    return tuple(chart for chart in drawn if chart)


def _valued(table: Table, other: Table | None):
    yield NETWORK, table.ranks, table.truth
    if other is not None and other.ranks is not None:
        yield BASELINE, other.ranks, other.truth


def _of_two_classes(table: Table, other: Table | None, patients: Sequence[str]) -> list[str]:
    columns = {NETWORK: table.columns[0]} | ({BASELINE: other.columns[0]} if other is not None and other.columns else {})
    return _curves(f"{table.name}: {table.columns[0].name}", columns, patients)


def _of_several(table: Table, other: Table | None, patients: Sequence[str]) -> list[str]:
    """Curves of every class against the rest, and what was taken for what."""
    drawn = _curves(f"{table.name}, each against the "
                    "rest", {column.name: column for column in table.columns[:MOST_CURVES]}, patients)
    if table.classes and table.truth is not None:
        said = np.stack([column.said for column in table.columns], axis=1)
        truth = np.where(np.isnan(table.truth), -1, table.truth)
        drawn.append(str(confusion_chart(confusion(said.argmax(axis=1), truth, len(table.classes)), table.classes,
                                         title=f"{table.name}: true and predicted class")))
        bins = calibration_bins(*top_label(said, truth))
        drawn.append(str(reliability_chart({NETWORK: bins}, title=f"{table.name}: reliability of the predicted class")))
    return drawn


def _curves(title: str, columns: Mapping[str, Column], patients: Sequence[str]) -> list[str]:
    independent = len(set(patients)) == len(patients)
    areas = {name: column_area(column, None if independent or len(column.said) != len(patients) else patients, 0)
             for name, column in columns.items()}
    precisions = {name: _plain(average_precision(column.said, column.true)) for name, column in columns.items()}
    first = next(iter(columns.values()))
    share = float(np.nanmean(first.true)) if len(columns) <= 2 and not np.isnan(first.true).all() else math.nan
    places = {name: _place(column) for name, column in columns.items()} if len(columns) <= 2 else {}
    marks = {name: place for name, place in places.items() if place is not None}
    drawn = [roc_chart({name: roc_points(column.said, column.true) for name, column in columns.items()}, title=f"ROC of {title}",
                       areas=areas, marks=marks),
             precision_recall_chart({name: precision_recall_points(column.said, column.true) for name, column in columns.items()},
                                    title=f"Precision and recall of {title}", areas=precisions, prevalence=share)]
    if len(columns) <= 2:
        drawn.append(reliability_chart(
            {name: calibration_bins(column.said, column.true) for name, column in columns.items()}, title="Reliability of "
                                                                                                          f"{title}",
            errors={name: expected_calibration_error(column.said, column.true) for name, column in columns.items()}))
    return [str(chart) for chart in drawn]


def _place(column: Column) -> tuple[float, float] | None:
    """(false positive rate, sensitivity) at the decision threshold; None where one of the classes has no unit."""
    positive, negative = column.true == 1, column.true == 0
    if not (positive.any() and negative.any()):
        return None
    return float(column.decided[negative].mean()), float(column.decided[positive].mean())


def _plain(value: float) -> Estimate:
    return Estimate(value, math.nan, math.nan, math.nan, 0)
