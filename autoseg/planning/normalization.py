"""Which normalisation each channel takes: the specification's word, else nnU-Net's table of names, else the intensities."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from autoseg.core.errors import DatasetError
from autoseg.core.fingerprint import Fingerprint
from autoseg.core.modality import NAMED_SCHEMES
from autoseg.core.plan import Air, InputPlan, Normalization, Reason, Scheme
from autoseg.core.spec import ChannelSpec, InputSpec
from autoseg.planning.air import WORTH_BELOW, cropped, plan_air
from autoseg.planning.explain import Reasons
from autoseg.planning.spacing import PLANNER

# nnU-Net 2.8.1, map_channel_name_to_normalization.py; every other name means z-score.
SCHEME_OF_NAME: dict[str, Scheme] = {
    "ct": "ct", "nonorm": "none", "zscore": "zscore", "rescale_to_0_1": "rescale_to_0_1", "rgb_to_0_1": "rgb_to_0_1"}
# nnU-Net 2.8.1, default_experiment_planner.py:205: cropping to non-zero removed more than a quarter of the image.
MASK_BELOW = 0.75
INTENSITIES = "intensities of the dataset (fingerprint), by the rules of core/modality.py"


@dataclass(frozen=True)
class Choice:
    """A scheme, and why."""

    scheme: Scheme
    because: str
    source: str


def plan_inputs(inputs: tuple[InputSpec, ...], fingerprint: Fingerprint, *,
                follow_names: bool = False) -> tuple[tuple[InputPlan, ...], Reasons]:
    """Crop and normalisation of every channel of every image input, and the reasons with full paths.

    Channels are counted through all image inputs, as in the fingerprint.

    Args:
        fingerprint: after the crop to non-zero, as it was measured.
        follow_names: the table of channel names decides alone, as in nnU-Net, also where intensities contradict it; and
            only voxels of 0 are air.
    Raises:
        DatasetError: a CT channel has no foreground from which to take its window.
    """
    air = plan_air(fingerprint, follow_nnunet=follow_names)
    fingerprint = cropped(fingerprint, air)
    plans, offset = [], 0
    reasons = {"inputs": _crop_reason(fingerprint, air)}
    for entry in (entry for entry in inputs if entry.kind == "image"):
        channels = []
        for index, channel in enumerate(entry.channels):
            choice = choose_scheme(channel, fingerprint, offset + index, follow_names=follow_names)
            normalization = plan_channel(channel, choice.scheme, fingerprint, offset + index)
            channels.append(normalization)
            reasons[f"inputs.{entry.role}.{index}"] = _channel_reason(channel, choice, fingerprint)
        plans.append(InputPlan(entry.role, tuple(channels), air))
        offset += len(entry.channels)
    return tuple(plans), reasons


def plan_channel(channel: ChannelSpec, scheme: Scheme, fingerprint: Fingerprint, index: int) -> Normalization:
    """Normalisation of one channel by a scheme; `index` counts the channels of the fingerprint.

    Raises:
        DatasetError: a CT channel without foreground.
    """
    if scheme != "ct":
        return Normalization(scheme, use_mask=scheme == "zscore" and _median_size(fingerprint) < MASK_BELOW)
    found = fingerprint.intensity(index)
    if math.isnan(found.mean):
        raise DatasetError(f"channel {channel.name!r} is normalised as CT, by the intensities inside the labels, but no case "
                           "has a labelled voxel; check the labels, or set the channel's normalization to 'zscore'")
    return Normalization(scheme, False, found.mean, found.std, found.percentile_00_5, found.percentile_99_5)


def choose_scheme(channel: ChannelSpec, fingerprint: Fingerprint, index: int, *, follow_names: bool) -> Choice:
    """The scheme of one channel: the specification's word, else its name, unless most cases' intensities contradict that.

    Names that ask for a scheme themselves (noNorm, zscore, ...) are never overruled.
    """
    if channel.normalization != "auto":
        return Choice(channel.normalization, f"the specification asks for {channel.normalization!r}", "dataset specification")
    name = channel.name.casefold()
    by_name = SCHEME_OF_NAME.get(name, "zscore")
    table = f"the table of channel names gives {by_name!r}"
    kinds = fingerprint.kinds[index] if fingerprint.kinds else {}
    seen = _scheme_of_intensities(name, kinds, has_foreground=not math.isnan(fingerprint.intensity(index).mean))
    if seen is None or seen[0] == by_name:
        return Choice(by_name, table, PLANNER)
    scheme, looks = seen
    found = ", ".join(f"{kind.replace('_', ' ')} in {count}" for kind, count in kinds.items())
    if follow_names:
        return Choice(by_name, f"{table}. Warning: {looks} (cases: {found}); the default plan would take {scheme!r}", PLANNER)
    return Choice(scheme, f"{table}, but {looks} (cases: {found}); a normalization in the specification would be obeyed",
                  INTENSITIES)


def _scheme_of_intensities(name: str, kinds: Mapping[str, int], *, has_foreground: bool) -> tuple[Scheme, str] | None:
    """The scheme that most cases' intensities call for, and what they look like; None where they say nothing."""
    telling = {kind: count for kind, count in kinds.items() if kind != "constant"}
    if not telling or (name in NAMED_SCHEMES and name != "ct"):
        return None
    if set(telling) == {"mask"}:
        return "none", "the channel is a mask of 0 and 1, which a z-score would blow up where the mask is small"
    if set(telling) <= {"mask", "two_values"}:
        return "rescale_to_0_1", "the channel has two values only, which a z-score would blow up where one is rare"
    cases = sum(telling.values())
    if name == "ct" and telling.get("not_hounsfield", 0) > cases / 2:
        return "zscore", "the intensities of most cases are not Hounsfield units, so they do not mean the same in every case"
    if name != "ct" and has_foreground and telling.get("hounsfield", 0) > cases / 2:
        return "ct", "the intensities of most cases are Hounsfield units (air near -1000, soft tissue near 0)"
    return None


def _median_size(fingerprint: Fingerprint) -> float:
    return float(np.median(fingerprint.relative_sizes))


def _crop_reason(fingerprint: Fingerprint, air: Air) -> Reason:
    content, source = "non-zero voxels", PLANNER
    because = ""
    if air == "corners":
        content, source = "voxels that differ from the corners of the image", f"planning/air.py; {PLANNER}"
        because = (f"air has one value, which is not 0, and without it less than {WORTH_BELOW} of the non-zero box is left, so "
                   "images are cropped to the rest; ")
    return Reason(f"median of (voxels after cropping to {content} / voxels) = {_median_size(fingerprint):.3f} over "
                  f"{fingerprint.case_count} cases",
                  f"{because}the scheme follows from the channel; z-score looks at {content} only where that is below "
                  f"{MASK_BELOW}", source)


def _channel_reason(channel: ChannelSpec, choice: Choice, fingerprint: Fingerprint) -> Reason:
    if choice.scheme == "ct":
        because = "clipped to the 0.5 and 99.5 percentiles of the foreground, then by its mean and standard deviation: " \
                  "Hounsfield units mean the same in every case"
        size = f"foreground intensities of {fingerprint.case_count} cases"
    else:
        because = f"z-score inside the mask only where that share is below {MASK_BELOW}" if choice.scheme == "zscore" \
            else "applied to each image by itself"
        size = f"median share of the image after cropping {_median_size(fingerprint):.3f}"
    return Reason(f"channel name {channel.name!r}, {size}", f"{choice.because}; {because}", choice.source)
