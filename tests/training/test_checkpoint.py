from __future__ import annotations

import logging

import pytest
import torch

from autoseg.training.checkpoint import Checkpoint, read_newest_checkpoint, write_checkpoint


def checkpoint(iteration: int) -> Checkpoint:
    tensors = {"weights": torch.full((2, 3), iteration + 0.1).t(), "step": torch.tensor(float(iteration)),
               "bytes": torch.arange(5, dtype=torch.uint8)}
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
    for iteration in (5, 10, 100, 20):
        write_checkpoint(tmp_path, checkpoint(iteration))

    assert sorted(path.name[:8] for path in tmp_path.iterdir()) == ["00000020", "00000100"]
    assert read_newest_checkpoint(tmp_path).iteration == 100


@pytest.mark.parametrize("damage", [
    lambda content: content[:-1], lambda content: b"", lambda content: content[:200] + b"\xff" + content[201:],
    lambda content: content + b"x"])
def test_damaged_checkpoint_is_passed_over_with_a_warning(tmp_path, damage, caplog):
    write_checkpoint(tmp_path, checkpoint(10))
    newest = write_checkpoint(tmp_path, checkpoint(20))
    newest.write_bytes(damage(newest.read_bytes()))

    with caplog.at_level(logging.WARNING):
        read = read_newest_checkpoint(tmp_path)

    assert read.iteration == 10
    assert newest.name in caplog.text


def test_unfinished_file_of_a_killed_run_is_not_taken_for_a_checkpoint(tmp_path):
    whole = write_checkpoint(tmp_path, checkpoint(10))
    (tmp_path / f".{whole.name.replace('10', '20')}.ab12.part").write_bytes(b"half")

    assert read_newest_checkpoint(tmp_path).iteration == 10


def test_nothing_in_the_file_is_a_pickle(tmp_path):
    content = write_checkpoint(tmp_path, checkpoint(1)).read_bytes()

    assert content[8:9] == b"{"
    assert b"\x80\x02" not in content[:200] and not content.startswith(b"PK")
