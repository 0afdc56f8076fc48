"""The report as one HTML page that needs no network, no script and no other file."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from autoseg.core.plan import Plan
from autoseg.core.report import Estimate, Failure
from autoseg.core.task import Legend, Picture
from autoseg.reporting.drawing import encode_png
from autoseg.reporting.numbers import mean_with_interval, score

# Cases that stand in the table with all their scores; the others follow with the headline score only.
LISTED_CASES = 50
# Groups of pictures that are open when the page is.
OPEN_PICTURES = 3
# Pictures side by side are shown at no less than this share of their size: letters of 14 pixels (reporting/drawing.py) keep 10.
SMALLEST_SHARE = 0.75
# Nothing is loaded from anywhere and no script runs, whatever a file name or a description contains
# (Content Security Policy Level 3; pictures are data URIs).
CONTENT_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


@dataclass(frozen=True)
class Fact:
    """A name with its value and, if it needs one, a remark."""

    name: str
    value: str
    detail: str = ""


@dataclass(frozen=True)
class HeadlineRow:
    """One metric of one label, model beside baseline.

    Attributes:
        label: a label or region; `unit` of the metric stands in its name (`HD95 (mm)`).
        difference: model minus baseline, paired by case; without an interval where its bounds are nan.
        per_patient: the model, every patient counted once; None where no patient has several cases.
    """

    label: str
    metric: str
    model: Estimate
    baseline: Estimate | None = None
    difference: Estimate | None = None
    per_patient: Estimate | None = None


@dataclass(frozen=True)
class CaseRow:
    """Scores of one case, in the order of `ReportPage.case_columns`; `headline` sorts the table, nan stands last."""

    unit: str
    headline: float
    scores: tuple[float, ...]
    remark: str = ""


@dataclass(frozen=True)
class CasePictures:
    """Pictures of one case."""

    unit: str
    pictures: tuple[Picture, ...]
    remark: str = ""


@dataclass(frozen=True)
class PlanRow:
    """A planned value with its reason."""

    path: str
    value: str
    inputs: str
    because: str
    source: str


@dataclass(frozen=True)
class ReportPage:
    """Everything that stands in the report.

    Attributes:
        title: of the page.
        subtitle: one sentence: what was trained on what.
        highlights: the few numbers to see first.
        dataset: facts about the dataset.
        headline: the table of metrics.
        further: rows that would make that table too long; folded away.
        headline_name: what `CaseRow.headline` is (`mean Dice`).
        case_columns: names of the columns of `CaseRow.scores`.
        cases: in any order; shown with the lowest headline score first, the first `LISTED_CASES` with all scores.
        patients: the same for patients; empty where no patient has several cases.
        pictures: shown in the order given; cases of largest error first.
        charts: made by `reporting.curves`; empty ones are left out.
        plan: every planned value with its reason.
        failures: cases that were refused or failed.
        notes: how cases were counted (both masks empty, one empty) and what else the reader must know.
        provenance: versions, hashes, machine, date.
    """

    title: str
    subtitle: str = ""
    highlights: tuple[Fact, ...] = ()
    dataset: tuple[Fact, ...] = ()
    headline: tuple[HeadlineRow, ...] = ()
    further: tuple[HeadlineRow, ...] = ()
    headline_name: str = "score"
    case_columns: tuple[str, ...] = ()
    cases: tuple[CaseRow, ...] = ()
    patients: tuple[CaseRow, ...] = ()
    pictures: tuple[CasePictures, ...] = ()
    charts: tuple[Markup, ...] = ()
    plan: tuple[PlanRow, ...] = ()
    failures: tuple[Failure, ...] = ()
    notes: tuple[str, ...] = ()
    provenance: tuple[Fact, ...] = ()


def render(page: ReportPage) -> str:
    """The page as HTML text. Every name and text is escaped; only charts, which are `Markup`, enter as they are."""
    environment = Environment(loader=PackageLoader("autoseg.reporting"), autoescape=True, undefined=StrictUndefined,
                              trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(score=score, interval=mean_with_interval, data_uri=_data_uri, share=_share,
                               breakable=_breakable)
    tables = {"Patients": sorted(page.patients, key=_worst_first), "Cases": sorted(page.cases, key=_worst_first)}
    legends = dict.fromkeys(picture.legend for group in page.pictures for picture in group.pictures)
    is_gallery = all(len(group.pictures) == 1 for group in page.pictures)
    return environment.get_template("report.html").render(
        page=page, tables={name: rows for name, rows in tables.items() if rows},
        charts=[chart for chart in page.charts if chart], legends=[legend for legend in legends if legend != Legend()],
        is_gallery=is_gallery, column_px=_column_px(page.pictures), listed=LISTED_CASES, opened=OPEN_PICTURES,
        content_policy=CONTENT_POLICY)


def plan_rows(plan: Plan) -> tuple[PlanRow, ...]:
    """One row per reason of a plan, with the value that it explains; a reason may explain a whole part of the plan.

    Channels are found by role and index (`inputs.image.0`), everything else by the names of the plan's fields.
    """
    values = asdict(plan)
    values["inputs"] = {entry["role"]: entry["channels"] for entry in values["inputs"]}
    return tuple(PlanRow(path, _value_text(_value_at(values, path)), reason.inputs, reason.because, reason.source)
                 for path, reason in plan.reasons.items())


def _value_at(values: Any, path: str) -> Any:
    """The value below `path`; a key may itself contain dots, so the longest key that fits is taken."""
    if not path:
        return values
    children = values if isinstance(values, dict) else {}
    if isinstance(values, list | tuple):
        children = {str(place): child for place, child in enumerate(values)}
    for key in sorted(children, key=len, reverse=True):
        if path == key or path.startswith(key + "."):
            return _value_at(children[key], path[len(key) + 1:])
    return "not in this plan"


def _value_text(value: Any) -> str:
    """A planned value for reading: `[3.515, 3.41]`, `order: 3, order_z: 0`; fields that are None are left out."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value_text, value))}]"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_value_text(child)}" for key, child in value.items() if child is not None) or "none"
    return "none" if value is None else str(value)


def _worst_first(row: CaseRow) -> tuple[bool, float, str]:
    return (math.isnan(row.headline), row.headline, row.unit)


def _column_px(groups: Sequence[CasePictures]) -> int:
    """Least width of a column of the grid of pictures, in which the widest one can still be read."""
    widths = [picture.pixels.shape[1] for group in groups for picture in group.pictures]
    return round(SMALLEST_SHARE * max(widths, default=0))


def _data_uri(picture: Picture) -> str:
    return "data:image/png;base64," + base64.b64encode(encode_png(picture.pixels)).decode("ascii")


def _share(value: float) -> int:
    """Length in percent of the bar behind a score; 0 for scores that are no shares."""
    return round(100 * value) if 0.0 <= value <= 1.0 else 0


def _breakable(name: str) -> Markup:
    """A name that may be broken over lines after dots and underscores."""
    return Markup("<wbr>").join(re.findall(r"[^._]*[._]?", name))
