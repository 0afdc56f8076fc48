"""Configurations of tiny networks for tests of what stands around them."""

from __future__ import annotations

from autoseg.core.networks import Classifier
from autoseg.core.plan import Augmentation, Configuration, Inference, Loss, Optimization, Resampling
from autoseg.tasks.classification.heads import output_count, plan_values
from autoseg.tasks.classification.kinds import Kind, Meaning

TERMS = {Kind.BINARY: "binary_cross_entropy", Kind.MULTILABEL: "binary_cross_entropy", Kind.MULTICLASS: "softmax_cross_entropy",
         Kind.ORDINAL: "cumulative_cross_entropy", Kind.CONTINUOUS: "squared_error"}


def make_configuration(*targets, mean=0.0, std=1.0, weights=None, repeats=None, size=(1, 8, 8), slices=False, batch=2,
                       augmentation=None, **changes) -> Configuration:
    """A configuration of targets (name, kind, classes) with a tiny ResNet."""
    meanings = [Meaning(name, kind, classes, mean, std) for name, kind, classes in targets]
    dims = 2 if size[0] == 1 or slices else 3
    network = Classifier("resnet", dims, 1, sum(map(output_count, meanings)), (4, 4, 8), ((1,) * dims, (1,) * dims, (2,) * dims),
                         ((3,) * dims,) * 3, (1, 1, 1), slices=slices, norm="group", pooling="attention" if slices else "mean")
    return Configuration(
        "tiny", (1.0, 1.0, 1.0), tuple(map(float, size)), size, batch, Resampling(), network,
        Loss({TERMS[meaning.kind]: 1.0 for meaning in meanings}), augmentation or Augmentation(),
        Optimization("adamw", 1e-2, 0.0, iterations=20, iterations_per_epoch=10), Inference(1.0, 0.125, 1, (1, 2), False),
        whole_image=True, task_values=plan_values(meanings, weights or {}, repeats or {}), **changes)
