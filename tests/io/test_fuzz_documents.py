"""Specifications, dataset.json and plans that nobody would write: refused in a sentence or read, never a traceback.

The seeds are fixed, so that a failure comes again. What was found once stands in `FOUND_...`, which the default run reads.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from autoseg.core.errors import AutosegError
from autoseg.io.atomic import hash_values
from autoseg.io.foreign import read_dataset_json
from autoseg.io.plans import read_plan
from autoseg.io.specs import known_specs, read_spec, write_spec
from autoseg.io.values import to_plain

GOLDEN = Path(__file__).resolve().parents[1] / "tasks" / "segmentation" / "golden" / "hippocampus_nnunet_format_1.json"
NNUNET = {"channel_names": {"0": "T1", "1": "FLAIR"}, "labels": {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3},
          "regions_class_order": [1, 2], "numTraining": 2, "file_ending": ".nii.gz", "name": "x"}
DECATHLON = {"modality": {"0": "CT"}, "labels": {"0": "background", "1": "liver"}, "training": [{"image": "./a", "label": "./b"}]}
# Seconds for one document; the largest allowed are a megabyte.
LONGEST = 10.0

TEXTS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(["", "0", "\u00b2", "\ud800", "\x1b[31m", "a\nb", "../x", "/abs", "{case}", "{case}{case}", "{a:[", "**", "(",
                     "(a+)+$", "nan", "inf", "1e999", "CON", "null", "no", "background", "ignore", "<script>", "=1+1", "\u202e"]))
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(-3, 300), st.integers(), st.floats(), TEXTS)
VALUES = st.recursive(LEAVES, lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=4)),
                      max_leaves=8)


def places(document: object, path: tuple = ()) -> Iterator[tuple]:
    """Where the values of a document stand."""
    yield path
    entries = document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    for key, child in entries:
        yield from places(child, (*path, key))


@st.composite
def mutated(draw: Callable, originals: list) -> object:
    """A document of which one to three values are others, are gone, or have another name."""
    document = copy.deepcopy(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 3))):
        *above, last = draw(st.sampled_from([path for path in places(document) if path] or [(0,)]))
        parent = document
        for key in above:
            parent = parent[key]
        if not isinstance(parent, (dict, list)) or not parent:
            break
        change = draw(st.sampled_from(["other", "gone", "renamed"]))
        if change == "renamed" and isinstance(parent, dict):
            parent[draw(TEXTS)] = parent.pop(last)
        elif change == "gone":
            del parent[last]
        else:
            parent[last] = draw(VALUES)
    return document


@st.composite
def spliced(draw: Callable, texts: list[str], alphabet: list[str]) -> str:
    """A text with a few pieces cut out, doubled or put in."""
    text = draw(st.sampled_from(texts))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 12)))
        text = text[:start] + draw(st.one_of(st.sampled_from(alphabet), st.just(text[start:end] * 2), TEXTS)) + text[end:]
    return text


def read_or_refuse(read: Callable, path: Path, content: bytes) -> object:
    """What `read` makes of a file with this content, None where it refuses; anything else fails the test."""
    path.write_bytes(content)
    started = time.monotonic()
    try:
        return read(path)
    except AutosegError as error:
        assert str(error).encode("utf-8") and error.code.startswith("E_")
        return None
    finally:
        assert time.monotonic() - started < LONGEST


def as_json(document: object) -> bytes:
    return json.dumps(document).encode("utf-8")


def read_folder(path: Path) -> object:
    return read_dataset_json(path.parent)


def require_round_trip(spec: object, path: Path) -> None:
    """What was read can be hashed, written and read again."""
    if spec is not None:
        hash_values(spec)
        write_spec(path, spec)
        assert read_spec(path) == spec


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


def fuzzed(count: int):
    """Settings of a bounded, repeatable run."""
    def decorate(test):
        limited = settings(max_examples=count, deadline=None, database=None, phases=(Phase.explicit, Phase.generate),
                           suppress_health_check=list(HealthCheck))(test)
        return pytest.mark.slow(seed(20261122)(limited))
    return decorate


# Ended in a traceback, or were read and could not be written and read again.
FOUND_JSON = [
    NNUNET | {"regions_class_order": [[], 2]}, NNUNET | {"labels": {"0": [1], "1": [1]}}, NNUNET | {"labels": {"\u00b2": 1}},
    NNUNET | {"labels": {"background": 0, "\ud800": 1}},
]
FOUND_YAML = [
    "layouts: []", "inputs: {}", "inputs: {image: {channels: []}}", "layouts: {x: {inputs: {}}}", "reference: 2020-99-99",
    "reference: 2020-01-01", "exclude: [0x]", "description: " + "9" * 5000, 'source: "\\ud800"', "options: {a: .nan}",
    "options: {1: 2}", "reference: !!float ''", "labels: {a: 99999999999999999999}", "grouping: {pattern: '(?P<a>x)(?P<a>y'}",
]
SOUND = """
name: Toy
task: segmentation
"""


@pytest.mark.parametrize("document", FOUND_JSON)
def test_what_was_found_in_dataset_json(place, document):
    require_round_trip(read_or_refuse(read_folder, place / "dataset.json", as_json(document)), place / "back.yaml")


@pytest.mark.parametrize("line", FOUND_YAML)
def test_what_was_found_in_specifications(place, line):
    rest = "" if line.startswith("layouts") else "layouts: {x: {inputs: {image: '{case}.nii'}}}\n"
    text = f"{SOUND}{rest}{line}\n".encode("utf-8", "surrogatepass")
    require_round_trip(read_or_refuse(read_spec, place / "a.yaml", text), place / "back.yaml")


@fuzzed(1200)
@given(mutated([NNUNET, DECATHLON]))
def test_fuzzed_dataset_json(place, document):
    require_round_trip(read_or_refuse(read_folder, place / "dataset.json", as_json(document)), place / "back.yaml")


@fuzzed(600)
@given(spliced([json.dumps(NNUNET), json.dumps(DECATHLON, indent=1)],
               [*'{}[],:"0', "NaN", "1e999", "\\ud800", "\ufeff", "//", "null"]))
def test_fuzzed_text_of_dataset_json(place, text):
    require_round_trip(read_or_refuse(read_folder, place / "dataset.json", text.encode("utf-8", "surrogatepass")),
                       place / "back.yaml")


@fuzzed(400)
@given(mutated([yaml.safe_load(path.read_text()) for path in known_specs().values()]))
def test_fuzzed_specifications(place, document):
    text = yaml.safe_dump(document, allow_unicode=True)
    require_round_trip(read_or_refuse(read_spec, place / "a.yaml", text.encode("utf-8", "surrogatepass")), place / "back.yaml")


@fuzzed(400)
@given(spliced([path.read_text() for path in known_specs().values()],
               ["&a ", "*a", "<<: ", "!!python/object:os.system ", "!!float ", "!!timestamp ", "? ", "- ", ": ", "---\n", "...\n",
                *"{}[]|>#'\"~", "%YAML 9.9\n", "2020-99-99", "1:99", "0x", ".inf", ".nan", "\t", "\x00", "9" * 5000]))
def test_fuzzed_text_of_specifications(place, text):
    require_round_trip(read_or_refuse(read_spec, place / "a.yaml", text.encode("utf-8", "surrogatepass")), place / "back.yaml")


@fuzzed(600)
@given(st.binary(max_size=60))
def test_fuzzed_bytes(place, content):
    for read, name in ((read_spec, "b.yaml"), (read_folder, "dataset.json"), (read_plan, "plan.json")):
        read_or_refuse(read, place / name, content)


@fuzzed(500)
@given(mutated([json.loads(GOLDEN.read_text())]))
def test_fuzzed_plans(place, document):
    plan = read_or_refuse(read_plan, place / "plan.json", as_json(document))
    if plan is not None:
        hash_values(plan)
        assert to_plain(read_or_refuse(read_plan, place / "plan.json", as_json(to_plain(plan)))) == to_plain(plan)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("atheris") is None, reason="atheris is not installed (it exists for Linux): pip install atheris")
@pytest.mark.parametrize(("kind", "runs"), [("specification", 1000), ("dataset", 12000), ("plan", 8000)])
def test_bytes_that_reach_new_lines(tmp_path, kind, runs):
    """Ten to fifteen seconds each on one core."""
    root = Path(__file__).resolve().parents[2]
    finished = subprocess.run([sys.executable, str(Path(__file__).with_name("fuzz_documents.py")), kind, str(runs), "20261122",
                               str(tmp_path)], capture_output=True, text=True, errors="replace", timeout=600,
                              env=os.environ | {"PYTHONPATH": os.pathsep.join([str(root), str(root / "tests")])})
    assert finished.returncode == 0, finished.stdout[-2000:] + finished.stderr[-6000:]
