"""Registration: where each point of one image lies in another one."""

from __future__ import annotations

from autoseg.core.task import Task
from autoseg.tasks.registration.baseline import apply_baseline, fit_baseline
from autoseg.tasks.registration.figures import draw_figures
from autoseg.tasks.registration.files import compare
from autoseg.tasks.registration.network import build_network
from autoseg.tasks.registration.output import complete, infer, read_registration, restore, write_registration
from autoseg.tasks.registration.plan import make_plan
from autoseg.tasks.registration.sample import blank_batch, draw_batch
from autoseg.tasks.registration.score import score, summarise
from autoseg.tasks.registration.spec import RegistrationOptions, index_units
from autoseg.tasks.registration.step import phases
from autoseg.tasks.registration.target import describe, prepare_target, read_target
from autoseg.tasks.registration.words import charts, examine, facts, notes, refinements, row

TASK = Task(
    name="registration",
    headline="pair.agreement",
    case_headline="pair.agreement",
    options=RegistrationOptions,
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
    complete=complete,
    write=write_registration,
    read_prediction=read_registration,
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
