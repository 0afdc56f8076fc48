from __future__ import annotations

import numpy as np
import pytest

from autoseg.core.errors import ReadError, UnsafeError
from autoseg.io.arrays import read_arrays, write_arrays


def test_arrays_come_back_bit_equal_and_the_same_arrays_are_the_same_bytes(tmp_path):
    turned = np.arange(24, dtype=np.float64).reshape(2, 3, 4)[:, ::-1]
    arrays = {"b": turned, "a": np.array([1, -2], np.int64), "c": np.array(0.1, np.float32)}
    write_arrays(tmp_path / "x", arrays)
    write_arrays(tmp_path / "y", dict(reversed(arrays.items())))
    found = read_arrays(tmp_path / "x")
    assert found.keys() == arrays.keys()
    assert all(np.array_equal(found[name], array) and found[name].dtype == array.dtype for name, array in arrays.items())
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()


def test_half_a_file_and_a_pickle_are_refused(tmp_path):
    write_arrays(tmp_path / "x", {"a": np.zeros(100)})
    (tmp_path / "half").write_bytes((tmp_path / "x").read_bytes()[:-10])
    (tmp_path / "pickle").write_bytes(b"\x80\x04" + bytes(100))
    with pytest.raises(UnsafeError, match="its tensors take"):
        read_arrays(tmp_path / "half")
    with pytest.raises(UnsafeError, match="can run code"):
        read_arrays(tmp_path / "pickle")
    with pytest.raises(ReadError):
        read_arrays(tmp_path / "missing")
