"""What can only be said of all units together: ROC, calibration and decisions per target, with intervals over patients."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoseg.core.report import Estimate, Record
from autoseg.metrics.bootstrap import DRAWS, bootstrap_mean, bootstrap_statistic
from autoseg.metrics.boxes import LOCATED_FROM
from autoseg.metrics.calibration import brier, expected_calibration_error, top_label
from autoseg.metrics.confusion import confusion, overall
from autoseg.metrics.patients import has_groups
from autoseg.metrics.regression import bland_altman, mean_absolute_error, r_squared
from autoseg.metrics.roc import auc, auc_interval, average_precision, concordance, resampled_aucs
from autoseg.tasks.classification.boxes import percent

Floats = NDArray[np.float64]

# Resamples where the statistic has to be computed one by one; Efron & Tibshirani 1993, section 19.3, ask for at least 1000.
SLOW_DRAWS = 1000
# Of every target, and as means over targets.
MEANS = ("auc", "balanced_accuracy", "accuracy", "f1", "mcc", "ece", "brier")
RATES = ("sensitivity", "specificity", "ppv", "npv", "f1", "mcc", "accuracy", "balanced_accuracy")
# Numbers of resampled counts that are held at once.
BLOCK = 4_000_000


@dataclass(frozen=True)
class Column:
    """A question with the answer yes or no, over all units.

    Attributes:
        said: probabilities of yes.
        true: 0, 1, or nan where not known.
        decided: 0 or 1.
    """

    name: str
    said: Floats
    true: Floats
    decided: Floats


@dataclass(frozen=True)
class Table:
    """One target over all units.

    Attributes:
        columns: one of a binary target, one per class or label of others; none of a continuous target.
        classes: names, where classes exclude each other and there are several; empty elsewhere.
        truth: place of the class, or the value; nan where not known. None where several labels may be there.
        ranks: what ranks the units of an ordinal or continuous target.
    """

    name: str
    columns: tuple[Column, ...]
    classes: tuple[str, ...] = ()
    truth: Floats | None = None
    ranks: Floats | None = None


def summarise(records: Sequence[Record], rng: np.random.Generator) -> dict[str, Estimate]:
    """Per target AUC (macro over classes; concordance of grades and values), decisions and calibration; means over targets.

    Intervals are DeLong's where every unit is a patient of its own, else of a bootstrap over patients.
    """
    patients = [record.patient for record in records] if has_groups(records) else None
    seed = int(rng.integers(2**63))
    tables = tables_of(records)
    found: dict[str, Estimate] = {}
    areas: list[Estimate] = []
    for table in tables:
        area = _area(table, patients, seed)
        areas.append(area)
        found[f"{table.name}.auc"] = area
        if len(table.columns) > 1:
            found |= {f"{table.name}.{column.name}.auc": column_area(column, patients, seed) for column in table.columns}
        found |= {f"{table.name}.{name}": estimate for name, estimate in _others(table).items()}
    found |= _decisions(tables, patients, seed)
    found |= located(records, patients, seed)
    found["mean.auc"] = areas[0] if len(areas) == 1 else _mean_area(tables, areas, patients, seed)
    for name in MEANS[1:]:
        values = [found[f"{table.name}.{name}"] for table in tables if f"{table.name}.{name}" in found]
        if values and f"mean.{name}" not in found:
            mean = _plain(_mean([value.mean for value in values]), len(records))
            found[f"mean.{name}"] = values[0] if len(values) == 1 else mean
    names = dict.fromkeys(name for record in records for name in record.scores)
    found |= {name: bootstrap_mean([record.scores.get(name, math.nan) for record in records], np.random.default_rng(seed),
                                   groups=patients) for name in names if name.endswith((".log_score", ".utility"))}
    return found


def located(records: Sequence[Record], patients: Sequence[str] | None, seed: int) -> dict[str, Estimate]:
    """Of every finding around which boxes were drawn, how often a found box located it, and how many others were found.

    `located_T`: share of the units with a drawn box in which more than T percent of a found box lie in one (localisation
    accuracy of Wang et al. 2017, IoBB > T); `false_boxes_T`: mean number of the boxes that do not; `box_iou`: mean of the best.
    Of several findings `mean.located_T` and `mean.false_boxes_T` are means over them.
    """
    names = dict.fromkeys(name for record in records for name in record.scores)
    stems = [name.removesuffix(".iobb") for name in names if name.endswith(".iobb")]

    def mean_of(name: str, least: float | None = None) -> Estimate:
        values = np.array([record.scores.get(name, math.nan) for record in records], np.float64)
        if least is not None:
            values = np.where(np.isnan(values), math.nan, values > least)
        return bootstrap_mean(values.tolist(), np.random.default_rng(seed), groups=patients)

    found: dict[str, Estimate] = {}
    for stem in stems:
        found |= {f"{stem}.located_{percent(least)}": mean_of(f"{stem}.iobb", least) for least in LOCATED_FROM}
        found |= {f"{stem}.false_boxes_{percent(least)}": mean_of(f"{stem}.false_boxes_{percent(least)}")
                  for least in LOCATED_FROM}
        found[f"{stem}.box_iou"] = mean_of(f"{stem}.box_iou")
    for metric in (f"{kind}_{percent(least)}" for kind in ("located", "false_boxes") for least in LOCATED_FROM):
        own = [found[f"{stem}.{metric}"] for stem in stems]
        if own:
            found[f"mean.{metric}"] = own[0] if len(own) == 1 else _plain(_mean([one.mean for one in own]), len(records))
    return found


def tables_of(records: Sequence[Record]) -> tuple[Table, ...]:
    """The records by target. The truth of a patient whose units differ is no class and counts as not known."""
    names = list(dict.fromkeys(name for record in records for name in record.scores))
    targets = dict.fromkeys(name.split(".")[0] for name in names if name.endswith(".truth"))
    return tuple(_table(target, names, records) for target in targets)


def _table(target: str, names: Sequence[str], records: Sequence[Record]) -> Table:
    def values(name: str) -> Floats:
        return np.array([record.scores.get(f"{target}.{name}", math.nan) for record in records], np.float64)

    if f"{target}.value" in names:
        return Table(target, (), truth=values("truth"), ranks=values("value"))
    classes = tuple(name.split(".")[1] for name in names if name.startswith(f"{target}.") and name.endswith(".probability"))
    if f"{target}.truth" not in names:
        return Table(target, tuple(Column(name, values(f"{name}.probability"), _whole(values(f"{name}.truth")),
                                          _yes(values(f"{name}.decided"))) for name in classes))
    truth = _whole(values("truth"))
    if len(classes) == 1:
        column = Column(classes[0], values(f"{classes[0]}.probability"), truth, _yes(values("decided")))
        return Table(target, (column,), truth=truth)
    said = np.stack([values(f"{name}.probability") for name in classes], axis=1)
    decided = np.argmax(said, axis=1)
    columns = tuple(Column(name, said[:, place], np.where(np.isnan(truth), math.nan, truth == place),
                           (decided == place).astype(np.float64)) for place, name in enumerate(classes))
    return Table(target, columns, classes, truth, values("grade") if f"{target}.grade" in names else None)


def _whole(truth: Floats) -> Floats:
    return np.where(truth == np.round(truth), truth, math.nan)


def _yes(decided: Floats) -> Floats:
    return (decided >= 0.5).astype(np.float64)


def _area(table: Table, patients: Sequence[str] | None, seed: int) -> Estimate:
    """AUC of a target with its interval."""
    if table.ranks is not None and table.truth is not None:
        return bootstrap_statistic(concordance, table.ranks, table.truth, np.random.default_rng(seed), groups=patients,
                                   draws=SLOW_DRAWS)
    if len(table.columns) == 1:
        return column_area(table.columns[0], patients, seed)
    return _macro_area(table.columns, patients, seed)


def column_area(column: Column, patients: Sequence[str] | None, seed: int) -> Estimate:
    """AUC of a question: DeLong's interval, or with patients that of a bootstrap over them."""
    count = int((~np.isnan(column.true)).sum())
    if patients is None:
        area, lower, upper = auc_interval(column.said, column.true)
        return Estimate(area, math.nan, lower, upper, count, len(column.true) - count)
    return bootstrap_statistic(auc, column.said, column.true, np.random.default_rng(seed), resampled=resampled_aucs,
                               groups=patients)


def _macro_area(columns: Sequence[Column], patients: Sequence[str] | None, seed: int) -> Estimate:
    """Mean AUC of the columns that have one."""
    def mean_area(said: NDArray, true: NDArray) -> float:
        return _mean([auc(one, other) for one, other in zip(said.T, true.T, strict=True)])

    def resampled(said: NDArray, true: NDArray, counts: NDArray) -> NDArray:
        areas = []
        for one, other in zip(said.T, true.T, strict=True):
            known = ~np.isnan(other)
            areas.append(resampled_aucs(one[known], other[known], counts[:, known]) if known.any()
                         else np.full(len(counts), math.nan))
        return _nanmean(np.array(areas), axis=0)

    return bootstrap_statistic(mean_area, np.stack([column.said for column in columns], axis=1),
                               np.stack([column.true for column in columns], axis=1), np.random.default_rng(seed),
                               resampled=resampled, groups=patients)


def _mean_area(tables: Sequence[Table], areas: Sequence[Estimate], patients: Sequence[str] | None, seed: int) -> Estimate:
    """Mean over targets; its interval, where all of them have columns, from one bootstrap of all."""
    if all(len(table.columns) == 1 for table in tables):
        return _macro_area([table.columns[0] for table in tables], patients, seed)
    return _plain(_mean([area.mean for area in areas]), max((area.count for area in areas), default=0))


def _others(table: Table) -> dict[str, Estimate]:
    """Calibration, precision and errors of a target; without intervals."""
    if table.truth is not None and not table.columns:
        agreement = bland_altman(table.ranks, table.truth)  # type: ignore[arg-type]
        values = {"mae": mean_absolute_error(table.ranks, table.truth), "r_squared": r_squared(table.ranks, table.truth),  # type: ignore[arg-type]
                  "bias": agreement.bias, "agreement_lower": agreement.lower, "agreement_upper": agreement.upper}
        return {name: _plain(value, agreement.count) for name, value in values.items()}
    count = max(int((~np.isnan(column.true)).sum()) for column in table.columns)
    values = {"average_precision": _mean([average_precision(column.said, column.true) for column in table.columns])}
    if table.classes and table.truth is not None:
        said = np.stack([column.said for column in table.columns], axis=1)
        truth = np.where(np.isnan(table.truth), -1, table.truth)
        values |= {"ece": expected_calibration_error(*top_label(said, truth)), "brier": brier(said, truth)}
        together = overall(confusion(np.argmax(said, axis=1), truth, len(table.classes)))
        values |= {"f1": together.pop("macro_f1"), **together}
    else:
        values |= {"ece": _mean([expected_calibration_error(column.said, column.true) for column in table.columns]),
                   "brier": _mean([brier(column.said, column.true) for column in table.columns])}
    return {name: _plain(value, count) for name, value in values.items()}


def _decisions(tables: Sequence[Table], patients: Sequence[str] | None, seed: int) -> dict[str, Estimate]:
    """Rates of every yes-or-no question at its threshold, and their means over the labels of a target, with intervals."""
    named = [(table.name if len(table.columns) == 1 else f"{table.name}.{column.name}", column)
             for table in tables for column in table.columns]
    if not named:
        return {}
    cells = np.concatenate([_cells(column) for _, column in named], axis=1)
    groups = np.unique(patients, return_inverse=True)[1].ravel() if patients is not None else np.arange(len(cells))
    summed = np.stack([np.bincount(groups, weights=column) for column in cells.T], axis=1)
    drawn = np.concatenate([cells.sum(axis=0)[None], _resampled(summed.astype(np.float64), np.random.default_rng(seed))])
    rates = {name: _rates(drawn[:, 4 * place:4 * place + 4]) for place, (name, _) in enumerate(named)}
    for table in tables:
        if len(table.columns) > 1 and not table.classes:
            own = [rates[f"{table.name}.{column.name}"] for column in table.columns]
            rates[table.name] = {rate: _nanmean(np.array([one[rate] for one in own]), axis=0) for rate in RATES}
    counts = {name: int((~np.isnan(column.true)).sum()) for name, column in named}
    return {f"{name}.{rate}": _interval(values, counts.get(name, len(cells))) for name, own in rates.items()
            for rate, values in own.items()}


def _cells(column: Column) -> Floats:
    """Per unit 1 in one of: true and found, true and missed, false and found, false and not found; 0 where not known."""
    true, known = column.true == 1, ~np.isnan(column.true)
    found = column.decided == 1
    return np.stack([known & true & found, known & true & ~found, known & ~true & found, known & ~true & ~found],
                    axis=1).astype(np.float64)


def _resampled(summed: Floats, rng: np.random.Generator) -> Floats:
    """Column sums (draws, M) over patients drawn with replacement."""
    patients = len(summed)
    block = max(1, BLOCK // patients)
    shares = np.full(patients, 1 / patients)
    return np.concatenate([rng.multinomial(patients, shares, size=min(block, DRAWS - first)) @ summed
                           for first in range(0, DRAWS, block)])


def _rates(cells: Floats) -> Mapping[str, Floats]:
    """Rates (draws,) of tables (draws, 4), as `metrics.confusion.rates` defines them."""
    hits, missed, false, rest = cells.T
    sensitivity, specificity = _share(hits, hits + missed), _share(rest, rest + false)
    margins = (hits + false) * (hits + missed) * (rest + false) * (rest + missed)
    return {"sensitivity": sensitivity, "specificity": specificity, "ppv": _share(hits, hits + false),
            "npv": _share(rest, rest + missed), "f1": _share(2 * hits, 2 * hits + false + missed),
            "mcc": _share(hits * rest - false * missed, np.sqrt(margins)), "accuracy": _share(hits + rest, cells.sum(axis=1)),
            "balanced_accuracy": (sensitivity + specificity) / 2}


def _share(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.full(len(part), math.nan), where=whole > 0)


def _interval(values: Floats, count: int) -> Estimate:
    """The first value with the percentiles of the others; as `metrics.bootstrap.bootstrap_statistic`."""
    drawn = np.sort(values[1:][~np.isnan(values[1:])])
    if len(drawn) < 0.95 * (len(values) - 1):
        return _plain(float(values[0]), count)
    last = len(drawn) - 1
    lower, upper = drawn[math.floor(0.025 * last)], drawn[math.ceil(0.975 * last)]
    return Estimate(float(values[0]), math.nan, float(lower), float(upper), count)


def _plain(value: float, count: int) -> Estimate:
    return Estimate(value, math.nan, math.nan, math.nan, count)


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan


def _nanmean(values: Floats, axis: int) -> Floats:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # columns without any value are nan, as they should be
        return np.nanmean(values, axis=axis)


