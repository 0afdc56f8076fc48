"""The plan of a segmentation: a U-Net per configuration with one output per label and one for the background."""

from __future__ import annotations

import math
from dataclasses import replace

from autoseg.core.budget import Budget
from autoseg.core.errors import DatasetError
from autoseg.core.fingerprint import Fingerprint
from autoseg.core.plan import Plan, Reason
from autoseg.core.spec import DatasetSpec
from autoseg.core.task import PlanRequest, Probe
from autoseg.planning.books import plan_configurations
from autoseg.planning.normalization import plan_inputs
from autoseg.planning.spacing import grid_reason, plan_grid
from autoseg.planning.unet import Wanted, channel_count

# nnU-Net 2.8.1: soft Dice and cross-entropy, equally weighted.
LOSS_TERMS = {"dice": 1.0, "cross_entropy": 1.0}

# A label rarer than this starts as if it had this frequency: a larger bias would take many steps to overcome.
RAREST_FREQUENCY = 1e-3


def make_plan(spec: DatasetSpec, fingerprint: Fingerprint, budget: Budget, request: PlanRequest, probe: Probe) -> Plan:
    """The plan of a dataset, every value with its reason; its budget holds everything that was measured.

    Raises:
        DatasetError: the specification has no label, the fingerprint no case, or its channels do not match.
        UsageError: a rule book or configuration that does not exist or that the dataset does not allow.
        ResourceError: no patch fits into the memory budget.
    """
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
    labels = len(spec.labels)
    inputs, input_reasons = plan_inputs(spec.inputs, fingerprint)
    wanted = Wanted(channels, labels + 1, LOSS_TERMS, {"label_count": labels}, frequency_bias(fingerprint, labels))
    draft = Plan(request.name, spec.name, spec.task, plan_grid(fingerprint).transpose, inputs, {}, budget, {}, request.seed)
    planned = plan_configurations(fingerprint, budget, request, probe, draft, wanted)
    outputs = {f"configurations.{name}.network.out_channels": Reason(
        f"{labels} labels in the dataset specification", "one output per label and one for the background",
        "dataset specification") for name in planned.configurations}
    reasons = {
        "transpose": grid_reason(fingerprint), **input_reasons, **planned.reasons, **outputs,
        "seed": Reason(f"seed {request.seed} asked for", "the same seed repeats the same run", "command line")}
    return replace(draft, configurations=planned.configurations, budget=planned.budget, reasons=reasons)


def frequency_bias(fingerprint: Fingerprint, labels: int) -> tuple[float, ...]:
    """Outputs whose softmax is the frequency of background and labels over all voxels, with mean zero."""
    voxels = [fingerprint.properties.get(f"voxels.label_{index}", 0) for index in range(labels + 1)]
    total = sum(voxels)
    logs = [math.log(max(count / total, RAREST_FREQUENCY)) for count in voxels] if total else [0.0] * (labels + 1)
    mean = math.fsum(logs) / len(logs)
    return tuple(round(value - mean, 3) for value in logs)
