from __future__ import annotations

import json
import logging
import os
from dataclasses import replace

import pytest
import torch

from autoseg.training.checkpoint import Checkpoint, read_newest_checkpoint, write_checkpoint


def checkpoint(iteration: int) -> Checkpoint:
    tensors = {"network.weights": torch.full((2, 3), iteration + 0.1).t(), "step": torch.tensor(float(iteration)),
               "optimizer.0.0.exp_avg": torch.full((3, 2), 0.5), "bytes": torch.arange(5, dtype=torch.uint8)}
    return Checkpoint(iteration, tensors, {"sum": 0.1 + 0.2, "names": ["a", "ü"], "iteration": iteration})


def test_tensors_and_state_come_back_bit_equal(tmp_path):
    write_checkpoint(tmp_path / "new", checkpoint(7))

    read = read_newest_checkpoint(tmp_path / "new")

    assert read.iteration == 7 and read.state == checkpoint(7).state
    assert all(torch.equal(read.tensors[name], tensor) for name, tensor in checkpoint(7).tensors.items())


def test_no_folder_and_an_empty_folder_hold_no_checkpoint(tmp_path):
    assert read_newest_checkpoint(tmp_path / "none") is None
    assert read_newest_checkpoint(tmp_path) is None


def test_last_two_are_kept_and_the_newest_is_read(tmp_path):
    for iteration in (5, 10, 20, 100):
        write_checkpoint(tmp_path, checkpoint(iteration))

    assert sorted(path.name[:8] for path in tmp_path.iterdir()) == ["00000020", "00000100"]
    assert read_newest_checkpoint(tmp_path).iteration == 100


def test_a_run_that_had_to_go_back_drops_what_it_could_not_use(tmp_path):
    for iteration in (10, 100):
        newest = write_checkpoint(tmp_path, checkpoint(iteration))
    newest.write_bytes(b"")
    write_checkpoint(tmp_path, checkpoint(20))

    assert sorted(path.name[:8] for path in tmp_path.iterdir()) == ["00000010", "00000020"]


def test_of_one_iteration_the_last_written_is_kept(tmp_path):
    first = write_checkpoint(tmp_path, checkpoint(10))
    second = write_checkpoint(tmp_path, replace(checkpoint(10), state={"other": 1}))

    assert list(tmp_path.iterdir()) == [second] and first != second


def flip(content: bytes, place: int) -> bytes:
    """The content with one bit turned."""
    return content[:place] + bytes([content[place] ^ 4]) + content[place + 1:]


def place_of(content: bytes, name: str) -> int:
    """Where the bytes of a tensor begin."""
    length = int.from_bytes(content[:8], "little")
    return 8 + length + json.loads(content[8:8 + length])[name]["data_offsets"][0]


@pytest.mark.parametrize("damage", [
    lambda content: content[:-1], lambda content: b"", lambda content: content + b"x",
    lambda content: flip(content, place_of(content, "network.weights")),
    lambda content: flip(content, place_of(content, "optimizer.0.0.exp_avg")),
    lambda content: flip(content, content.index(b"iteration"))],
    ids=["truncated", "empty", "longer", "bit of a weight", "bit of the optimiser's state", "bit of the header"])
def test_damaged_checkpoint_is_passed_over_with_a_warning(tmp_path, damage, caplog):
    write_checkpoint(tmp_path, checkpoint(10))
    newest = write_checkpoint(tmp_path, checkpoint(20))
    newest.write_bytes(damage(newest.read_bytes()))

    with caplog.at_level(logging.WARNING):
        read = read_newest_checkpoint(tmp_path)

    assert read.iteration == 10
    assert newest.name in caplog.text and "it is damaged" in caplog.text and "one before it is taken" in caplog.text


def test_checkpoint_of_another_fold_or_under_another_name_is_passed_over(tmp_path, caplog):
    write_checkpoint(tmp_path, replace(checkpoint(10), run="fold 0"))
    write_checkpoint(tmp_path, replace(checkpoint(20), run="fold 1"))
    last = write_checkpoint(tmp_path / "other", replace(checkpoint(30), run="fold 0"))
    last.rename(tmp_path / last.name.replace("30", "40", 1))

    assert read_newest_checkpoint(tmp_path, "fold 0").iteration == 10
    assert caplog.text.count("belongs to another run or fold, or was renamed") == 2


def test_training_that_begins_anew_for_want_of_a_whole_checkpoint_says_so(tmp_path, caplog):
    for iteration in (10, 20):
        write_checkpoint(tmp_path, checkpoint(iteration)).write_bytes(b"")

    assert read_newest_checkpoint(tmp_path) is None
    assert "none of the 2 checkpoint(s)" in caplog.text and "TRAINING BEGINS ANEW" in caplog.text


def test_no_clock_decides_which_checkpoint_is_newest(tmp_path):
    paths = [write_checkpoint(tmp_path, checkpoint(iteration)) for iteration in (10, 20)]
    os.utime(paths[0], (2**31, 2**31))
    os.utime(paths[1], (0, 0))

    assert read_newest_checkpoint(tmp_path).iteration == 20


def test_unfinished_file_of_a_killed_run_is_not_taken_for_a_checkpoint(tmp_path):
    whole = write_checkpoint(tmp_path, checkpoint(10))
    (tmp_path / f".{whole.name.replace('10', '20')}.ab12.part").write_bytes(b"half")

    assert read_newest_checkpoint(tmp_path).iteration == 10


def test_nothing_in_the_file_is_a_pickle(tmp_path):
    content = write_checkpoint(tmp_path, checkpoint(1)).read_bytes()

    assert content[8:9] == b"{"
    assert b"\x80\x02" not in content[:200] and not content.startswith(b"PK")
