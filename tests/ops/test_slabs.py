from __future__ import annotations

import numpy as np
import pytest

from autoseg.ops import slabs as module
from autoseg.ops.slabs import LogitSlabs, planes_per_slab


def test_slabs_of_an_array_are_its_planes_in_order(monkeypatch):
    monkeypatch.setattr(module, "SLAB_BYTES", 2 * 3 * 4 * 5 * 4)
    logits = np.arange(3 * 7 * 4 * 5, dtype=np.float32).reshape(3, 7, 4, 5)
    slabs = LogitSlabs.of(logits)
    assert (slabs.classes, slabs.grid) == (3, (7, 4, 5))
    parts = list(slabs.parts)
    assert [part.shape[1] for part in parts] == [2, 2, 2, 1]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), logits)


def test_the_whole_of_a_stream_is_the_array():
    logits = np.random.default_rng(0).normal(size=(2, 5, 4, 3)).astype(np.float32)
    stream = LogitSlabs(logits.shape, iter([logits[:, :1], logits[:, 1:4], logits[:, 4:]]))
    np.testing.assert_array_equal(stream.whole(), logits)


def test_a_stream_cannot_be_drawn_twice():
    slabs = LogitSlabs.of(np.zeros((2, 5, 4, 3), np.float32))
    slabs.whole()
    with pytest.raises(ValueError, match="0 of 5 planes of logits came; a stream of slabs can be drawn only once"):
        slabs.whole()


def test_a_slab_has_at_least_one_plane_and_at_most_the_stated_bytes():
    assert planes_per_slab(60, 512, 512) == 2
    assert planes_per_slab(200, 2000, 2000) == 1
    assert planes_per_slab(2, 256, 256) * 2 * 256 * 256 * 4 == module.SLAB_BYTES
