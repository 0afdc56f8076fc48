"""The report page: offline, escaped, and with the numbers that were handed in."""

from __future__ import annotations

import base64
import io
import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
from PIL import Image as PillowImage

from autoseg.core.budget import Budget
from autoseg.core.plan import InputPlan, Normalization, Plan, Reason
from autoseg.core.report import Estimate, Failure
from autoseg.core.task import Legend, Picture
from autoseg.reporting import curves
from autoseg.reporting.page import (
    CONTENT_POLICY,
    LISTED_CASES,
    CasePictures,
    CaseRow,
    Fact,
    HeadlineRow,
    PlanRow,
    ReportPage,
    plan_rows,
    render,
)

HOSTILE = '"><script>alert(1)</script><img src=http://example.org/x onerror=alert(2)>\''
VOID = {"meta", "img", "br", "wbr", "circle", "line", "polyline"}


class Reader(HTMLParser):
    """Tags in order, attributes by tag, and whether every tag is closed by its own end tag."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: list[str] = []
        self.attributes: list[tuple[str, dict[str, str | None]]] = []
        self.is_well_nested = True

    def handle_starttag(self, tag, attrs):
        self.attributes.append((tag, dict(attrs)))
        if tag not in VOID:
            self.opened.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.attributes.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            self.is_well_nested &= bool(self.opened) and self.opened.pop() == tag


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    reader.close()
    return reader


def text_of(html: str) -> str:
    without_style = re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", without_style))


def page(name: str = "hippocampus") -> ReportPage:
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    return ReportPage(
        title=name, subtitle=name,
        highlights=(Fact("mean Dice", "0.891", name),),
        dataset=(Fact(name, name, name), Fact("cases", "200")),
        headline=(HeadlineRow(name, "Dice", Estimate(0.8912, 0.9034, 0.8801, 0.9023, 39, 1),
                              Estimate(0.6123, 0.61, 0.6001, 0.6243, 40), Estimate(0.2789, 0.27, 0.2611, 0.2967, 39)),
                  HeadlineRow(name, "HD95 (mm)", Estimate(1.25, 1.0, math.nan, math.nan, 40))),
        further=(HeadlineRow(name, "IoU", Estimate(0.8, 0.8, 0.7, 0.9, 40, groups=12),
                             per_patient=Estimate(0.75, 0.7, 0.6, 0.8, 12)),),
        headline_name="mean Dice", case_columns=("Dice " + name, "HD95 (mm)"),
        cases=(CaseRow("best", 0.95, (0.95, 1.0)),
               CaseRow("unknown", math.nan, (math.nan, math.nan), "both masks empty"),
               CaseRow("worst", 0.25, (0.25, 12.34)), CaseRow(name, 0.5, (0.5, 1.5), name)),
        patients=(CaseRow(name, 0.5, (0.5, 1.5), "4 cases"),),
        pictures=(CasePictures(name, (Picture(pixels, name, Legend(((name, (1, 2, 3)),), (name,))),), name),),
        charts=(curves.line_chart([{"x": 0, "y": 1.0}, {"x": 1, "y": 2.0}], x="x", lines={"y": name}, title=name,
                                  x_label=name, y_label=name), curves.line_chart([], x="x", lines={"y": "y"}, title="",
                                                                                x_label="", y_label="")),
        plan=(PlanRow(name, "[40, 56, 40]", name, name, name),),
        failures=(Failure(name, "E_READ", name),),
        notes=("Both masks empty: undefined, not counted.", name),
        provenance=(Fact("torch", "2.13.0"), Fact(name, name)))


def test_numbers_appear_as_mean_interval_median_baseline_and_difference():
    text = text_of(render(page()))
    for expected in ("0.891 [0.880, 0.902]", "0.903", "0.612 [0.600, 0.624]", "0.279 [0.261, 0.297]",
                     "39 + 1 undefined", "1.250", "12.3", "[40, 56, 40]", "E_READ", "2.13.0",
                     "Both masks empty: undefined, not counted."):
        assert expected in text


def test_page_says_that_it_is_not_a_medical_device():
    assert "not a medical device" in text_of(render(ReportPage("empty")))


def test_cases_are_sorted_with_the_lowest_headline_score_first_and_undefined_ones_last():
    html = render(page())
    section = html[html.index('id="cases"'):]
    assert re.findall(r'<th scope="row">(\w+)</th>', section[: section.index("</section>")]) == [
        "worst", "hippocampus", "best", "unknown"]


def test_content_policy_forbids_scripts_and_everything_from_elsewhere():
    html = render(page())
    metas = [attributes for tag, attributes in read(html).attributes if tag == "meta"]
    assert {"http-equiv": "Content-Security-Policy", "content": CONTENT_POLICY} in metas
    assert CONTENT_POLICY.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'")
    assert html.index("Content-Security-Policy") < html.index("<style>")


def test_page_refers_to_no_other_file_or_host():
    reader = read(render(page()))
    references = [value for _, attributes in reader.attributes for key, value in attributes.items()
                  if key in ("src", "href", "srcset", "action", "data", "poster")]
    assert references and all(value.startswith(("data:image/png;base64,", "#")) for value in references)
    assert not {"script", "link", "iframe", "object", "embed", "form", "base"} & {tag for tag, _ in reader.attributes}
    assert "url(" not in render(page()) and "@import" not in render(page())


def test_hostile_names_stay_text_in_every_place():
    html = render(page(HOSTILE))
    reader = read(html)
    tags = [tag for tag, _ in reader.attributes]
    assert "script" not in tags and tags.count("img") == 1
    assert not any(key.startswith("on") for _, attributes in reader.attributes for key in attributes)
    assert html.count("&lt;script&gt;") >= 20
    of_harmless = [tag for tag, _ in read(render(page())).attributes]
    assert [tag for tag in of_harmless if tag != "wbr"] == [tag for tag in tags if tag != "wbr"]


def test_a_chart_that_is_plain_text_is_escaped():
    html = render(replace(page(), charts=(HOSTILE,)))
    assert "<script" not in html


def test_every_tag_is_closed_and_every_link_has_its_target():
    reader = read(render(page()))
    assert reader.is_well_nested and reader.opened == []
    targets = {attributes["id"] for _, attributes in reader.attributes if "id" in attributes}
    assert {a["href"][1:] for tag, a in reader.attributes if tag == "a"} == targets


def test_page_without_results_has_no_empty_sections():
    reader = read(render(ReportPage("empty")))
    tags = [tag for tag, _ in reader.attributes]
    assert "table" not in tags and "section" not in tags and "a" not in tags


def test_pictures_are_embedded_pixel_by_pixel():
    (uri,) = [attributes["src"] for tag, attributes in read(render(page())).attributes if tag == "img"]
    png = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
    np.testing.assert_array_equal(np.asarray(PillowImage.open(io.BytesIO(png))), page().pictures[0].pictures[0].pixels)


def test_same_page_renders_to_the_same_bytes():
    assert render(page()) == render(page())


def plan(reasons: dict[str, Reason]) -> Plan:
    image = InputPlan("image", (Normalization("ct", mean=101.5, std=100 / 3),))
    return Plan("default", "toy", "segmentation", (0, 1, 2), (image,), {}, Budget("cpu", 10**9), reasons, seed=7)


def test_plan_rows_hold_the_value_that_each_reason_explains():
    why = Reason("nothing", "the reader asked", "measured")
    rows = plan_rows(plan({"seed": why, "transpose": why, "inputs.image.0": why, "budget.target": why}))
    assert [(row.path, row.value) for row in rows[:2]] == [("seed", "7"), ("transpose", "[0, 1, 2]")]
    assert rows[2].value == "scheme: ct, use_mask: False, mean: 101.5, std: 33.3333" and rows[3].value == "cpu"
    assert (rows[0].inputs, rows[0].because, rows[0].source) == ("nothing", "the reader asked", "measured")


def test_reason_for_a_value_that_is_not_planned_says_so():
    assert plan_rows(plan({"configurations.3d.patch_size": Reason("", "", "")}))[0].value == "not in this plan"


def test_scores_per_patient_stand_beside_those_per_case():
    text = text_of(render(page()))
    assert "0.800 [0.700, 0.900] 0.750 [0.600, 0.800]" in text
    without = text_of(render(replace(page(), further=(), patients=())))
    assert "patients" not in without.lower()


def test_a_thousand_cases_are_a_short_table_and_a_compact_list_with_the_worst_first():
    rows = tuple(CaseRow(f"case{k:04d}", 1 - k / 1000, (k / 1000,)) for k in range(1000))
    html = render(ReportPage("many", case_columns=("other",), cases=rows))
    table, compact = html[html.index('id="cases"'):].split("<ol", 1)
    assert re.findall(r"case\d+", table) == [f"case{k:04d}" for k in range(999, 999 - LISTED_CASES, -1)]
    assert re.findall(r"case\d+", compact) == [f"case{k:04d}" for k in range(999 - LISTED_CASES, -1, -1)]
    assert 'start="51"' in compact and "The other 950 cases" in text_of(html)


def test_legends_that_are_equal_stand_once_and_name_every_label_with_its_colour():
    legend = Legend((("left_kidney", (230, 159, 0)), ("spleen", (0, 114, 178))), ("solid: prediction",))
    pixels = np.zeros((2, 2, 3), dtype=np.uint8)
    groups = tuple(CasePictures(f"case{k}", (Picture(pixels, "a", legend), Picture(pixels, "b", legend))) for k in range(3))
    html = render(ReportPage("pictures", pictures=groups))
    assert html.count("solid: prediction") == html.count("left_kidney") == 1
    assert re.findall(r"background:rgb\(([0-9,]+)\)", html) == ["230,159,0", "0,114,178"]


def test_cases_of_one_picture_stand_in_a_gallery_and_others_fold():
    pixels = np.zeros((2, 2, 3), dtype=np.uint8)
    one = render(ReportPage("flat", pictures=tuple(CasePictures(f"case{k}", (Picture(pixels, "a"),)) for k in range(5))))
    several = render(ReportPage("deep", pictures=(CasePictures("case", (Picture(pixels, "a"),) * 2),)))
    assert "<details" not in one and one.count("<figure") == 5 and one.count("<strong>case") == 5
    assert several.count("<details open>") == 1


def test_a_gallery_is_a_grid_whose_columns_hold_the_widest_picture_at_three_quarters():
    """Two pictures of 560 pixels, as classification draws them, stand side by side on the page of 1072."""
    pictures = tuple(CasePictures(f"case{width}", (Picture(np.zeros((300, width, 3), np.uint8), "a"),)) for width in (400, 560))
    (style,) = [a["style"] for tag, a in read(render(ReportPage("flat", pictures=pictures))).attributes
                if tag == "div" and "gallery" in str(a.get("class"))]
    assert style == "--column:420px" and 2 * 420 + 14 <= 1120 - 2 * 24
    assert ".gallery { display: grid" in render(ReportPage("empty"))


def test_names_of_columns_may_break_after_dots_and_underscores():
    html = render(ReportPage("wide", case_columns=("white_matter.dice",), cases=(CaseRow("a", 0.5, (0.5,)),)))
    assert "white_<wbr>matter.<wbr>dice" in html
