"""Segmentation: a label for every voxel."""

from __future__ import annotations

from autoseg.core.task import Task, as_predicted
from autoseg.tasks.segmentation.baseline import apply_baseline, fit_baseline
from autoseg.tasks.segmentation.figures import draw_figures
from autoseg.tasks.segmentation.files import compare
from autoseg.tasks.segmentation.network import build_network
from autoseg.tasks.segmentation.output import infer, read_prediction, restore, write_prediction
from autoseg.tasks.segmentation.plan import make_plan
from autoseg.tasks.segmentation.refine import refinements
from autoseg.tasks.segmentation.sample import blank_batch, draw_batch
from autoseg.tasks.segmentation.score import score, summarise
from autoseg.tasks.segmentation.spec import SegmentationOptions, index_units
from autoseg.tasks.segmentation.step import phases
from autoseg.tasks.segmentation.target import describe, prepare_target, read_target
from autoseg.tasks.segmentation.words import charts, examine, facts, notes, row

TASK = Task(
    name="segmentation",
    headline="mean.dice",
    case_headline="mean.dice",
    options=SegmentationOptions,
    index=index_units,
    examine=examine,
    facts=facts,
    read_target=read_target,
    describe=describe,
    make_plan=make_plan,
    prepare_target=prepare_target,
    draw_batch=draw_batch,
    blank_batch=blank_batch,
    build_network=build_network,
    phases=phases,
    infer=infer,
    restore=restore,
    complete=as_predicted,
    write=write_prediction,
    read_prediction=read_prediction,
    row=row,
    compare=compare,
    score=score,
    summarise=summarise,
    fit_baseline=fit_baseline,
    apply_baseline=apply_baseline,
    refinements=refinements,
    figures=draw_figures,
    charts=charts,
    notes=notes,
    verbs=(),
)
