from __future__ import annotations

from dataclasses import replace

import pytest

from autoseg.core.fingerprint import CaseFingerprint, Moments, sum_fingerprints
from autoseg.core.plan import InputPlan
from autoseg.core.spec import ChannelSpec, InputSpec
from autoseg.planning.air import cropped_as_planned, plan_air
from autoseg.planning.normalization import plan_inputs

NOTHING = Moments(0, *(0.0,) * 4, (0.0,) * 7)
INPUTS = (InputSpec("image", channels=(ChannelSpec("FLAIR"),)),)


def fingerprint(*sizes):
    """Cases of 100 x 10 x 10 voxels, all kept by the crop to non-zero, with these shares inside the corners' value."""
    cases = [CaseFingerprint((100, 10, 10), (1.0, 1.0, 1.0), 1.0, (NOTHING,), ({},),
                             shape_inside_corners=(round(100 * size), 10, 10), relative_size_inside_corners=size)
             for size in sizes]
    return sum_fingerprints(cases, 1)


@pytest.mark.parametrize(("sizes", "expected"), [
    ((0.4, 0.35, 1.0), "corners"), ((0.74,), "corners"), ((0.75,), "zero"), ((0.4, 1.0, 1.0), "zero"), ((), "zero")])
def test_air_is_that_of_the_corners_where_it_makes_most_images_smaller(sizes, expected):
    assert plan_air(fingerprint(*sizes)) == expected
    assert plan_air(fingerprint(*sizes), follow_nnunet=True) == "zero"


def test_zscore_looks_inside_the_mask_once_air_is_cropped():
    (entry,), reasons = plan_inputs(INPUTS, fingerprint(0.4, 0.5, 0.3))
    assert entry.air == "corners" and entry.channels[0].use_mask
    assert "0.400" in reasons["inputs"].inputs and "differ from the corners" in reasons["inputs"].inputs
    (plain,), _ = plan_inputs(INPUTS, fingerprint(0.4, 0.5, 0.3), follow_names=True)
    assert plain.air == "zero" and not plain.channels[0].use_mask


def test_shapes_follow_the_plan():
    measured = fingerprint(0.4, 0.2)
    assert cropped_as_planned(measured, (InputPlan("image", ()),)) == measured
    inside = cropped_as_planned(measured, (InputPlan("image", (), "corners"),))
    assert sorted(inside.shapes_after_crop) == [(20, 10, 10), (40, 10, 10)]


def test_fingerprints_of_before_count_as_cropped_to_nonzero():
    earlier = replace(fingerprint(0.4), shapes_inside_corners=(), relative_sizes_inside_corners=())
    assert plan_air(earlier) == "zero"
    both = earlier + fingerprint(0.3)
    assert both.shapes_inside_corners == ((100, 10, 10), (30, 10, 10))
    assert both == fingerprint(0.3) + earlier


def test_images_without_air_have_their_whole_volume_and_flat_ones_stay_flat():
    def whole(shape, share):
        case = CaseFingerprint(shape, (1.0, 1.0, 1.0), share, (NOTHING,), ({},))
        found = cropped_as_planned(sum_fingerprints([case], 1), 
                                   (InputPlan("image", (), "nothing"), InputPlan("other", (), "zero")))
        return found.shapes_after_crop[0], found.relative_sizes

    assert whole((40, 20, 10), 0.125) == ((80, 40, 20), (1.0,))
    assert whole((1, 30, 50), 0.25) == ((1, 60, 100), (1.0,))
    assert whole((40, 20, 10), 1.0) == ((40, 20, 10), (1.0,))
