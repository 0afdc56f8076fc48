"""Colours of labels: different for everybody."""

from __future__ import annotations

import numpy as np
import pytest

from autoseg.reporting.colours import OKABE_ITO, differences, label_colours, seen


def smallest_difference(count: int) -> float:
    """Over all pairs of the first colours and all readers."""
    views = seen(np.array(label_colours(count)))
    pairs = [(a, b) for a in range(count) for b in range(a)]
    return min(float(differences(views[:, a:a + 1], views[:, b:b + 1])[0]) for a, b in pairs)


def test_few_labels_have_the_colours_of_okabe_and_ito():
    assert label_colours(3) == OKABE_ITO[:3]


@pytest.mark.parametrize(("count", "least"), [(8, 15.0), (16, 15.0), (64, 5.0)])
def test_colours_stay_apart_for_readers_without_red_or_green_cones(count, least):
    # CIE 1976 differences; about 2.3 is just noticeable (Mahy et al. 1994)
    assert len(set(label_colours(count))) == count
    assert smallest_difference(count) >= least


def test_a_colour_does_not_change_when_labels_are_added():
    assert label_colours(40)[:20] == label_colours(20)


def test_red_and_green_of_one_lightness_look_alike_without_green_cones():
    # Machado's matrix has rows 0.367 0.861 -0.228 and 0.280 0.673 0.047: red and green both become mixtures of the same kind.
    views = seen(np.array([[200, 60, 0], [110, 110, 0]]))
    normal, _, deutan = np.linalg.norm(views[:, 0] - views[:, 1], axis=-1)
    assert deutan < normal / 3


def test_grey_looks_the_same_to_everybody():
    views = seen(np.array([[120, 120, 120]]))
    np.testing.assert_allclose(views, np.broadcast_to(views[:1], views.shape), atol=0.1)
