from __future__ import annotations

from dataclasses import asdict

from benchmarks.engine import render_agreement, render_ratio
from benchmarks.ledger import Ledger
from benchmarks.measure import Usage
from benchmarks.speed import Row, row_key


def test_ratios_are_taken_round_by_round(tmp_path):
    ledger = Ledger(tmp_path / "ledger.json")
    ours, peer = (Row("predict", name, [], "same") for name in ("ours", "theirs"))
    for row, seconds in ((ours, (10.0, 20.0, 40.0)), (peer, (30.0, 50.0, 80.0))):
        for number, wall in enumerate(seconds):
            ledger.add(row_key(row, number), "same", asdict(Usage(wall, 2 * wall + 10, 1, 0.0)))
    # wall: 3, 2.5, 2; processor: 70/30, 110/50, 170/90
    assert render_ratio([ours, peer], ledger).splitlines()[2] == "| ours | 2.50 (2.00 to 3.00) | 2.20 (1.89 to 2.33) |"


def test_engines_that_were_not_compared_are_said_to_be_so(tmp_path):
    ledger = Ledger(tmp_path / "ledger.json")
    assert render_agreement(ledger) == "engines not compared"
    ledger.add("agreement", "x", {"cases": 5, "largest_difference": 1.4e-4, "largest_logit": 6.93, "voxels": 100,
                                  "different_labels": 1})
    assert "largest difference of logits 1.4e-04 (largest logit 6.93), 1 of 100 voxels" in render_agreement(ledger)
