from __future__ import annotations

import pytest

from autoseg.core.case import Case, Unit
from autoseg.io.values import read_value
from autoseg.stages.folds import Splits
from benchmarks.ledger import Ledger
from benchmarks.segmentation import leave_one_out, render


def unit(name, patient):
    return Unit(name, (Case(name, patient, {}),), patient)


def test_every_patient_is_left_out_once_and_other_folds_are_kept(tmp_path):
    path = tmp_path / "Toy" / "splits.json"
    units = [unit("b1", "b"), unit("a1", "a"), unit("c1", "c"), unit("b2", "b")]
    leave_one_out(units, path)
    made = read_value(path, Splits)
    assert [(fold.train, fold.validation) for fold in made.folds] == [
        (("b1", "b2", "c1"), ("a1",)), (("a1", "c1"), ("b1", "b2")), (("a1", "b1", "b2"), ("c1",))]
    assert not made.is_generated  # so autoseg obeys them
    leave_one_out(units, path)
    with pytest.raises(SystemExit, match="holds other folds"):
        leave_one_out(units[:3], path)
    assert read_value(path, Splits) == made


def test_the_table_takes_the_cases_of_all_folds_together(tmp_path):
    ledger = Ledger(tmp_path / "ledger.json")
    for fold, dice in enumerate(([0.5, 0.7], [0.9])):
        records = [{"unit": f"{fold}{place}", "group": "", "scores": {"lesion.dice": value}} for place, value in enumerate(dice)]
        ledger.add(f"Toy, 2d, default, fold {fold}", "folds", {
            "row": "Toy, 2d, default", "iterations": 2500, "seconds": 100.0 * (1 + fold), "network": records,
            "baseline": [{**record, "scores": {"lesion.dice": 0.25}} for record in records]})
    line = render(ledger).splitlines()[2]
    assert line.startswith("| Toy, 2d, default | 2 | 2,500 | 150 | 3 | lesion | 0.700 [0.5")
    assert line.endswith(" | 0.250 [0.250, 0.250] |")
