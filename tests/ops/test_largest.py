from __future__ import annotations

import numpy as np
import pytest

from autoseg.ops.largest import first_largest


def test_the_first_of_equally_large_classes_wins_by_hand():
    logits = np.array([[1, 0, 2, -1], [1, 3, 2, -1], [0, 3, 2, -1]], np.float32)[:, None, None, :]
    assert first_largest(logits)[0, 0].tolist() == [0, 1, 0, 0]


@pytest.mark.parametrize("classes", [1, 2, 7, 256])
def test_labels_are_those_of_numpy(classes):
    logits = np.random.default_rng(0).integers(0, 5, (classes, 3, 8, 9)).astype(np.float32)  # full of ties
    label = first_largest(logits)
    assert label.dtype == np.uint8
    np.testing.assert_array_equal(label, logits.argmax(axis=0))


def test_the_order_in_memory_does_not_matter():
    logits = np.random.default_rng(0).integers(0, 5, (7, 3, 8, 9)).astype(np.float32)
    by_voxel = np.ascontiguousarray(np.moveaxis(logits, 0, -1))
    np.testing.assert_array_equal(first_largest(np.moveaxis(by_voxel, -1, 0)), logits.argmax(axis=0))
