"""Joint: one encoder learns two tasks on one dataset, a label for every voxel and classes of the whole image.

This folder knows neither task: it composes the records that it is handed. How, slot by slot, is in `docs/joint.md`.
"""

from __future__ import annotations

from autoseg.core.task import Task
from autoseg.core.verb import Verb
from autoseg.tasks.joint.baseline import apply_baseline, fit_baseline
from autoseg.tasks.joint.files import compare
from autoseg.tasks.joint.network import build_network
from autoseg.tasks.joint.output import complete, infer, read_prediction, restore, row, write_prediction
from autoseg.tasks.joint.parts import Pair, Slot, require_names_apart
from autoseg.tasks.joint.plan import make_plan
from autoseg.tasks.joint.refine import refinements
from autoseg.tasks.joint.sample import blank_batch, draw_batch
from autoseg.tasks.joint.score import HEADLINE, score, summarise
from autoseg.tasks.joint.spec import index_units
from autoseg.tasks.joint.step import phases
from autoseg.tasks.joint.target import describe, prepare_target, read_target
from autoseg.tasks.joint.words import charts, draw_figures, examine, facts, notes

NAME = "joint"
# `tasks.load_task` hands their records to `compose`: what answers for voxels, then what answers for images.
COMPOSED_OF = ("segmentation", "classification")


def compose(dense: Task, whole: Task) -> Task:
    """The task that learns both with one encoder.

    Args:
        dense: answers for every voxel with logits (K, Z, Y, X) of a U-Net, in slabs, from patches; names the `cases` of its
            batches. Cases are ranked by its case headline, which is measured on each image; whether one image's class is right
            says little.
        whole: answers for an image with logits (K,) of a classifier. Its batches hold, beside images, what its
            `prepare_target` stores of a case.
    Raises:
        TypeError: both have the same name, or options of the same name.
    """
    parts = Pair(dense, whole)
    require_names_apart(parts)
    return Task(
        name=NAME,
        headline=HEADLINE,
        case_headline=f"{dense.name}.{dense.case_headline}",
        options=(*dense.option_types, *whole.option_types),
        index=Slot(index_units, parts),
        examine=Slot(examine, parts),
        facts=Slot(facts, parts),
        read_target=Slot(read_target, parts),
        describe=Slot(describe, parts),
        make_plan=Slot(make_plan, parts),
        prepare_target=Slot(prepare_target, parts),
        draw_batch=Slot(draw_batch, parts),
        blank_batch=Slot(blank_batch, parts),
        build_network=Slot(build_network, parts),
        phases=Slot(phases, parts),
        infer=Slot(infer, parts),
        restore=Slot(restore, parts),
        complete=Slot(complete, parts),
        write=Slot(write_prediction, parts),
        read_prediction=Slot(read_prediction, parts),
        row=Slot(row, parts),
        compare=Slot(compare, parts),
        score=Slot(score, parts),
        summarise=Slot(summarise, parts),
        fit_baseline=Slot(fit_baseline, parts),
        apply_baseline=Slot(apply_baseline, parts),
        refinements=Slot(refinements, parts),
        figures=Slot(draw_figures, parts),
        charts=Slot(charts, parts),
        notes=Slot(notes, parts),
        # Commands that work with a bundle (`BundleVerb`) are written for the networks of their own task.
        verbs=tuple(verb for verb in (*dense.verbs, *whole.verbs) if isinstance(verb, Verb)),
    )
