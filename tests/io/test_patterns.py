from __future__ import annotations

import time

import pytest

from autoseg.core.case import Case
from autoseg.core.errors import DatasetError
from autoseg.core.spec import DatasetSpec, GroupingSpec, LayoutSpec
from autoseg.io import patterns
from autoseg.io.dataset import scan
from autoseg.io.grouping import patient_in_id
from autoseg.io.patterns import search

# Most nested repetitions are seen through by the library; in this one every a can be read in two ways.
CATASTROPHIC = "^(a|aa)+$"


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(patterns, "SECONDS", 0.2)


def test_ordinary_patterns_are_found_as_by_re():
    assert search("^(p[0-9]+)_", "p12_scan3").group(1) == "p12"
    assert search("(?P<who>.+)-IM", "SC-N-10-IM-0001").group("who") == "SC-N-10"
    assert search("x", "p12") is None


def test_a_pattern_that_takes_years_is_stopped():
    started = time.monotonic()
    with pytest.raises(DatasetError, match=r"\(a\|aa\)\+.*does not come to an end on 'aaaa") as caught:
        search(CATASTROPHIC, "a" * 120 + "b")
    assert caught.value.code == "E_PATTERN" and time.monotonic() - started < 10


@pytest.mark.parametrize("grouping", [GroupingSpec(pattern=CATASTROPHIC), GroupingSpec(strata={"s": CATASTROPHIC})])
def test_patterns_of_a_specification_are_limited(tmp_path, grouping):
    spec = DatasetSpec("Toy", "t", (LayoutSpec("x", {"image": ("{case}.nii",)}),), grouping=grouping)
    (tmp_path / ("a" * 100 + "b.nii")).touch()
    with pytest.raises(DatasetError, match="does not come to an end"):
        scan(spec, tmp_path)
    if grouping.pattern:
        with pytest.raises(DatasetError, match="does not come to an end"):
            patient_in_id(spec, Case("a" * 100 + "b", "", {}).id)


def test_patterns_of_layouts_end_too(tmp_path):
    """Ten stars in a row take a simple matcher some (length of the name)^10 steps."""
    spec = DatasetSpec("Toy", "t", (LayoutSpec("x", {"image": ("*a" * 10 + "{case:[!a]}b.nii",)}),))
    (tmp_path / ("a" * 240 + "b.nii")).touch()
    started = time.monotonic()
    with pytest.raises(DatasetError) as caught:
        scan(spec, tmp_path)
    assert caught.value.code in ("E_NO_CASES", "E_PATTERN") and time.monotonic() - started < 10
