"""The plan of a classification: targets from the table, input size, network, loss and length from data, memory and minutes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from autoseg.core.budget import Budget
from autoseg.core.errors import DatasetError, UsageError
from autoseg.core.fingerprint import Fingerprint
from autoseg.core.plan import InputPlan, Plan, Reason
from autoseg.core.spec import DatasetSpec
from autoseg.core.task import PlanRequest, Probe
from autoseg.planning.budget import Meter
from autoseg.planning.classifier_plan import Design, Wanted, draw_configurations
from autoseg.planning.explain import Reasons
from autoseg.planning.normalization import plan_inputs
from autoseg.planning.spacing import model_axes
from autoseg.planning.unet import channel_count
from autoseg.planning.whole_image import RULES
from autoseg.tasks.classification.balance import Counted, balance_reasons, count_targets
from autoseg.tasks.classification.boxes import LOCALISE
from autoseg.tasks.classification.heads import output_count, plan_values
from autoseg.tasks.classification.kinds import Kind
from autoseg.tasks.classification.objectives import SMOOTHED_FROM
from autoseg.tasks.classification.spec import ClassificationOptions, classification_options


@dataclass(frozen=True)
class Images:
    """The whole images of a dataset, model axis order: medians over cases."""

    transpose: tuple[int, int, int]
    shape: tuple[float, float, float]
    spacing_mm: tuple[float, float, float]


def make_plan(spec: DatasetSpec, fingerprint: Fingerprint, budget: Budget, request: PlanRequest, probe: Probe) -> Plan:
    """The plan of a dataset, every value with its reason; its budget holds everything that was measured.

    Raises:
        DatasetError: there is no target or nothing to learn of one, no case, or channels do not match.
        UsageError: a rule book or configuration that does not exist or that the dataset does not allow.
        ResourceError: the smallest step does not fit into the memory budget.
    """
    options = classification_options(spec)
    if request.rules != "default":
        raise UsageError(f"rule book {request.rules!r} plans segmentations; a classification is planned by 'default'")
    channels = channel_count(spec)
    if fingerprint.channel_count != channels or not fingerprint.case_count:
        raise DatasetError(f"dataset {spec.name!r}: the fingerprint was measured on {fingerprint.case_count} cases of "
                           f"{fingerprint.channel_count} channels and the specification has {channels}; measure it again")
    counted = count_targets(options.targets, fingerprint)
    inputs, input_reasons = whole_inputs(spec, fingerprint)
    images = measure_images(fingerprint)
    draft = Plan(request.name, spec.name, spec.task, images.transpose, inputs, {}, budget, {}, request.seed)
    meter = Meter(budget, probe, draft)
    design = Design(
        shape=images.shape, spacing_mm=images.spacing_mm, units=fingerprint.case_count,
        lesions=lesion_sizes(fingerprint), localise=options.localise, fingerprint=fingerprint,
        channels=tuple(channel.name for entry in spec.inputs for channel in entry.channels),
        classes=tuple(name for entry in counted for name in entry.meaning.classes),
        two_valued=all(channel.scheme in ("none", "rescale_to_0_1") for entry in inputs for channel in entry.channels),
        wanted=plan_outputs(options, counted, channels))
    configurations, reasons = draw_configurations(design, request, meter)
    reasons = {
        "transpose": Reason(f"spacing {images.spacing_mm} mm along the model's "
                            "axes", "the axis of the coarsest spacing comes first, "
                            "the others keep their order", RULES),
        **input_reasons, **reasons,
        "seed": Reason(f"seed {request.seed} asked for", "the same seed repeats the same run", "command line")}
    return replace(draft, configurations=configurations, budget=meter.budget, reasons=reasons)


def whole_inputs(spec: DatasetSpec, fingerprint: Fingerprint) -> tuple[tuple[InputPlan, ...], Reasons]:
    """The normalisation of every channel as for other tasks, but whole images: nothing is cropped away."""
    inputs, reasons = plan_inputs(spec.inputs, fingerprint)
    whole = tuple(replace(entry, air="nothing", channels=tuple(replace(channel, use_mask=False) for channel in entry.channels))
                  for entry in inputs)
    reasons["inputs"] = Reason(f"{fingerprint.case_count} "
                               "cases", "the whole image is seen, so nothing is cropped away; place and "
                               "size in the image may say something", RULES)
    return whole, reasons


def measure_images(fingerprint: Fingerprint) -> Images:
    """Medians of the sides of whole images, as `describe` counted them, and of spacings."""
    sides = Counter({tuple(int(size) for size in name.removeprefix("sides.").split("x")): count
                     for name, count in fingerprint.properties.items() if name.startswith("sides.")})
    shapes = tuple(sides.elements()) or fingerprint.shapes_after_crop
    spacing = np.median(np.array(fingerprint.spacings_mm, dtype=float), axis=0)
    first, second, third = model_axes((float(spacing[0]), float(spacing[1]), float(spacing[2])), shapes)  # type: ignore[arg-type]
    shape = np.median(np.array(shapes, dtype=float), axis=0)
    return Images((first, second, third), (float(shape[first]), float(shape[second]), float(shape[third])),
                  (float(spacing[first]), float(spacing[second]), float(spacing[third])))


def lesion_sizes(fingerprint: Fingerprint) -> tuple[int, ...]:
    """Shorter sides of all boxes around findings, in thousandths of the image's shorter side."""
    sizes = Counter({int(name.removeprefix("lesion.")): count for name, count in fingerprint.properties.items()
                     if name.startswith("lesion.")})
    return tuple(sorted(sizes.elements()))


def plan_outputs(options: ClassificationOptions, counted: Sequence[Counted], channels: int) -> Wanted:
    """Outputs, loss and start of the outputs, with their reasons relative to a configuration."""
    meanings = [entry.meaning for entry in counted]
    values = plan_values(meanings, {entry.meaning.name: entry.weights for entry in counted},
                         {entry.meaning.name: entry.repeats for entry in counted},
                         {entry.meaning.name: entry.loss for entry in counted})
    terms = dict.fromkeys((entry.loss for entry in counted), 1.0)
    outputs = sum(output_count(meaning) for meaning in meanings)
    listed = "; ".join(f"{meaning.name}: {meaning.kind}, {output_count(meaning)} output(s)" for meaning in meanings)
    reasons = balance_reasons(counted) | {
        "network.out_channels": Reason(listed, "one output of two classes and of a value, one per class or label, one per "
                                       "threshold between grades", "dataset specification and table"),
        "network.output_bias": Reason("; ".join(f"{entry.meaning.name}: {entry.counts} of {entry.known}" for entry in counted),
                                      "logarithm of the odds of every class, so that training starts from the prevalence, with "
                                      "the "
                                      "weight of the class in the loss", "rule for rare classes; Lin et al. 2017, section 3.3"),
        "loss": Reason(listed, "as the specification says, else by the kind of each target: binary cross-entropy of independent "
                               "answers, softmax cross-entropy of classes that exclude each other (smoothed by 0.1 above "
                               f"{SMOOTHED_FROM} patients), cumulative cross-entropy of grades, squared error of standardised "
                               "values", "docs/classification.md"),
        "network.shared_output": Reason(listed, "thresholds between grades share their weights where nothing else is learned, so "
                                        "that they never cross", "Cao et al. 2020 (arXiv 1901.07884)")}
    if options.localise:
        values[LOCALISE] = True
        reasons[f"task_values.{LOCALISE}"] = Reason(
            "localise: true", "a large last map, pooled by log-sum-exp; predictions hold boxes around what the maps of findings "
            "point at", "dataset specification; Wang et al. 2017 (arXiv 1705.02315)")
    shared = len(meanings) == 1 and meanings[0].kind == Kind.ORDINAL
    return Wanted(channels, outputs, terms, values, tuple(value for entry in counted for value in entry.bias), shared, reasons)
