"""Classification: classes, grades, labels and values of a whole image, exam or volume."""

from __future__ import annotations

from autoseg.core.task import Task, as_predicted
from autoseg.tasks.classification.baseline import apply_baseline, fit_baseline
from autoseg.tasks.classification.charts import charts
from autoseg.tasks.classification.explain import EXPLAIN
from autoseg.tasks.classification.figures import draw_figures
from autoseg.tasks.classification.files import compare
from autoseg.tasks.classification.network import build_network
from autoseg.tasks.classification.output import infer, read_prediction, restore, row, write_prediction
from autoseg.tasks.classification.plan import make_plan
from autoseg.tasks.classification.refine import refinements
from autoseg.tasks.classification.sample import blank_batch, draw_batch
from autoseg.tasks.classification.score import score
from autoseg.tasks.classification.spec import ClassificationOptions, index_units
from autoseg.tasks.classification.step import phases
from autoseg.tasks.classification.summary import summarise
from autoseg.tasks.classification.target import describe, prepare_target, read_target
from autoseg.tasks.classification.words import examine, facts, notes

TASK = Task(
    name="classification",
    headline="mean.auc",
    case_headline="mean.log_score",
    options=ClassificationOptions,
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
    verbs=(EXPLAIN,),
)
