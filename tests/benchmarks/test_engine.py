from __future__ import annotations

from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

import pytest

from autoseg import pipeline
from autoseg.core.progress import silent
from autoseg.core.task import Context
from autoseg.io.bundles import read_bundle
from autoseg.io.images import read_image
from benchmarks.engine import differences, render_agreement, render_ratio, write_fresh_bundle
from benchmarks.ledger import Ledger
from benchmarks.measure import Usage
from benchmarks.speed import Row, row_key

GOLDEN = Path(__file__).parents[1] / "golden" / "bundle_format_2"
needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="OpenVINO is not installed: pip install 'autoseg[cpu]'")


@pytest.fixture
def fresh(tmp_path):
    """The network of a small bundle, drawn anew."""
    trained = read_bundle(GOLDEN / "bundle")
    write_fresh_bundle(tmp_path / "fresh", trained.spec, trained.plan, trained.fingerprint, "3d_fullres")
    return tmp_path / "fresh"


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


def test_a_bundle_of_fresh_weights_predicts_and_not_as_the_trained_one(fresh, tmp_path):
    manifest = pipeline.predict(fresh, GOLDEN / "images", tmp_path / "out", Context(engine="torch"), trusted_task=None,
                                progress=silent)
    assert set(manifest.finished) == {"p0_scan0"} and not manifest.failures
    found, trained = (read_image([path]).voxels for path in (tmp_path / "out" / "p0_scan0.nii.gz", GOLDEN / "labels.nii.gz"))
    assert found.shape == trained.shape and (found != trained).mean() > 0.1


def test_the_same_weights_are_drawn_every_time(fresh, tmp_path):
    bundle = read_bundle(fresh)
    write_fresh_bundle(tmp_path / "again", bundle.spec, bundle.plan, bundle.fingerprint, "3d_fullres")
    assert read_bundle(tmp_path / "again").members == bundle.members


@needs_openvino
def test_engines_agree_on_every_voxel_of_the_model_grid(fresh):
    images = sorted((GOLDEN / "images").iterdir())
    found = differences(fresh, "3d_fullres", ("torch", "openvino"), images)
    assert found["cases"] == 1
    assert found["largest_difference"] < 1e-3 * found["largest_logit"]
    assert found["different_labels"] < 1e-3 * found["voxels"]
