from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from autoseg.core.errors import ResourceError
from autoseg.io.atomic import (
    hash_values,
    remove_leftovers,
    replacing,
    sha256_bytes,
    sha256_file,
    sha256_path,
    write_bytes,
    write_json,
    write_text,
)


@dataclass(frozen=True)
class Point:
    name: str
    place_mm: tuple[float, float]


def test_a_finished_block_replaces_the_file_and_leaves_nothing_else(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with replacing(tmp_path / "a.txt") as part:
        part.write_text("new")
        assert (tmp_path / "a.txt").read_text() == "old"
        assert part.parent == tmp_path and part.name.startswith(".a.txt.") and part.name.endswith(".part")
    assert (tmp_path / "a.txt").read_text() == "new"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_an_error_in_the_block_keeps_the_old_file_and_removes_the_new_one(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "a.txt") as part:
        part.write_text("half")
        raise KeyboardInterrupt
    assert (tmp_path / "a.txt").read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_missing_folders_are_made(tmp_path):
    write_text(tmp_path / "a" / "b" / "c.txt", "größe")
    assert (tmp_path / "a" / "b" / "c.txt").read_bytes() == "größe".encode()


@pytest.mark.parametrize(
    ("number", "advice"), [(28, "disk is full"), (122, "quota"), (30, "read-only"), (13, "denied"), (27, "larger")]
)
def test_a_resource_that_ran_out_names_the_file_and_what_to_do(tmp_path, number, advice):
    with (
        pytest.raises(ResourceError, match=f"a.txt cannot be written.*{advice}"),
        replacing(tmp_path / "a.txt") as part,
    ):
        part.write_text("half")
        raise OSError(number, "text of the system")
    assert os.listdir(tmp_path) == []


def test_other_system_errors_pass_through(tmp_path):
    with pytest.raises(IsADirectoryError), replacing(tmp_path / "a.txt"):
        raise IsADirectoryError(21, "Is a directory")


def test_a_file_in_the_place_of_a_folder_is_an_error(tmp_path):
    (tmp_path / "a").write_text("file")
    with pytest.raises(ResourceError, match="a cannot be made: a file stands where a folder is needed"):
        write_bytes(tmp_path / "a" / "b", b"")


def test_json_keeps_the_order_of_keys_and_says_null_for_nan(tmp_path):
    write_json(tmp_path / "a.json", {"b": math.nan, "a": (1, 2.5), "c": Path("x/y")})
    assert (tmp_path / "a.json").read_text() == '{\n "b": null,\n "a": [\n  1,\n  2.5\n ],\n "c": "x/y"\n}\n'


def test_json_that_nobody_reads_is_written_on_one_line(tmp_path):
    values = list(range(50_000))
    write_json(tmp_path / "a.json", values)
    text = (tmp_path / "a.json").read_text()
    assert text.count("\n") == 1 and json.loads(text) == values


def test_digest_of_a_folder_changes_with_the_names_and_contents_of_its_files(tmp_path):
    (tmp_path / "m").mkdir()
    digests = []
    for name, content in (("a", b"1"), ("b", b"1"), ("b", b"2")):
        (tmp_path / "m" / name).write_bytes(content)
        digests.append(sha256_path(tmp_path / "m"))
    assert len(set(digests)) == 3 and sha256_path(tmp_path / "m") == digests[-1]
    (tmp_path / "m" / "b").rename(tmp_path / "m" / "c")
    assert sha256_path(tmp_path / "m") not in digests
    assert sha256_path(tmp_path / "m" / "a") == sha256_file(tmp_path / "m" / "a")


def test_digests_are_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"abc" * 1000)
    assert sha256_file(tmp_path / "a") == sha256_bytes(b"abc" * 1000) == hashlib.sha256(b"abc" * 1000).hexdigest()


def test_hash_of_values_is_that_of_their_canonical_json():
    expected = hashlib.sha256(b'[{"name":"p","place_mm":[1.5,null]},{"a":1,"b":2},"x/y"]').hexdigest()
    assert hash_values(Point("p", (1.5, math.nan)), {"b": 2, "a": 1}, Path("x/y")) == expected


def test_hash_sees_every_value_but_not_the_type_of_a_number_from_numpy():
    assert hash_values(1, "a") != hash_values("1", "a") != hash_values("1a")
    assert hash_values(np.int64(3), np.float64(0.25), np.arange(3)) == hash_values(3, 0.25, [0, 1, 2])


def test_leftovers_of_killed_writers_go_and_files_of_living_ones_stay(tmp_path):
    (tmp_path / "sub").mkdir()
    dead = [tmp_path / ".a.txt.0123abcd.part", tmp_path / "sub" / ".b.json.89abcdef.part"]
    others = [tmp_path / "a.part", tmp_path / ".a.txt.part", tmp_path / ".a.0123ABCD.part"]
    for path in (*dead, *others):
        path.write_text("half")
    with replacing(tmp_path / "c.txt") as part:
        part.write_text("whole")
        assert remove_leftovers(tmp_path) == dead[:1]
        assert remove_leftovers(tmp_path, recursive=True) == dead[1:]
    assert (tmp_path / "c.txt").read_text() == "whole"
    assert all(path.exists() for path in others)


def test_a_new_file_that_is_removed_before_its_writer_holds_it_is_made_again(tmp_path, monkeypatch):
    """Another process removes leftovers between the two calls of the system that make the file and lock it."""
    def flock(descriptor, kind):
        if not removed:
            removed.append(None)
            removed.extend(remove_leftovers(tmp_path))
        locked(descriptor, kind)

    removed, locked = [], fcntl.flock
    monkeypatch.setattr(fcntl, "flock", flock)
    with replacing(tmp_path / "a.txt") as part:
        part.write_text("whole")
        assert remove_leftovers(tmp_path) == []
    assert len(removed) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"] and (tmp_path / "a.txt").read_text() == "whole"


def test_rights_of_a_new_file_follow_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "a.txt", "text")
    finally:
        os.umask(before)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o640
