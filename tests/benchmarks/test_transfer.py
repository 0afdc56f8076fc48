"""The comparison of starts with training from scratch, on records whose AUC is known."""

from __future__ import annotations

from argparse import Namespace

import pytest

from autoseg.core.errors import ReadError
from autoseg.core.report import Record
from benchmarks import transfer
from benchmarks.ledger import Ledger
from benchmarks.transfer import TRAINED, compared, render


def records(name: str, said: list[float]) -> list[Record]:
    """Two cases that are well, then two that are ill."""
    return [Record(f"{name}{place}", {"ill.yes.probability": value, "ill.truth": float(place > 1), "ill.log_score": -1.0,
                                      "ill.decided": float(value > 0.5), "mean.log_score": -1.0})
            for place, value in enumerate(said)]


def fold(name: str, scratch: list[float], start: list[float]) -> dict[str, list[Record]]:
    said = {"resnet": scratch, "layer_wise": start, "last_stage": scratch, "frozen": scratch, "baseline": scratch}
    return {key: records(name, values) for key, values in said.items()}


# Pairs in order: from scratch 2 of 4 and 4 of 4; layer-wise 4 of 4 and 3 of 4.
FOLDS = [fold("a", [0.4, 0.1, 0.3, 0.2], [0.1, 0.2, 0.3, 0.4]), fold("b", [0.0, 0.25, 0.5, 0.75], [0.125, 0.75, 0.5, 0.875])]


def test_starts_are_compared_with_scratch_within_each_fold():
    found = compared(FOLDS)
    assert found["auc"]["resnet"] == [0.5, 1.0] and found["auc"]["layer_wise"] == [1.0, 0.75]
    assert found["difference"]["layer_wise"][0] == pytest.approx((0.5 - 0.25) / 2)
    assert found["difference"]["frozen"] == [0.0, 0.0, 0.0]
    assert "resnet" not in found["difference"] and (found["units"], found["patients"]) == (8, 8)


def test_the_table_shows_mean_spread_and_difference(tmp_path):
    ledger = Ledger(tmp_path / "transfer.json")
    ledger.add("x", "y", compared(FOLDS) | {"iterations": dict.fromkeys(TRAINED, 20)})
    row = next(line for line in render(ledger).splitlines() if "layer_wise" in line)
    # standard deviation of 1 and 0.75: 0.25 / sqrt(2)
    assert "| 20 | 0.8750 ± 0.1768 (0.750 to 1.000) | +0.1250 [" in row and row.endswith("| 1 of 2 |")


def test_every_start_is_trained_by_the_plan_that_was_made(tmp_path, monkeypatch):
    commands = []
    monkeypatch.setattr(transfer, "run_autoseg", commands.append)
    options = Namespace(bundle=tmp_path / "bundle", dataset="CovidCXR", root=tmp_path, data=tmp_path, minutes=4.0, folds="0")
    with pytest.raises(ReadError, match="4min_started"):  # nothing was run, so there is nothing to read
        transfer.measure(options)
    made, *trained = commands
    assert made[0] == "plan_and_preprocess" and [command[0] for command in trained] == ["train"] * len(TRAINED)
    # Without a name of its own a plan that starts from weights is called otherwise than its minutes.
    assert {command[command.index("--plan") + 1] for command in trained} == {made[made.index("--plan") + 1]}
    assert [command[command.index("-c") + 1] for command in trained] == list(TRAINED)
