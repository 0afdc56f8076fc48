from __future__ import annotations

import pytest
from fields import image_on, stored_grid

from autoseg.io.dataset import scan
from autoseg.io.images import write_volume
from autoseg.io.specs import load_spec
from autoseg.tasks.registration.spec import index_units
from benchmarks import known_warps
from benchmarks.ledger import Ledger


def test_a_known_warp_that_is_not_undone_is_the_whole_error(tmp_path):
    image = image_on(stored_grid(shape=(24, 28, 32), spacing_mm=(2.0, 1.5, 1.0)))
    ledger = Ledger(tmp_path / "ledger.json")
    truth = known_warps.warped(image, image, 0)[0]
    told = known_warps.Way("right", "digest", lambda inputs: lambda images: truth)
    known_warps.known_warps(ledger, "itself", image, image, [told], 1)
    scores, right = (entry["result"]["scores"] for entry in ledger.entries.values())
    assert right["field.end_point_error_mm"] == right["inside.end_point_error_mm"] == 0
    assert scores["field.end_point_error_mm"] == pytest.approx(3.0, rel=0.2)  # root mean square of the velocity: 3 mm
    assert scores["field.folded_percent"] == 0
    assert 1.0 < scores["inside.end_point_error_mm"] < 5.0


def test_contrasts_of_a_patient_are_pairs_with_the_contrast_agent_fixed(tmp_path):
    image = image_on(stored_grid(shape=(4, 6, 8), spacing_mm=(2.0, 1.5, 1.0)))
    for patient in ("pat0001_1", "pat0002_1"):
        for contrast in ("0000", "0001"):
            write_volume(tmp_path / "imagesTr" / f"brats_2013_{patient}_{contrast}.nii.gz", image.voxels, image)
    (tmp_path / "Contrasts.yaml").write_text(known_warps.CONTRASTS)
    spec = load_spec(str(tmp_path / "Contrasts.yaml"))
    units = index_units(spec, scan(spec, tmp_path).cases)
    patients = ["brats_2013_pat0001_1", "brats_2013_pat0002_1"]
    assert [unit.group for unit in units] == patients
    assert [unit.id for unit in units] == [f"{patient}_0000_to_{patient}_0001" for patient in patients]
