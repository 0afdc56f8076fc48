"""The importer on bytes that nobody thought of: it refuses, or it gives exactly the bundle; never anything else."""

from __future__ import annotations

import json
import shutil
import struct
import tempfile
import warnings
import zipfile
from pathlib import Path

import pytest
from bundles.hostile import files_of, rewrite, zipped
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open

from autoseg.core.errors import AutosegError
from autoseg.io import archive as archives
from autoseg.io.archive import read_archive
from autoseg.io.bundles import read_bundle
from autoseg.io.tensors import stored_tensors

pytestmark = pytest.mark.slow

# Some 50 s for all of them on one core.
BOUNDED = settings(deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
REFUSALS = {5, 8}


@pytest.fixture(autouse=True, scope="module")
def quick():
    """Flushing to the disk takes most of an import and says nothing here."""
    patch = pytest.MonkeyPatch()
    patch.setattr(archives.os, "fsync", lambda descriptor: None)
    yield
    patch.undo()


def import_ends_well(content: bytes, sound: dict[str, bytes]) -> bool:
    """True when the archive was imported and all its files are those of the sound bundle; refused: nothing was written."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "a.autoseg").write_bytes(content)
        try:
            read_archive(folder / "a.autoseg", folder / "deep" / "back", ())
        except AutosegError as error:
            assert error.exit_code in REFUSALS, error
            assert [path.name for path in folder.rglob("*")] == ["a.autoseg"]
            return False
        assert sorted(path.name for path in folder.iterdir()) == ["a.autoseg", "deep"]
        assert files_of(folder / "deep") == {f"back/{name}": content for name, content in sound.items()}
        return True


@given(st.data())
@settings(BOUNDED, max_examples=1000)
def test_changed_bytes_are_refused_or_make_no_difference(home, data):
    content, sound = bytearray(home.archive.read_bytes()), files_of(home.bundle)
    headers = [place for place in range(len(content) - 4) if content[place:place + 2] == b"PK"]
    anywhere = st.integers(0, len(content) - 1)
    in_a_header = st.builds(lambda start, step: min(start + step, len(content) - 1), st.sampled_from(headers), st.integers(0, 60))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.one_of(in_a_header, anywhere))
        kind = data.draw(st.sampled_from(["set", "set", "insert", "delete", "cut", "number"]))
        if kind == "set":
            content[place:place + 1] = bytes([data.draw(st.integers(0, 255))])
        elif kind == "number":
            content[place:place + 4] = struct.pack("<L", data.draw(st.sampled_from([0, 1, 2**16, 2**31 - 1, 2**32 - 1])))
        elif kind == "insert":
            content[place:place] = data.draw(st.binary(max_size=40))
        elif kind == "delete":
            del content[place:place + data.draw(st.integers(1, 40))]
        else:
            del content[max(place, 1):]
        if not content:
            break
    import_ends_well(bytes(content), sound)


NAMES = st.one_of(
    st.sampled_from(["../x", "/x", "members/../../x", "members/x", "MEMBERS/X", "plan.json", "Plan.json", "bundle.json", "a\\b",
                     "C:x", "con", "x.", ".x", "members/", "", "x\0y", "ı", "K.json", "spec.yaml/x", "signature.json", "-rf",
                     "x" * 300]),
    st.text(min_size=1, max_size=20))


@given(st.lists(st.tuples(NAMES, st.integers(0, 2**32 - 1), st.binary(max_size=50), st.sampled_from([0, 8, 12, 14])), min_size=1,
                max_size=4), st.booleans())
@settings(BOUNDED, max_examples=1000)
def test_entries_that_no_bundle_has_are_never_written(home, entries, with_bundle):
    sound = files_of(home.bundle)
    made = []
    for name, attributes, content, compression in entries:
        entry = zipfile.ZipInfo(name or "x")
        entry.external_attr, entry.compress_type = attributes, compression
        made.append((entry, content))
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        try:
            path = zipped(Path(folder) / "a.zip", [*(sound.items() if with_bundle else ()), *made])
        except (UnicodeEncodeError, ValueError):  # a name that a zip cannot hold
            return
        assert not import_ends_well(path.read_bytes(), sound)


HOSTILE_TEXTS = st.sampled_from(["members/x.safetensors", "../../etc/passwd", "os.system", "0" * 64])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10) | HOSTILE_TEXTS,
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=8), children, max_size=3), max_leaves=6)


def places(document, path=()):
    """The path of every value in a JSON document."""
    yield path
    children = document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    for key, child in children:
        yield from places(child, (*path, key))


@given(st.data())
@settings(BOUNDED, max_examples=600)
def test_documents_with_other_values_are_refused_or_read(home, data):
    """With the right digests: whoever made the bundle is hostile."""
    name = data.draw(st.sampled_from(["bundle.json", "bundle.json", "plan.json", "fingerprint.json"]))
    document = json.loads((home.bundle / name).read_text())
    path = data.draw(st.sampled_from(list(places(document))[:2000]))
    value = data.draw(VALUES)
    if path:
        parent = document
        for key in path[:-1]:
            parent = parent[key]
        parent[path[-1]] = value
    else:
        document = value
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(shutil.copytree(home.bundle, Path(folder) / "bundle"))
        content = json.dumps(document).encode()
        (bundle / name).write_bytes(content) if name == "bundle.json" else rewrite(bundle, name, content)
        try:
            read_bundle(bundle)
        except AutosegError as error:
            assert error.exit_code in REFUSALS, error


@given(st.data())
@settings(BOUNDED, max_examples=1500)
def test_weights_that_are_let_in_are_what_the_library_reads(home, data):
    """A second reader: what the check lets in, the library of the format opens with the same names and shapes."""
    weights = next((home.bundle / "members").iterdir())
    content = bytearray(weights.read_bytes())
    length = struct.unpack("<Q", content[:8])[0]
    header = bytes(content[8:8 + length])
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(header) - 1))
        piece = data.draw(st.sampled_from([b"", b"0", b"9", b"-", b"1e9", b"[", b"]", b'"', b"F64", b" ", b",", b"%d" % 2**64]))
        header = header[:place] + piece + header[place + data.draw(st.integers(0, 3)):]
    size = data.draw(st.sampled_from([len(header)] * 4 + [len(header) - 1, 0, 2**40, 2**64 - 1]))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.safetensors"
        path.write_bytes(struct.pack("<Q", size) + header + content[8 + length:])
        try:
            found = stored_tensors(path)
        except AutosegError:
            return
        try:
            with safe_open(path, "pt") as opened:
                names = opened.keys()
                shapes = {name: opened.get_slice(name).get_shape() for name in names}
            assert shapes == {name: list(tensor.shape) for name, tensor in found.items()}
        except SafetensorError as error:
            pytest.fail(f"let in, and the library refuses it: {error}")
