"""Which loss a target is learned with: by its kind, or as the specification says."""

from __future__ import annotations

from autoseg.core.errors import DatasetError
from autoseg.tasks.classification.kinds import Kind, Meaning
from autoseg.tasks.classification.spec import TargetOptions

# Losses with the kinds of targets that they suit; of each kind the first one is what is planned where nothing is said.
LOSSES: dict[str, tuple[Kind, ...]] = {
    "binary_cross_entropy": (Kind.BINARY, Kind.MULTILABEL), "focal": (Kind.BINARY, Kind.MULTILABEL),
    "softmax_cross_entropy": (Kind.MULTICLASS,), "smoothed_cross_entropy": (Kind.MULTICLASS,), "hinge": (Kind.MULTICLASS,),
    "squared_hinge": (Kind.MULTICLASS,), "cumulative_cross_entropy": (Kind.ORDINAL,), "squared_error": (Kind.CONTINUOUS,)}
# Those in which rare classes weigh more, which probabilities are corrected for. The focal loss has a weight of its own, and a
# margin is no probability.
WEIGHTED = ("binary_cross_entropy", "softmax_cross_entropy", "smoothed_cross_entropy")
# Patients from which on several classes are smoothed (docs/classification.md).
SMOOTHED_FROM = 1_000


def planned_loss(target: TargetOptions, meaning: Meaning, patients: int) -> str:
    """The loss of a target.

    Args:
        patients: whose truth is known.
    Raises:
        DatasetError: the specification asks for one that does not suit the target's kind.
    """
    if target.loss != "auto":
        require_loss(target, meaning)
        return target.loss
    if meaning.kind == Kind.MULTICLASS and patients > SMOOTHED_FROM:
        return "smoothed_cross_entropy"
    return suited(meaning.kind)[0]


def require_loss(target: TargetOptions, meaning: Meaning) -> None:
    """Raises a DatasetError where the loss that the specification asks for does not suit the kind of the target."""
    if target.loss != "auto" and target.loss not in suited(meaning.kind):
        raise DatasetError(f"target {target.label!r} is {meaning.kind}, and its loss {target.loss!r} suits "
                           f"{' and '.join(LOSSES[target.loss])} targets; write one of {', '.join(suited(meaning.kind))}, or "
                           "leave 'loss' out", code="E_TARGET_LOSS")


def suited(kind: Kind) -> tuple[str, ...]:
    """Names of the losses that a kind of targets can be learned with."""
    return tuple(name for name, kinds in LOSSES.items() if kind in kinds)
