from __future__ import annotations

from autoseg.core.case import Case
from benchmarks import registration
from benchmarks.ledger import Ledger


def test_no_pair_is_drawn_twice_and_no_case_meets_itself():
    cases = [Case(f"c{number}", f"c{number}", {"image": ()}) for number in range(7)]
    units = registration.drawn_pairs(cases, 30)
    assert len({unit.id for unit in units}) == 30
    assert all(unit.cases[0] != unit.cases[1] for unit in units)
    assert registration.drawn_pairs(cases, 30) == units
    assert len(registration.drawn_pairs(cases, 100)) == 42  # all there are


def test_the_table_has_means_with_their_standard_errors_and_median_seconds(tmp_path):
    ledger = Ledger(tmp_path / "ledger.json")
    for name, dice, seconds in (("a", 0.5, 1.0), ("b", 0.7, 2.0), ("c", 0.9, 30.0)):
        ledger.add(f"some method: {name}", "digest", {"scores": {"mean.dice": dice, "seconds": seconds, "mean.hd95_mm": None}})
    [row] = [line for line in registration.render(ledger).splitlines() if "some method" in line]
    assert [cell.strip() for cell in row.strip("|").split("|")][:4] == ["some method", "3", "0.7 ± 0.12", "-"]  # 0.2 / sqrt 3
    assert [cell.strip() for cell in row.strip("|").split("|")][-2:] == ["2", "-"]


def test_pairs_of_another_draw_are_forgotten(tmp_path):
    ledger = Ledger(tmp_path / "ledger.json")
    for key in ("one: a", "one: b", "one, two: a"):
        ledger.add(key, "digest", {"scores": {}})
    ledger.keep_only("one: ", ["one: b", "one: c"])
    assert list(ledger.entries) == ["one: b", "one, two: a"]
