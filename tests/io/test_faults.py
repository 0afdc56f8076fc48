"""A fault at every call that changes the disk, one after the other, as SQLite tests its commits."""

from __future__ import annotations

import errno
from itertools import count

import numpy as np
import pytest
import torch
from breaking import fails_at

from autoseg.core.errors import ResourceError
from autoseg.core.geometry import Geometry, GridRecord, canonical_orientation
from autoseg.io.atomic import explaining, remove_leftovers, write_json
from autoseg.io.done import is_done, mark_done
from autoseg.io.lock import locked, reading
from autoseg.io.store import Store
from autoseg.io.values import read_json
from autoseg.ops.crop import whole_box
from autoseg.training.checkpoint import Checkpoint, read_newest_checkpoint, write_checkpoint
from autoseg.training.log import MetricsLog, read_metrics

GRID = Geometry((3, 4, 5), (1.0, 1.0, 1.0))
RECORD = GridRecord(GRID, canonical_orientation(GRID.direction), whole_box(GRID.shape), (0, 1, 2), GRID.shape, GRID.spacing_mm)


class Document:
    """A JSON file: it holds the old or the new value."""

    def write(self, folder, value):
        write_json(folder / "sub" / "a.json", {"value": value, "more": list(range(500))})

    def read(self, folder):
        return read_json(folder / "sub" / "a.json")["value"]


class Finished:
    """A stage and its `done.json`: finished for the old or the new inputs, or to be done again; never for a mixture."""

    def write(self, folder, value):
        write_json(folder / "output.json", value)
        mark_done(folder, str(value), [folder / "output.json"])

    def read(self, folder):
        done = [value for value in (1, 2) if is_done(folder, str(value))]
        assert all(read_json(folder / "output.json") == value for value in done)
        return done[0] if done else None


class Checkpoints:
    """Two checkpoints are kept, and one of them can always be read."""

    def write(self, folder, value):
        write_checkpoint(folder, Checkpoint(value, {"weights": torch.full((40,), float(value))}, {}, "run"))

    def read(self, folder):
        read = read_newest_checkpoint(folder, "run")
        assert read.tensors["weights"].tolist() == [float(read.iteration)] * 40
        return read.iteration


class StoredCase:
    """A case is there from the old source or the new one, or not at all."""

    def write(self, folder, value):
        arrays = {"image": np.full((1, 3, 4, 5), value, np.float32), "places": np.full((6, 3), value)}
        Store(folder).write_case("case", arrays, RECORD, source_digest=str(value))

    def read(self, folder):
        found = [value for value in (1, 2) if Store(folder).has_case("case", str(value), check_digests=True)]
        assert all((Store(folder).array("case", name) == value).all() for value in found for name in ("image", "places"))
        return found[0] if found else None


class Log:
    """The log holds its earlier records, and the new one or not."""

    def write(self, folder, value):
        MetricsLog(folder / "metrics.jsonl").append({"iteration": value})

    def read(self, folder):
        records = [record["iteration"] for record in read_metrics(folder / "metrics.jsonl")]
        assert records == [1, 2][:len(records)]
        return records[-1]


@pytest.mark.parametrize("kill", [False, True], ids=["error", "kill"])
@pytest.mark.parametrize(("kept", "may_be_missing"), [
    (Document(), False), (Finished(), True), (Checkpoints(), False), (StoredCase(), True), (Log(), False)],
    ids=lambda value: type(value).__name__)
def test_a_fault_at_any_call_leaves_the_old_or_the_new_and_a_repeat_mends_it(kept, may_be_missing, kill, tmp_path):
    for number in count():
        folder = tmp_path / str(number)
        kept.write(folder, 1)
        fired = fails_at(number, lambda: kept.write(folder, 2), kill=kill)  # noqa: B023
        found = kept.read(folder)
        assert found in ((1, 2, None) if may_be_missing else (1, 2))
        left = [path for path in folder.rglob("*.part")]
        assert len(left) <= (1 if kill else 0)
        assert remove_leftovers(folder, recursive=True) == left and not list(folder.rglob("*.part"))
        if not fired:
            assert found == 2 and number >= 2
            return
        if not isinstance(kept, Log) or found == 1:
            kept.write(folder, 2)
        assert kept.read(folder) == 2


@pytest.mark.parametrize("hold", [locked, reading])
def test_a_fault_while_a_lock_is_taken_never_blocks_the_next_run(hold, tmp_path):
    def take():
        with hold(tmp_path, "train"):
            pass

    for number in count():
        fired = fails_at(number, take, kill=number % 2 == 1)
        take()
        remove_leftovers(tmp_path)
        assert {path.name for path in tmp_path.iterdir()} <= {".lock", ".use"}
        if not fired:
            assert number >= 3
            return


def test_an_error_of_the_disk_is_a_resource_error_with_advice(tmp_path):
    with pytest.raises(ResourceError, match="the disk or the network drive reports an error"), explaining(tmp_path / "a"):
        raise OSError(errno.EIO, "Input/output error")
