"""Which normalisation each channel takes: the specification's word, else nnU-Net's table of channel names."""

from __future__ import annotations

import math

import numpy as np

from autoseg.core.errors import DatasetError
from autoseg.core.fingerprint import Fingerprint
from autoseg.core.plan import InputPlan, Normalization, Reason, Scheme
from autoseg.core.spec import ChannelSpec, InputSpec
from autoseg.planning.explain import Reasons
from autoseg.planning.spacing import PLANNER

# nnU-Net 2.8.1, map_channel_name_to_normalization.py; every other name means z-score.
SCHEME_OF_NAME: dict[str, Scheme] = {
    "ct": "ct", "nonorm": "none", "zscore": "zscore", "rescale_to_0_1": "rescale_to_0_1", "rgb_to_0_1": "rgb_to_0_1"}
# nnU-Net 2.8.1, default_experiment_planner.py:205: cropping to non-zero removed more than a quarter of the image.
MASK_BELOW = 0.75


def plan_inputs(inputs: tuple[InputSpec, ...], fingerprint: Fingerprint) -> tuple[tuple[InputPlan, ...], Reasons]:
    """Normalisation of every channel of every image input, and the reasons with full paths.

    Channels are counted through all image inputs, as in the fingerprint.

    Raises:
        DatasetError: a CT channel has no foreground from which to take its window.
    """
    plans, offset = [], 0
    reasons = {"inputs": _mask_reason(fingerprint)}
    for entry in (entry for entry in inputs if entry.kind == "image"):
        channels = []
        for index, channel in enumerate(entry.channels):
            normalization = plan_channel(channel, fingerprint, offset + index)
            channels.append(normalization)
            reasons[f"inputs.{entry.role}.{index}"] = _channel_reason(channel, normalization, fingerprint)
        plans.append(InputPlan(entry.role, tuple(channels)))
        offset += len(entry.channels)
    return tuple(plans), reasons


def plan_channel(channel: ChannelSpec, fingerprint: Fingerprint, index: int) -> Normalization:
    """Normalisation of one channel; `index` counts the channels of the fingerprint.

    Raises:
        DatasetError: a CT channel without foreground.
    """
    scheme = _scheme(channel)
    if scheme != "ct":
        return Normalization(scheme, use_mask=scheme == "zscore" and _median_size(fingerprint) < MASK_BELOW)
    found = fingerprint.intensity(index)
    if math.isnan(found.mean):
        raise DatasetError(f"channel {channel.name!r} is normalised as CT, by the intensities inside the labels, but no case "
                           "has a labelled voxel; check the labels, or set the channel's normalization to 'zscore'")
    return Normalization(scheme, False, found.mean, found.std, found.percentile_00_5, found.percentile_99_5)


def _scheme(channel: ChannelSpec) -> Scheme:
    if channel.normalization != "auto":
        return channel.normalization
    return SCHEME_OF_NAME.get(channel.name.casefold(), "zscore")


def _median_size(fingerprint: Fingerprint) -> float:
    return float(np.median(fingerprint.relative_sizes))


def _mask_reason(fingerprint: Fingerprint) -> Reason:
    return Reason(f"median of (voxels after cropping to non-zero / voxels) = {_median_size(fingerprint):.3f} over "
                  f"{fingerprint.case_count} cases",
                  f"the scheme follows from the channel; z-score looks at non-zero voxels only where that is below {MASK_BELOW}",
                  PLANNER)


def _channel_reason(channel: ChannelSpec, normalization: Normalization, fingerprint: Fingerprint) -> Reason:
    size = f"median share of the image after cropping {_median_size(fingerprint):.3f}"
    if normalization.scheme == "ct":
        because = "clipped to the 0.5 and 99.5 percentiles of the foreground, then by its mean and standard deviation: " \
                  "Hounsfield units mean the same in every case"
        size = f"foreground intensities of {fingerprint.case_count} cases"
    else:
        because = f"z-score inside the mask only where that share is below {MASK_BELOW}" if normalization.scheme == "zscore" \
            else "applied to each image by itself"
    if channel.normalization != "auto":
        return Reason(f"channel {channel.name!r}, {size}", f"the specification asks for {channel.normalization!r}; {because}",
                      "dataset specification")
    return Reason(f"channel name {channel.name!r}, {size}",
                  f"the table of channel names gives {normalization.scheme!r}; {because}", PLANNER)
