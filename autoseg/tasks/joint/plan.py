"""The plan of a joint task: the dense task's, each configuration with a second head that the other task's plan describes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from autoseg.core.budget import Budget, CaseTime
from autoseg.core.errors import IncompatibleError
from autoseg.core.fingerprint import Fingerprint
from autoseg.core.networks import Classifier, ImageHead
from autoseg.core.plan import Configuration, Plan, Reason, Value
from autoseg.core.spec import DatasetSpec
from autoseg.core.task import PlanRequest, Probe
from autoseg.planning.case_memory import volume_bytes
from autoseg.planning.explain import Reasons
from autoseg.tasks.joint.head import STEM, head_values
from autoseg.tasks.joint.parts import Parts, lifted, spec_of

# How often units of a class are drawn is decided by values with this in their name; here the dense task draws the batches.
DRAWING = ".repeat."
KENDALL = "Kendall, Gal and Cipolla 2018 (arXiv 1705.07115)"
PAGE = "docs/joint.md"
# What the head takes over from the classifier that the other task plans.
TAKEN = ("out_channels", "dropout", "shared_output", "output_bias")

NO_TIME = CaseTime("", prepare_seconds=0.0, window_seconds=0.0, prepared_voxels=1.0, shape=(1.0, 1.0, 1.0), windows=1.0)


@dataclass(frozen=True)
class Second:
    """What a joint configuration takes from the other task's plan.

    Attributes:
        terms: of its loss.
        values: that only the task understands.
        reasons: of its configuration, with paths relative to it.
    """

    head: ImageHead
    terms: dict[str, float]
    values: dict[str, Value]
    reasons: Reasons


def make_plan(parts: Parts, spec: DatasetSpec, fingerprint: Fingerprint, budget: Budget, request: PlanRequest,
              probe: Probe) -> Plan:
    """The dense task's plan; what is timed and predicted are its networks with the second head.

    Raises:
        DatasetError, UsageError, ResourceError: what either task finds.
    """
    second = plan_second(parts, spec, fingerprint, budget, request)
    plan = parts.dense.make_plan(spec_of(parts.dense, spec), fingerprint, budget, request, _with_head(parts, second, probe))
    configurations = {name: joined(parts, configuration, second) for name, configuration in plan.configurations.items()}
    reasons = dict(_moved(parts, plan.reasons, configurations))
    for name in configurations:
        reasons |= {f"configurations.{name}.{path}": reason for path, reason in _reasons(parts, second).items()}
    return replace(plan, task=spec.task, configurations=configurations, reasons=reasons)


def plan_second(parts: Parts, spec: DatasetSpec, fingerprint: Fingerprint, budget: Budget, request: PlanRequest) -> Second:
    """What the other task plans of its outputs and loss. Its network is not built: instead of measurements it is told numbers
    that nothing taken from its plan depends on.

    Raises:
        DatasetError: what it finds in the dataset.
    """
    unmeasured = Probe(lambda plan, configuration: 1.0, lambda configuration: (0, 0), lambda plan, configuration: NO_TIME)
    plan = parts.whole.make_plan(spec_of(parts.whole, spec), fingerprint, replace(budget, minutes=None),
                                 PlanRequest(request.name, seed=request.seed), unmeasured)
    name, configuration = next(iter(plan.configurations.items()))
    network = configuration.network
    if not isinstance(network, Classifier):
        raise IncompatibleError(f"task {parts.whole.name!r} plans a network of kind {network.kind!r}, and a second head needs "
                                "one that answers with a vector")
    pooling: Literal["mean", "log_sum_exp"] = "log_sum_exp" if network.pooling == "log_sum_exp" else "mean"
    head = ImageHead(network.out_channels, pooling, network.sharpness, network.dropout, network.shared_output,
                     network.output_bias)
    stem = f"configurations.{name}."
    return Second(head, dict(configuration.loss.terms),
                  {key: value for key, value in configuration.task_values.items() if DRAWING not in key},
                  {path.removeprefix(stem): reason for path, reason in plan.reasons.items() if path.startswith(stem)})


def joined(parts: Parts, configuration: Configuration, second: Second) -> Configuration:
    """A configuration of the dense task with the second head, the terms of both losses and the values of both tasks."""
    terms = lifted(parts.dense, configuration.loss.terms) | lifted(parts.whole, second.terms)
    values = lifted(parts.dense, configuration.task_values) | lifted(parts.whole, second.values) | head_values(second.head)
    return replace(configuration, loss=replace(configuration.loss, terms=terms), task_values=values)


def _with_head(parts: Parts, second: Second, probe: Probe) -> Probe:
    """The probe for configurations of the dense task: it measures them with the second head."""
    def peak_bytes(configuration: Configuration) -> tuple[int, int]:
        training, forward = probe.peak_bytes(joined(parts, configuration, second))
        return training, forward + _sums_of_head(configuration, second.head)

    return Probe(lambda plan, configuration: probe.seconds(plan, joined(parts, configuration, second)), peak_bytes,
                 lambda plan, configuration: probe.case_seconds(plan, joined(parts, configuration, second)))


def _sums_of_head(configuration: Configuration, head: ImageHead) -> int:
    """Bytes by which the sums of windows grow when they hold what the second head says, too."""
    network = configuration.network
    outputs = network.out_channels + head.out_channels
    wider = replace(configuration, network=replace(network, out_channels=outputs))  # type: ignore[arg-type]
    return volume_bytes(wider) - volume_bytes(configuration)


def _moved(parts: Parts, reasons: Mapping[str, Reason], configurations: Mapping[str, Configuration]) -> Reasons:
    """The dense task's reasons where its values are now."""
    moves = {f"configurations.{name}.{part}.": f"configurations.{name}.{part}.{parts.dense.name}."
             for name in configurations for part in ("task_values", "loss.terms")}
    found = {f"configurations.{name}.loss.terms.{parts.dense.name}": reasons[f"configurations.{name}.loss"]
             for name in configurations if f"configurations.{name}.loss" in reasons}
    for path, reason in reasons.items():
        stem = next((stem for stem in moves if path.startswith(stem)), None)
        found[path if stem is None else path.replace(stem, moves[stem], 1)] = reason
    return found


def _reasons(parts: Parts, second: Second) -> Reasons:
    """Why the second head and the loss are what they are, relative to a configuration."""
    whole, dense, theirs = parts.whole.name, parts.dense.name, second.reasons
    weighed = Reason(f"losses of {dense} and {whole}", "the sum over both tasks of exp(-s) L + s, with s learned: each weighs "
                     "one over its own loss, so that neither drowns the other by the unit of its loss", KENDALL)
    pooling = Reason(f"pooling {second.head.pooling}", f"log-sum-exp where {whole} wants heat maps, else the mean, over the "
                     "places of the deepest features, after a hidden layer as wide as they are: instance norm leaves their own "
                     "means nearly equal in all images. Every patch is told what is true of its image, and a prediction is the "
                     "mean over all windows", PAGE)
    default = Reason(f"the plan of {whole}", f"as {whole} plans it for a classifier of these images", PAGE)
    values = {path: reason for path, reason in theirs.items() if path.startswith("task_values") and DRAWING not in path}
    values["task_values"] = _without_drawing(values.get("task_values", default), dense)
    return {
        "loss.terms": weighed,
        f"loss.terms.{whole}": theirs.get("loss", default),
        **{path.replace("task_values", f"task_values.{whole}", 1): reason for path, reason in values.items()},
        f"task_values.{STEM}": default,
        **{f"task_values.{STEM}.{name}": theirs.get(f"network.{name}", default) for name in TAKEN},
        f"task_values.{STEM}.pooling": pooling, f"task_values.{STEM}.sharpness": theirs.get("network.sharpness", pooling)}


def _without_drawing(reason: Reason, dense: str) -> Reason:
    return replace(reason, because=f"{reason.because}; how often units are drawn is left to {dense}, which draws all alike")
