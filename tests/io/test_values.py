from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import pytest
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as checked

from autoseg.core.errors import IncompatibleError, ReadError
from autoseg.core.fingerprint import Moments
from autoseg.core.geometry import Geometry, GridRecord, Orientation
from autoseg.core.spec import DatasetSpec, LabelSpec, LayoutSpec
from autoseg.io.plain import to_plain
from autoseg.io.values import from_plain, parse_json, read_value, write_value


@dataclass(frozen=True)
class Inner:
    value_mm: float
    counts: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Outer:
    inner: tuple[Inner, ...]
    maybe: Inner | None = None
    title: str = ""


@checked(frozen=True, config=ConfigDict(extra="forbid"))
class Strict:
    patch_size: tuple[int, ...]


RECORD = GridRecord(
    Geometry((3, 4, 5), (2.5, 0.7, 1.3), (-1.0, 2.0, 1 / 3)),
    Orientation((2, 0, 1), (True, False, True)),
    ((0, 5), (1, 3), (0, 4)),
    (1, 0, 2),
    (7, 8, 9),
    (1.0, 1.0, 0.1),
)


@pytest.mark.parametrize(
    "value",
    [
        Outer((Inner(0.1, {3: 4}), Inner(math.inf)), Inner(1e-300), "größe"),
        RECORD,
        Strict((1, 2, 3)),
        DatasetSpec(
            "A", "t", (LayoutSpec("l", {"image": ("{case}.nii.gz",)}),), labels=(LabelSpec("one", 1, {"SCT": "2"}),)
        ),
    ],
)
def test_values_come_back_equal(tmp_path, value):
    write_value(tmp_path / "a.json", value)
    assert read_value(tmp_path / "a.json", type(value)) == value


def test_null_becomes_nan_where_a_float_is_needed(tmp_path):
    moments = Moments(0, math.nan, math.nan, 1.0, 2.0, (math.nan, 0.5))
    write_value(tmp_path / "a.json", {"x": (moments,)})
    read = read_value(tmp_path / "a.json", dict[str, tuple[Moments, ...]])["x"][0]
    assert math.isnan(read.mean) and math.isnan(read.mean_square) and math.isnan(read.quantiles[0])
    assert replace(read, mean=0.0, mean_square=0.0, quantiles=()) == Moments(0, 0.0, 0.0, 1.0, 2.0, ())


@pytest.mark.parametrize(
    ("plain", "kind", "words"),
    [
        ({"inner": [{"value_mm": 1.0, "count": {}}]}, Outer, ["inner.0.count", "Did you mean 'inner.0.counts'"]),
        ({"inner": [], "titel": "x"}, Outer, ["'titel'", "Did you mean 'title'"]),
        ({"inner": [], "maybe": {"value_mm": 1, "odd": 1}}, Outer, ["'maybe.odd'"]),
        ({"patchsize": [1]}, Strict, ["'patchsize'", "Did you mean 'patch_size'", "'patch_size' is missing"]),
        ({"patch_size": [1, "many"]}, Strict, ["patch_size.1", "'many'"]),
        ({"inner": [{}]}, Outer, ["'inner.0.value_mm' is missing"]),
        ({"inner": [{"value_mm": None}, {"value_mm": "much"}]}, Outer, ["inner.1.value_mm", "'much'"]),
        ([1, 2], Outer, ["[1, 2]"]),
    ],
)
def test_what_does_not_fit_is_refused_with_source_path_and_nearest_name(plain, kind, words):
    with pytest.raises(IncompatibleError) as caught:
        from_plain(plain, kind, source="some/plan.json")
    for word in ["some/plan.json", *words]:
        assert word in str(caught.value)


def test_entries_with_names_are_called_by_them():
    spec = DatasetSpec("A", "t", (LayoutSpec("l", {"image": ("{case}.nii",)}),), labels=(LabelSpec("liver", 1),))
    plain = to_plain(spec)
    plain["labels"][0]["valeu"] = 3
    with pytest.raises(IncompatibleError, match=r"'labels\.liver\.valeu'.*Did you mean 'labels\.liver\.value'"):
        from_plain(plain, DatasetSpec, source="x")


def test_rules_between_values_are_stated_without_jargon():
    plain = to_plain(DatasetSpec("A", "t", (LayoutSpec("l", {"image": ("{case}.nii",)}),)))
    with pytest.raises(IncompatibleError, match="^x: name '../up' must be usable as a folder name"):
        from_plain(plain | {"name": "../up"}, DatasetSpec, source="x")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": 1,\n "a": 2}', "line 2, column 2: key 'a' occurs twice"),
        ('{"x": {"a": 1}, "a": 1, "a": 2}', "file.json: key 'a' occurs twice"),
        ('{"a":\n [1, NaN]}', "line 2, column 6: NaN"),
        ('{"a": "NaN", "b": NaN}', "file.json: NaN"),
        ('{"a": 1e999}', "inf"),
        ('{"a": ' + "9" * 5000 + "}", "integer"),
        ('{"a": 12345678901234567890}', "20 digits"),
        ('{"a": "\\ud800"}', "ud800"),
        ("{'a': 1}", "line 1, column 2"),
        ("[1,]", "line 1"),
        ("[" * 100_000, "nested"),
        ('{"a":\n 1,,}', "line 2, column 4"),
    ],
)
def test_what_is_not_json_is_refused_with_its_place(text, words):
    with pytest.raises(ReadError, match=words) as caught:
        parse_json(text, source="some/file.json")
    assert "some/file.json" in str(caught.value)


def test_missing_and_binary_files_are_refused(tmp_path):
    (tmp_path / "b.json").write_bytes(b"\xff\xfe\x00")
    for name in ("a.json", "b.json"):
        with pytest.raises(ReadError, match=name):
            read_value(tmp_path / name, Inner)


def test_byte_order_mark_is_understood(tmp_path):
    (tmp_path / "a.json").write_text('{"value_mm": 1.5}', encoding="utf-8-sig")
    assert read_value(tmp_path / "a.json", Inner) == Inner(1.5)
