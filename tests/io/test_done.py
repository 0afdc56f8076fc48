from __future__ import annotations

import pytest

from autoseg.io.atomic import sha256_bytes
from autoseg.io.done import is_done, mark_done, read_done


@pytest.fixture
def stage(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.txt").write_bytes(b"one")
    (tmp_path / "sub" / "b.txt").write_bytes(b"three")
    mark_done(tmp_path, "hash", [tmp_path / "sub" / "b.txt", tmp_path / "a.txt"])
    return tmp_path


def test_a_finished_stage_is_done_for_its_inputs_only(stage):
    assert is_done(stage, "hash")
    assert not is_done(stage, "other")


def test_record_names_inputs_sizes_and_digests_with_relative_paths(stage):
    assert read_done(stage) == {
        "inputs": "hash",
        "outputs": {
            "a.txt": {"bytes": 3, "sha256": sha256_bytes(b"one")},
            "sub/b.txt": {"bytes": 5, "sha256": sha256_bytes(b"three")},
        },
    }


def test_a_moved_folder_is_still_done(stage):
    moved = stage.parent / "moved"
    stage.rename(moved)
    assert is_done(moved, "hash")


def test_a_missing_or_shortened_output_undoes_the_stage(stage):
    (stage / "a.txt").write_bytes(b"o")
    assert not is_done(stage, "hash")
    (stage / "a.txt").unlink()
    assert not is_done(stage, "hash")


def test_changed_content_of_equal_size_undoes_the_stage_and_is_named(stage, caplog):
    (stage / "a.txt").write_bytes(b"two")
    assert not is_done(stage, "hash")
    assert "a.txt is missing or differs" in caplog.text and "b.txt" not in caplog.text


@pytest.mark.parametrize("text", ["", "{", "[]", '{"inputs": "hash"}', '{"inputs": "hash", "outputs": {"a.txt": 3}}'])
def test_an_unsound_record_means_not_done(stage, text):
    (stage / "done.json").write_text(text)
    assert read_done(stage) is None and not is_done(stage, "hash")


def test_a_folder_that_does_not_exist_is_not_done(tmp_path):
    assert not is_done(tmp_path / "none", "hash")


def test_outputs_outside_the_folder_are_refused(stage):
    with pytest.raises(ValueError, match="subpath"):
        mark_done(stage / "sub", "hash", [stage / "a.txt"])
