"""One training step of classification: a loss for every target by its kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from autoseg.core.errors import IncompatibleError, choose
from autoseg.core.plan import Configuration
from autoseg.core.task import Phase
from autoseg.tasks.classification.heads import Head, heads_of
from autoseg.tasks.classification.kinds import Kind
from autoseg.tasks.classification.objectives import LOSSES

if TYPE_CHECKING:
    from torch import Tensor, nn

    Term = Callable[[Tensor, Tensor, Sequence[Head]], Tensor]

# Lin et al. 2017 (arXiv 1708.02002), section 5.1.
FOCAL_GAMMA, FOCAL_ALPHA = 2.0, 0.25


def phases(configuration: Configuration) -> tuple[Phase, ...]:
    """The single phase of classification; weights that training starts from may stay or move more slowly."""
    from autoseg.nn.stages import rate_factors, trained_parameters

    heads = heads_of(configuration)
    require_terms(configuration, heads)
    weighted = [(name, weight, choose(loss_terms(), name, "loss term")) for name, weight in configuration.loss.terms.items()]

    def step(network: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        logits = network(batch["image"])
        losses = {}
        for name, _, (kinds, term) in weighted:
            found = [head for head in heads if (head.loss == name if head.loss else head.kind in kinds)]
            if found:
                losses[name] = term(logits, batch["truths"], found)
        losses["total"] = sum(weight * losses[name] for name, weight, _ in weighted if name in losses)  # type: ignore[assignment]
        return losses

    start = configuration.start
    rates = None if start is None else partial(rate_factors, start=start)
    return (Phase("supervised", partial(trained_parameters, start=start), step, rates),)


def require_terms(configuration: Configuration, heads: Sequence[Head]) -> None:
    """Raises an IncompatibleError where a target's loss is not among the terms of the plan, so that nothing would be learned."""
    terms = configuration.loss.terms
    for head in heads:
        if head.loss and head.loss not in terms:
            raise IncompatibleError(f"configuration {configuration.name!r}: target {head.name!r} is learned with {head.loss!r}, "
                                    f"and the terms of the loss are {', '.join(terms)}; write the loss of a target in the "
                                    "specification (options, targets, loss) and plan again, or edit loss.terms and "
                                    f"task_values.{head.name}.loss together")


def loss_terms() -> dict[str, tuple[tuple[Kind, ...], Term]]:
    """The terms by name, with the kinds of targets that they suit: (logits (B, K), truths (B, T), heads) -> scalar."""
    terms: dict[str, Term] = {
        "binary_cross_entropy": _binary, "focal": _focal, "softmax_cross_entropy": partial(_softmax, smoothing=0.0),
        "smoothed_cross_entropy": partial(_softmax, smoothing=SMOOTHING), "hinge": partial(_hinge, squared=False),
        "squared_hinge": partial(_hinge, squared=True), "cumulative_cross_entropy": _ordinal, "squared_error": _squared}
    return {name: (kinds, terms[name]) for name, kinds in LOSSES.items()}


# Szegedy et al. 2016 (arXiv 1512.00567), section 7.
SMOOTHING = 0.1


def _columns(logits: Tensor, truths: Tensor, heads: Sequence[Head]) -> tuple[Tensor, Tensor]:
    """Logits and truths (B, T) of several targets side by side."""
    outputs = [place for head in heads for place in head.outputs]
    return logits[:, outputs], truths[:, [place for head in heads for place in head.truths]]


def _weights(heads: Sequence[Head], like: Tensor) -> Tensor:
    return like.new_tensor([weight for head in heads for weight in head.weights or (1.0,) * len(head.outputs)])


def _binary(logits: Tensor, truths: Tensor, heads: Sequence[Head]) -> Tensor:
    from autoseg.losses.binary import weighted_binary_cross_entropy

    return weighted_binary_cross_entropy(*_columns(logits, truths, heads), _weights(heads, truths))


def _focal(logits: Tensor, truths: Tensor, heads: Sequence[Head]) -> Tensor:
    from autoseg.losses.focal import focal_loss

    return focal_loss(*_columns(logits, truths, heads), gamma=FOCAL_GAMMA, alpha=FOCAL_ALPHA)


def _softmax(logits: Tensor, truths: Tensor, heads: Sequence[Head], *, smoothing: float) -> Tensor:
    from autoseg.losses.softmax import softmax_cross_entropy

    return _summed(logits, truths, heads, lambda outputs, classes, head: softmax_cross_entropy(
        outputs, classes, _weights([head], truths), label_smoothing=smoothing))


def _hinge(logits: Tensor, truths: Tensor, heads: Sequence[Head], *, squared: bool) -> Tensor:
    from autoseg.losses.hinge import crammer_singer

    return _summed(logits, truths, heads, lambda outputs, classes, head: crammer_singer(outputs, classes, squared=squared))


def _ordinal(logits: Tensor, truths: Tensor, heads: Sequence[Head]) -> Tensor:
    from autoseg.losses.ordinal import cumulative_cross_entropy

    return _summed(logits, truths, heads, lambda outputs, classes, head: cumulative_cross_entropy(outputs, classes))


def _squared(logits: Tensor, truths: Tensor, heads: Sequence[Head]) -> Tensor:
    from autoseg.losses.regression import squared_error

    return squared_error(*_columns(logits, truths, heads))


def _summed(logits: Tensor, truths: Tensor, heads: Sequence[Head], loss: Callable[[Tensor, Tensor, Head], Tensor]) -> Tensor:
    losses = [loss(logits[:, head.outputs.start:head.outputs.stop], truths[:, head.truths.start].long(), head) for head in heads]
    return sum(losses[1:], losses[0])
