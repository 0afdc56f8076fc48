from __future__ import annotations

import math

import pytest

from autoseg.core.errors import DatasetError
from autoseg.core.fingerprint import CASE_WEIGHT, EDGES, Fingerprint, Moments
from autoseg.core.plan import Normalization
from autoseg.core.spec import ChannelSpec, InputSpec
from autoseg.planning.normalization import plan_inputs

NAN = math.nan
BIN_OF_40_HU = int((EDGES < 40).sum()) - 1


def fingerprint(sizes, channels=1, *, empty=False, kinds=()):
    present = Moments(10, 40.0, 1700.0, 40.0, 40.0, (40.0,) * 7)
    moments = Moments(0, NAN, NAN, NAN, NAN, (NAN,) * 7) if empty else present
    histogram = {} if empty else {BIN_OF_40_HU: CASE_WEIGHT * len(sizes)}
    return Fingerprint(((10, 20, 30),) * len(sizes), ((3.0, 2.0, 1.0),) * len(sizes), tuple(sizes),
                       ((moments,) * channels,) * len(sizes), (histogram,) * channels, {}, kinds=kinds)


def scheme_and_reason(channel, kinds, *, follow_names=False, empty=False):
    planned, reasons = plan_inputs((InputSpec(channels=(channel,)),), fingerprint([0.9] * 3, kinds=(kinds,), empty=empty),
                                   follow_names=follow_names)
    return planned[0].channels[0].scheme, reasons["inputs.image.0"].because


def schemes(names, sizes):
    inputs = (InputSpec(channels=tuple(ChannelSpec(name) for name in names)),)
    planned, _ = plan_inputs(inputs, fingerprint(sizes, len(names)))
    return [(channel.scheme, channel.use_mask) for channel in planned[0].channels]


def test_names_choose_their_scheme_whatever_their_case():
    assert schemes(["noNorm", "rescale_to_0_1", "RGB_to_0_1", "T1", "zscore"], [0.9]) == [
        ("none", False), ("rescale_to_0_1", False), ("rgb_to_0_1", False), ("zscore", False), ("zscore", False)]


def test_z_score_uses_the_mask_only_where_less_than_three_quarters_remain_after_cropping():
    assert schemes(["FLAIR"], [0.2, 0.74, 0.9]) == [("zscore", True)]
    assert schemes(["FLAIR"], [0.2, 0.75, 0.9]) == [("zscore", False)]


def test_other_schemes_never_use_the_mask():
    assert schemes(["noNorm", "CT"], [0.3]) == [("none", False), ("ct", False)]


def test_ct_takes_mean_deviation_and_percentiles_of_the_foreground():
    planned, reasons = plan_inputs((InputSpec(channels=(ChannelSpec("CT"),)),), fingerprint([0.9, 0.8]))
    assert planned[0].channels == (Normalization("ct", False, 40.0, 10.0, 40.0, 40.0),)  # 1700 - 40^2 = 10^2
    assert "'CT'" in reasons["inputs.image.0"].inputs


def test_a_scheme_of_the_specification_wins_over_the_name():
    planned, reasons = plan_inputs((InputSpec(channels=(ChannelSpec("CT", "zscore"),)),), fingerprint([0.9]))
    assert planned[0].channels[0].scheme == "zscore"
    assert reasons["inputs.image.0"].source == "dataset specification"


def test_channels_are_counted_through_all_image_inputs():
    inputs = (InputSpec("table", "row"), InputSpec("a", channels=(ChannelSpec("T1"),)),
              InputSpec("b", channels=(ChannelSpec("CT"),)))
    planned, reasons = plan_inputs(inputs, fingerprint([0.9], 2))
    assert [(entry.role, entry.channels[0].scheme) for entry in planned] == [("a", "zscore"), ("b", "ct")]
    assert {"inputs", "inputs.a.0", "inputs.b.0"} == set(reasons)


def test_ct_without_any_label_is_refused_with_a_way_out():
    with pytest.raises(DatasetError, match="'CT'.*zscore"):
        plan_inputs((InputSpec(channels=(ChannelSpec("CT"),)),), fingerprint([0.9], empty=True))


@pytest.mark.parametrize(("name", "kinds", "scheme"), [
    ("CT", {"not_hounsfield": 2, "hounsfield": 1}, "zscore"),
    ("MR", {"hounsfield": 2, "other": 1}, "ct"),
    ("mask", {"mask": 2, "constant": 1}, "none"),
    ("photo", {"two_values": 2, "mask": 1}, "rescale_to_0_1"),
])
def test_most_cases_intensities_overrule_a_name_that_they_contradict(name, kinds, scheme):
    found, because = scheme_and_reason(ChannelSpec(name), kinds)
    assert found == scheme and "table of channel names" in because and "but" in because


@pytest.mark.parametrize(("name", "kinds", "scheme"), [
    ("CT", {"not_hounsfield": 1, "hounsfield": 1}, "ct"),
    ("CT", {"other": 3}, "ct"),
    ("MR", {"not_hounsfield": 3}, "zscore"),
    ("MR", {"mask": 1, "not_hounsfield": 2}, "zscore"),
    ("noNorm", {"hounsfield": 3}, "none"),
    ("zscore", {"mask": 3}, "zscore"),
    ("CT", {"constant": 3}, "ct"),
])
def test_the_name_holds_where_the_intensities_do_not_contradict_it(name, kinds, scheme):
    assert scheme_and_reason(ChannelSpec(name), kinds)[0] == scheme


def test_the_specification_wins_over_name_and_intensities():
    assert scheme_and_reason(ChannelSpec("MR", "zscore"), {"hounsfield": 3})[0] == "zscore"
    assert scheme_and_reason(ChannelSpec("CT", "ct"), {"not_hounsfield": 3})[0] == "ct"


def test_nnunet_follows_the_name_and_warns():
    scheme, because = scheme_and_reason(ChannelSpec("CT"), {"not_hounsfield": 3}, follow_names=True)
    assert scheme == "ct" and "Warning" in because and "not hounsfield in 3" in because


def test_a_ct_under_another_name_without_labelled_voxels_is_scored():
    assert scheme_and_reason(ChannelSpec("MR"), {"hounsfield": 3}, empty=True)[0] == "zscore"
