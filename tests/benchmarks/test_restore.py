from __future__ import annotations

import json

import numpy as np
from scipy import ndimage

from benchmarks.logits import Case, smooth_planes
from benchmarks.restore import Row, restore_once

CASE = Case(5, (40, 60, 50), (1.0, 0.8, 0.9), (1.5, 1.5, 1.5))


def test_planes_are_smooth_and_the_same_for_every_program():
    one, two = (np.stack(list(smooth_planes(CASE)), axis=1) for _ in range(2))
    assert one.shape == (5, 27, 32, 30)
    np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(one, one.astype(np.float16).astype(np.float32))
    label = one.argmax(axis=0)
    assert len(np.unique(label)) > 2
    assert (label[1:] != label[:-1]).mean() < 0.2


def test_a_measured_restore_gives_the_labels_of_interpolated_logits(tmp_path):
    restore_once(CASE, tmp_path)
    logits = np.stack(list(smooth_planes(CASE)), axis=1)
    whole = np.stack([ndimage.zoom(channel, np.divide(CASE.shape, channel.shape), order=1, mode="nearest", grid_mode=True)
                      for channel in logits.astype(np.float64)])
    assert (np.load(tmp_path / "label.npy") != whole.argmax(axis=0)).mean() < 1e-5
    usage = json.loads((tmp_path / "usage.json").read_text())
    assert usage["seconds"] > 0
    assert usage["source_seconds"] > 0


def test_rows_have_names_of_their_own():
    rows = [Row("autoseg", "1.5 mm", 60), Row("autoseg", "case grid", 60), Row("nnU-Net 2.8.1", "1.5 mm", 20, "float16")]
    assert len({row.key for row in rows}) == 3
    assert rows[0].case.model_shape == (267, 273, 273)
