from __future__ import annotations

import math
from pathlib import PurePosixPath

import numpy as np
import pytest

from autoseg.core.geometry import Geometry
from autoseg.core.plan import Normalization, Resampling
from autoseg.io.plain import to_plain


def test_a_value_that_came_later_is_left_out_where_it_is_none():
    """Plans of segmentations, and the digests of their runs, are those of before."""
    assert "low_pass_from" not in to_plain(Resampling()) and to_plain(Resampling(low_pass_from=2.0))["low_pass_from"] == 2.0
    with_none = {"scheme": "ct", "use_mask": False, "mean": None, "std": None, "lower": None, "upper": None}
    assert to_plain(Normalization("ct")) == with_none


def test_dataclasses_tuples_paths_and_numpy_values_become_plain():
    value = {
        "grid": Geometry((1, 2, 3), (0.5, 1.0, 2.0)),
        7: (np.float32(0.5), np.array([[1, 2]])),
        "p": PurePosixPath("a/b"),
    }
    assert to_plain(value) == {
        "grid": {
            "shape": [1, 2, 3],
            "spacing_mm": [0.5, 1.0, 2.0],
            "origin_mm": [0.0, 0.0, 0.0],
            "direction": [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
        },
        "7": [0.5, [[1, 2]]],
        "p": "a/b",
    }


def test_numbers_that_json_has_no_word_for():
    assert to_plain([math.nan, math.inf, -math.inf, True, None]) == [None, "inf", "-inf", True, None]


@pytest.mark.parametrize("value", [{1, 2}, b"bytes", len, Geometry])
def test_what_has_no_plain_form_is_refused(value):
    with pytest.raises(TypeError, match="no plain form"):
        to_plain(value)
