from __future__ import annotations

import pytest

from benchmarks.ledger import Ledger
from benchmarks.peer_accuracy import last_json, render


def test_the_table_shows_every_dice_per_case_and_per_patient(tmp_path):
    ledger = Ledger(tmp_path / "ledger.json")
    estimate = {"mean": 0.71234, "lower": 0.6, "upper": 0.8, "median": 0.7, "count": 105}
    summary = {"mean.dice": estimate, "mean.hd95_mm": estimate, "left.dice": {**estimate, "lower": None, "upper": None}}
    ledger.add("Data, 2d, fold 0, 10 minutes", "inputs", {
        "iterations": 1200, "seconds": {"training": 599.6}, "cases": 105,
        "scores": {"summary": summary, "per_patient": {"mean.dice": {**estimate, "mean": 0.69}}}})
    rows = render(ledger).splitlines()[2:]
    assert rows == [
        "| Data, 2d, fold 0, 10 minutes | 1,200 | 600 | 105 | mean.dice | 0.7123 [0.600, 0.800] | 0.6900 [0.600, 0.800] |",
        "| Data, 2d, fold 0, 10 minutes | 1,200 | 600 | 105 | left.dice | 0.7123 [-, -] |  |"]


def test_the_result_of_a_program_is_the_last_object_of_its_log(tmp_path):
    log = tmp_path / "log"
    log.write_text('{"step": 1}\n1/6 2.00 s\n{"step": 2.5}\n')
    assert last_json(log) == {"step": 2.5}
    log.write_text("nothing\n")
    with pytest.raises(SystemExit, match="ends without a result"):
        last_json(log)
