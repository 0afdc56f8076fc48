from __future__ import annotations

import pytest

from autoseg.core.fingerprint import CaseFingerprint, Moments, sum_fingerprints
from autoseg.planning.spread import intensity_spread, is_photograph, plan_changes, size_spread


def fingerprint(widths, sizes):
    """Cases with a standard deviation of 1 and this range from 5 to 95 %, whose content fills these shares."""
    cases = [CaseFingerprint((1, 10, 10), (1.0, 1.0, 1.0), 1.0,
                             (Moments(9, 0.0, 1.0, -9.0, 9.0, (-9.0, -width / 2, -1.0, 0.0, 1.0, width / 2, 9.0)),), ({0: 1},),
                             shape_inside_corners=(1, 5, 5), relative_size_inside_corners=size)
             for width, size in zip(widths, sizes, strict=True)]
    return sum_fingerprints(cases, 1)


def changes(found, **given):
    usual = {"dims": 2, "slices": False, "channels": ("X-ray",), "classes": ("ill",), "two_valued": False}
    return plan_changes(found, **{**usual, **given})


def test_spreads_by_hand():
    found = fingerprint([2, 3, 4, 5, 6], [0.16, 0.25, 0.36, 0.49, 0.64])
    assert intensity_spread(found) == pytest.approx(2 / 4)  # quartiles 3 and 5, median 4
    assert size_spread(found, 2) == pytest.approx((0.7 - 0.5) / 0.6)
    assert intensity_spread(sum_fingerprints([], 1)) == 0.0


def test_changes_grow_with_the_spread_within_limits():
    alike, *_ = changes(fingerprint([4] * 5, [0.25] * 5))
    apart, *_ = changes(fingerprint([2, 3, 4, 5, 6], [0.16, 0.25, 0.36, 0.49, 0.64]))
    assert alike.contrast == (0.909, 1.1) and apart.contrast == (0.667, 1.5)
    assert alike.scaling == (0.93, 1.075) and apart.scaling == (0.82, 1.22)


def test_masks_keep_their_intensities():
    found, reasons = changes(fingerprint([4] * 5, [0.25] * 5), two_valued=True)
    assert found.contrast_probability == found.noise_probability == 0.0
    assert "two values" in reasons["augmentation.contrast"].because


def test_photographs_are_mirrored_unless_a_class_has_a_side():
    colours = ("red", "green", "blue")
    assert is_photograph(colours) and not is_photograph(("T1", "T2", "FLAIR"))
    found = fingerprint([4] * 5, [0.25] * 5)
    assert changes(found, channels=colours)[0].mirror_axes == (1, 2)
    assert changes(found, channels=colours, classes=("left eye", "right eye"))[0].mirror_axes == ()
    assert changes(found)[0].mirror_axes == ()


def test_slices_are_turned_within_themselves():
    assert changes(fingerprint([4] * 5, [0.25] * 5), slices=True)[0].dummy_2d
