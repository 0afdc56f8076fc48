"""Files of earlier and later versions: read and obeyed as before, or refused with what to do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from autoseg import pipeline
from autoseg.cli.app import run as command
from autoseg.core.errors import IncompatibleError
from autoseg.core.progress import silent
from autoseg.core.task import Context
from autoseg.io.images import read_geometry, read_image

GOLDEN = Path(__file__).parent / "golden" / "bundle_format_2"
# Versions of torch and processors sum in another order: 1e-6 of a logit each, some thousand times in a row.
TOLERANCE = 1e-3


def test_a_bundle_of_format_2_predicts_what_it_predicted_when_it_was_made(tmp_path):
    context = Context(engine="torch", probabilities=True)
    manifest = pipeline.predict(GOLDEN / "bundle", GOLDEN / "images", tmp_path, context, trusted_task=None, progress=silent)
    assert set(manifest.finished) == {"p0_scan0"}
    found, expected = (read_image([path]).voxels for path in
                       (tmp_path / "p0_scan0_probabilities.nii.gz", GOLDEN / "probabilities.nii.gz"))
    assert np.abs(found - expected).max() < TOLERANCE
    highest = np.sort(expected, axis=0)
    is_clear = highest[-1] - highest[-2] > 2 * TOLERANCE
    labels, before = (read_image([path]).voxels[0] for path in (tmp_path / "p0_scan0.nii.gz", GOLDEN / "labels.nii.gz"))
    assert is_clear.mean() > 0.95 and np.array_equal(labels[is_clear], before[is_clear])
    assert set(np.unique(before)) == {0.0, 7.0}
    assert read_geometry(tmp_path / "p0_scan0.nii.gz") == read_geometry(GOLDEN / "images" / "p0_scan0.nii.gz")


def test_a_bundle_of_a_newer_format_is_refused_before_anything_is_written(tmp_path, capsys):
    shutil.copytree(GOLDEN / "bundle", tmp_path / "bundle")
    index = tmp_path / "bundle" / "bundle.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"format": 99, "a_new_key": 1}))
    code = command(["predict", "-b", str(tmp_path / "bundle"), "-i", str(GOLDEN / "images"), "-o", str(tmp_path / "out")])
    said = capsys.readouterr().err
    assert code == 5 and "format" in said and "99" in said and "newer" in said and "update autoseg" in said
    assert list((tmp_path / "out").glob("*")) == []


def test_a_plan_of_a_newer_format_in_a_bundle_is_refused_too(tmp_path):
    from autoseg.io.atomic import sha256_file

    shutil.copytree(GOLDEN / "bundle", tmp_path / "bundle")
    plan, index = tmp_path / "bundle" / "plan.json", tmp_path / "bundle" / "bundle.json"
    plan.write_text(json.dumps(json.loads(plan.read_text()) | {"format": 99}))
    document = json.loads(index.read_text())
    document["digests"]["plan.json"] = sha256_file(plan)
    index.write_text(json.dumps(document))
    with pytest.raises(IncompatibleError, match=r"plan\.json has format 99.*a newer autoseg wrote it"):
        pipeline.load_predictor(tmp_path / "bundle")
