from __future__ import annotations

import numpy as np
import pytest
from fields import image_on, stored_grid

from autoseg.core.case import Case
from autoseg.io.dataset import scan
from autoseg.io.images import write_volume
from autoseg.io.specs import load_spec
from autoseg.tasks.registration.output import Registration
from autoseg.tasks.registration.spec import index_units
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


def test_a_known_warp_that_is_not_undone_is_the_whole_error(tmp_path):
    image = image_on(stored_grid(shape=(24, 28, 32), spacing_mm=(2.0, 1.5, 1.0)))
    still = registration.Way("nothing", "digest", lambda inputs: lambda images: Registration(
        np.zeros((3, *images["image"].geometry.shape), np.float32)))
    ledger = Ledger(tmp_path / "ledger.json")
    registration.known_warp(ledger, "itself", image, image, [still])
    [entry] = ledger.entries.values()
    scores = entry["result"]["scores"]
    assert scores["field.end_point_error_mm"] == pytest.approx(3.0, rel=0.2)  # root mean square of the velocity: 3 mm
    assert scores["field.folded_percent"] == 0
    assert 1.0 < scores["inside.end_point_error_mm"] < 5.0


def test_contrasts_of_a_patient_are_pairs_with_the_contrast_agent_fixed(tmp_path):
    image = image_on(stored_grid(shape=(4, 6, 8), spacing_mm=(2.0, 1.5, 1.0)))
    for patient in ("pat0001_1", "pat0002_1"):
        for contrast in ("0000", "0001"):
            write_volume(tmp_path / "imagesTr" / f"brats_2013_{patient}_{contrast}.nii.gz", image.voxels, image)
    (tmp_path / "Contrasts.yaml").write_text(registration.CONTRASTS)
    spec = load_spec(str(tmp_path / "Contrasts.yaml"))
    units = index_units(spec, scan(spec, tmp_path).cases)
    patients = ["brats_2013_pat0001_1", "brats_2013_pat0002_1"]
    assert [unit.group for unit in units] == patients
    assert [unit.id for unit in units] == [f"{patient}_0000_to_{patient}_0001" for patient in patients]


def test_pairs_of_another_draw_are_forgotten(tmp_path):
    ledger = Ledger(tmp_path / "ledger.json")
    for key in ("one: a", "one: b", "one, two: a"):
        ledger.add(key, "digest", {"scores": {}})
    ledger.keep_only("one: ", ["one: b", "one: c"])
    assert list(ledger.entries) == ["one: b", "one, two: a"]
