"""The plan of a segmentation: a U-Net per configuration with one output per label and background, or one per region."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from autoseg.core.budget import Budget
from autoseg.core.errors import DatasetError, UsageError
from autoseg.core.fingerprint import Fingerprint
from autoseg.core.plan import Plan, Reason, Value
from autoseg.core.spec import DatasetSpec
from autoseg.core.task import PlanRequest, Probe
from autoseg.io.problems import absent_labels_text
from autoseg.planning.air import cropped_as_planned
from autoseg.planning.books import plan_configurations
from autoseg.planning.explain import Reasons, below
from autoseg.planning.laterality import find_laterality
from autoseg.planning.normalization import plan_inputs
from autoseg.planning.spacing import grid_reason, plan_grid
from autoseg.planning.unet import Wanted, channel_count
from autoseg.tasks.segmentation.regions import Painting, ignore_index, plan_painting

# nnU-Net 2.8.1: soft Dice and cross-entropy, equally weighted; binary cross-entropy for regions.
LOSS_TERMS = {"dice": 1.0, "cross_entropy": 1.0}
REGION_LOSS_TERMS = {"dice": 1.0, "binary_cross_entropy": 1.0}
NNUNET_LABELS = "nnU-Net 2.8.1 (label_handling.py, compound_losses.py)"

# A label rarer than this starts as if it had this frequency: a larger bias would take many steps to overcome.
RAREST_FREQUENCY = 1e-3


def make_plan(spec: DatasetSpec, fingerprint: Fingerprint, budget: Budget, request: PlanRequest, probe: Probe) -> Plan:
    """The plan of a dataset, every value with its reason; its budget holds everything that was measured.

    Raises:
        DatasetError: the specification has no label, the fingerprint no case, or its channels do not match.
        UsageError: a rule book or configuration that does not exist or that the dataset does not allow, or weights to start
            from.
        ResourceError: no patch fits into the memory budget.
    """
    if request.start is not None:
        raise UsageError("a segmentation is trained from fresh weights; plan it without weights to start from")
    channels = channel_count(spec)
    roles = [entry.role for entry in spec.inputs]
    if roles != ["image"]:
        raise DatasetError(f"dataset {spec.name!r} has the inputs {', '.join(roles)}; segmentation reads one input, which must "
                           "be called image (several channels are channels of it)")
    if not spec.labels:
        raise DatasetError(f"dataset {spec.name!r} has no labels to segment; list them under 'labels' in its specification")
    if fingerprint.channel_count != channels:
        raise DatasetError(f"dataset {spec.name!r}: the fingerprint was measured on {fingerprint.channel_count} channels and "
                           f"the specification has {channels}; measure the fingerprint again")
    _require_labels(spec, fingerprint)
    inputs, input_reasons = plan_inputs(spec.inputs, fingerprint, follow_names=request.rules == "nnunet")
    fingerprint = cropped_as_planned(fingerprint, inputs)
    painting = plan_painting(spec)
    wanted = plan_outputs(spec, fingerprint, painting)
    draft = Plan(request.name, spec.name, spec.task, plan_grid(fingerprint).transpose, inputs, {}, budget, {}, request.seed)
    planned = plan_configurations(fingerprint, budget, request, probe, draft, wanted)
    outputs = {path: reason for name in planned.configurations
               for path, reason in below(f"configurations.{name}", output_reasons(spec, painting)).items()}
    reasons = {
        "transpose": grid_reason(fingerprint), **input_reasons, **planned.reasons, **outputs,
        "seed": Reason(f"seed {request.seed} asked for", "the same seed repeats the same run", "command line")}
    return replace(draft, configurations=planned.configurations, budget=planned.budget, reasons=reasons)


def _require_labels(spec: DatasetSpec, fingerprint: Fingerprint) -> None:
    """Every label occurs in some case; a fingerprint in which nothing was counted says nothing."""
    counts = fingerprint.properties
    absent = [f"{label.name} ({label.value})" for index, label in enumerate(spec.labels, start=1)
              if not counts.get(f"voxels.label_{index}")]
    if absent and any(name.startswith("voxels.") for name in counts):
        raise DatasetError(absent_labels_text(spec.name, absent), code="E_LABEL_ABSENT")


def plan_outputs(spec: DatasetSpec, fingerprint: Fingerprint, painting: Painting | None) -> Wanted:
    """What the outputs are, what they start from, and which loss they take."""
    labels, ignored = len(spec.labels), ignore_index(spec)
    values: dict[str, Value] = {"label_count": labels}
    if ignored is not None:
        values["ignore"] = ignored
    names = [entry.name for entry in spec.labels]
    # nnU-Net counts the names under `labels` in its dataset.json: background, labels or regions, ignore.
    extra = ignored is not None
    if painting is None:
        return Wanted(channel_count(spec), labels + 1, LOSS_TERMS, values, frequency_bias(fingerprint, labels),
                      labels + 1 + extra, find_laterality(names, None))
    values |= {"regions": painting.regions, "paints": painting.paints}
    by_name = {region.name: indices for region, indices in zip(spec.regions, painting.regions, strict=True)}
    count = len(painting.regions)
    return Wanted(channel_count(spec), count, REGION_LOSS_TERMS, values, region_bias(fingerprint, painting.regions),
                  count + 1 + extra, find_laterality(names, by_name))


def output_reasons(spec: DatasetSpec, painting: Painting | None) -> Reasons:
    """Why the outputs are labels or regions, relative to a configuration."""
    reasons: Reasons = {}
    if spec.ignore is not None:
        reasons["task_values.ignore"] = Reason(
            f"ignore: {spec.ignore} in the dataset specification", "an index behind the labels, so that it wins ties in "
            "resampling; these voxels count in no loss, no score and no statistics", NNUNET_LABELS)
    if painting is None:
        scored = " and the regions are scored only, as the specification asks" if spec.regions else ""
        return reasons | {"network.out_channels": Reason(
            f"{len(spec.labels)} labels in the dataset specification",
            f"one output per label and one for the background{scored}", "dataset specification")}
    listed = ", ".join(f"{region.name} paints {spec.labels[painted - 1].name}"
                       for region, painted in zip(spec.regions, painting.paints, strict=True))
    regions = f"{len(spec.regions)} regions in the dataset specification"
    return reasons | {
        "network.out_channels": Reason(regions, "one output per region, as regions are what is scored; they overlap, so each is "
                                       "decided by itself and the background has no output", NNUNET_LABELS),
        "network.output_bias": Reason("voxels per region in the fingerprint", "where the recipe starts from frequencies: the "
                                      "logarithm of the odds of each region", "segmentation task"),
        "loss": Reason(regions, "Dice and binary cross-entropy of every region: they overlap, so no softmax", NNUNET_LABELS),
        "task_values.regions": Reason(regions, "label indices of each output", "dataset specification"),
        "task_values.paints": Reason(listed, "in this order, later regions paint over earlier ones: the label that the "
                                     "specification names, else what a region has and no later one", NNUNET_LABELS)}


def frequency_bias(fingerprint: Fingerprint, labels: int) -> tuple[float, ...]:
    """Outputs whose softmax is the frequency of background and labels over all voxels, with mean zero."""
    voxels = [fingerprint.properties.get(f"voxels.label_{index}", 0) for index in range(labels + 1)]
    total = sum(voxels)
    logs = [math.log(max(count / total, RAREST_FREQUENCY)) for count in voxels] if total else [0.0] * (labels + 1)
    mean = math.fsum(logs) / len(logs)
    return tuple(round(value - mean, 3) for value in logs)


def region_bias(fingerprint: Fingerprint, regions: Sequence[Sequence[int]]) -> tuple[float, ...]:
    """Outputs whose sigmoid is the frequency of each region over all annotated voxels."""
    properties = fingerprint.properties
    total = sum(count for name, count in properties.items() if name.startswith("voxels.label_"))
    shares = [sum(properties.get(f"voxels.label_{index}", 0) for index in region) / max(total, 1) for region in regions]
    bounded = [min(max(share, RAREST_FREQUENCY), 1 - RAREST_FREQUENCY) for share in shares]
    return tuple(round(math.log(share / (1 - share)), 3) if total else 0.0 for share in bounded)
