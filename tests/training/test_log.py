from __future__ import annotations

import math

import pytest

from autoseg.training.log import MetricsLog, read_metrics


def test_records_come_back_in_order_and_bit_equal(tmp_path):
    log = MetricsLog(tmp_path / "run" / "metrics.jsonl")
    records = [{"iteration": 10, "total": 0.1 + 0.2}, {"iteration": 20, "total": 1e-17, "note": "ü"}]

    for record in records:
        log.append(record)

    assert read_metrics(log.path) == records


def test_numbers_that_are_not_finite_become_null(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")

    log.append({"iteration": 1, "dice": math.nan, "distance": math.inf})

    assert read_metrics(log.path) == [{"iteration": 1, "dice": None, "distance": None}]


@pytest.mark.parametrize("torn", ['{"iteration": 30, "tot', '{"iteration": 30, "name": "\udcc3', "17"])
def test_torn_last_line_is_ignored_and_gone_after_truncation(tmp_path, torn):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.append({"iteration": 10})
    with log.path.open("ab") as file:
        file.write(torn.encode("utf-8", errors="surrogateescape"))

    assert read_metrics(log.path) == [{"iteration": 10}]
    log.truncate(10)
    log.append({"iteration": 20})
    assert read_metrics(log.path) == [{"iteration": 10}, {"iteration": 20}]


def test_truncation_drops_records_after_the_resumed_iteration(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    for iteration in (10, 20, 30):
        log.append({"iteration": iteration})

    log.truncate(20)

    assert [record["iteration"] for record in read_metrics(log.path)] == [10, 20]


def test_missing_file_has_no_records_and_truncation_makes_none(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")

    log.truncate(0)

    assert read_metrics(log.path) == [] and not log.path.exists()
