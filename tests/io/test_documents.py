from __future__ import annotations

import datetime
import os
import time
from pathlib import Path

import pytest

from autoseg.core.errors import ReadError
from autoseg.io.documents import MAX_DEPTH, read_document, require_plain


def test_text_is_read_without_its_byte_order_mark(tmp_path):
    (tmp_path / "a").write_text("né", encoding="utf-8-sig")
    assert read_document(tmp_path / "a", 100) == "né"


def test_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    started = time.monotonic()
    with pytest.raises(ReadError, match="not a regular file") as caught:
        read_document(tmp_path / "pipe", 100)
    assert caught.value.code == "E_NOT_A_FILE" and time.monotonic() - started < 5


@pytest.mark.parametrize("path", ["/dev/zero", "/"])
def test_devices_and_folders_are_refused(path):
    if not Path(path).exists():
        pytest.skip(f"this system has no {path}")
    with pytest.raises(ReadError, match="not a regular file"):
        read_document(Path(path), 100)


def test_missing_large_and_foreign_files_are_named(tmp_path):
    (tmp_path / "large").write_bytes(b"x" * 101)
    (tmp_path / "latin").write_bytes(b"ok\nna\xefve")
    for name, code, words in (("none", "E_MISSING", "does not exist"), ("large", "E_TOO_LARGE", "101 bytes; at most 100"),
                              ("latin", "E_READ", "line 2 holds the byte 0xef")):
        with pytest.raises(ReadError, match=words) as caught:
            read_document(tmp_path / name, 100)
        assert caught.value.code == code and str(tmp_path / name) in str(caught.value)


def nested(depth):
    document = []
    for _ in range(depth):
        document = [document]
    return document


@pytest.mark.parametrize(("document", "words"), [
    ({"a": {"b": float("nan")}}, r"a\.b: nan"), ({"a": [1e999]}, "a: inf"), ({"a": 2**63}, "19 digits"),
    ({"a": -(2**63) - 1}, "19 digits"),
    ({"a": "\ud800"}, r"\\ud800"), ({"a\x1b[2J": 1}, r"\\x1b\[2J"), ({"a": "x\x00"}, r"\\x00"), ({"a": "\u202etxt"}, "u202e"),
    ({"a": datetime.date(2020, 1, 1)}, "read as date"), ({"a": {1, 2}}, "read as set"), ({"a": b"x"}, "read as bytes"),
    (nested(MAX_DEPTH + 1), "deeper"), (nested(100_000), "deeper"),
])
def test_what_json_cannot_hold_or_a_screen_would_obey_is_refused(document, words):
    with pytest.raises(ReadError, match=words) as caught:
        require_plain(document, "some/file")
    assert caught.value.code == "E_DOCUMENT" and "some/file" in str(caught.value)
    assert str(caught.value).isprintable()


def test_ordinary_documents_pass():
    require_plain({"a": [1, 2.5, None, True, "line\none\ttab"], "é": {"b": 2**63 - 1}, "c": nested(MAX_DEPTH - 1)}, "x")
