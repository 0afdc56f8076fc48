"""One unit by itself: measured, planned, answered without any training, written with its scores and a page to look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoseg.core.budget import Budget
from autoseg.core.case import Unit, single_units
from autoseg.core.fingerprint import sum_fingerprints
from autoseg.core.plan import Configuration, Plan
from autoseg.core.progress import Progress
from autoseg.core.provenance import Manifest, Origin
from autoseg.core.report import Scores
from autoseg.core.spec import DatasetSpec
from autoseg.core.task import Context, Picture, PlanRequest, Starting, Task
from autoseg.io.atomic import hash_values, sha256_file, write_text
from autoseg.io.images import unchanged, written_ending
from autoseg.io.manifests import digests_of, write_manifest
from autoseg.io.values import write_value
from autoseg.reporting.numbers import score
from autoseg.reporting.page import CasePictures, Fact, ReportPage, plan_rows, render
from autoseg.stages.fingerprint import measure_unit, unit_files
from autoseg.stages.plan import make_probe
from autoseg.stages.prepare import prepare_inputs, read_inputs
from autoseg.training.device import Stopwatch

if TYPE_CHECKING:
    from torch import nn

PAGE, SCORES, PLAN = "report.html", "scores.json", "plan.json"
STEPS = 4


@dataclass(frozen=True)
class Answer:
    """What was made of one unit.

    Attributes:
        files: that were written, the prediction first.
        scores: where there is a reference, and what can be said without one.
        seconds: of the prediction alone, images in memory.
    """

    plan: Plan
    files: tuple[Path, ...]
    scores: Scores
    seconds: float
    page: Path


def run_single(task: Task, spec: DatasetSpec, unit: Unit, folder: Path, budget: Budget, *, context: Context, progress: Progress,
               provenance: Mapping[str, str], origin: Origin, start: tuple[Starting, Path] | None = None) -> Answer:
    """Answers one unit by a plan that trains nothing; the task makes such plans where its options ask for them.

    Nothing is written before the answer is there.

    Args:
        start: weights of another model that the answer needs, and where their file lies.
    Raises:
        AutosegError: a file cannot be read, or the unit's images do not fit each other.
    """
    with unchanged(unit_files(unit)):
        inputs = read_inputs(unit, spec, varied=True)
        target = task.read_target(unit, spec)
        measured = [measure_unit(task, spec, single) for single in single_units([unit])]
    progress("register", 1, STEPS, "measured")
    fingerprint = sum_fingerprints(measured, sum(len(entry.channels) for entry in spec.inputs))
    request = PlanRequest("single", start=None if start is None else start[0])
    probe = make_probe(task, spec, [unit], fingerprint, request, budget, folder)
    plan = task.make_plan(spec, fingerprint, budget, request, probe)
    configuration = next(iter(plan.configurations.values()))
    progress("register", 2, STEPS, "planned")
    arrays, record = prepare_inputs(inputs, plan, configuration)
    networks = [] if start is None else [_started(task, configuration, start[1], context)]
    watch = Stopwatch()
    prediction = task.restore(task.infer(networks, arrays, configuration, context), record, configuration, context)
    seconds = watch.seconds()
    progress("register", 3, STEPS, "answered")
    prediction = task.complete(prediction, unit, inputs, spec)
    image = next(iter(inputs.values()))
    scores = task.score(prediction, target, spec, image)
    drawn = task.figures(prediction, target, image, spec)
    ending = written_ending(next(iter(unit.cases[0].inputs.values()))[0])
    files = task.write(prediction, spec, image, folder / f"{unit.id}{ending}")
    page = _write_page(task, spec, unit, plan, scores, drawn, folder, seconds, provenance)
    write_value(folder / SCORES, {name: value for name, value in scores.items()})
    write_value(folder / PLAN, plan)
    names = [*(path.name for path in files), SCORES, PLAN, PAGE]
    inputs_of = {f"{case.id}/{path.name}": sha256_file(path) for case in unit.cases for paths in case.inputs.values()
                 for path in paths}
    write_manifest(folder, Manifest("single", origin, hash_values(plan), settings={"device": context.device}, inputs=inputs_of,
                                    outputs=digests_of(folder, names)))
    progress("register", 4, STEPS, "written")
    return Answer(plan, files, scores, seconds, page)


def _started(task: Task, configuration: Configuration, weights: Path, context: Context) -> nn.Module:
    """The planned network with the weights that it starts from."""
    from autoseg.nn.weights import load_start

    network = task.build_network(configuration)
    if configuration.start is not None:
        load_start(weights, network, configuration.start)
    return network.to(context.device).eval()


def _write_page(task: Task, spec: DatasetSpec, unit: Unit, plan: Plan, scores: Scores, drawn: tuple[Picture, ...], folder: Path,
                seconds: float, provenance: Mapping[str, str]) -> Path:
    shown: dict[str, Any] = {name: score(value) for name, value in scores.items()}
    facts = [Fact(name, value) for name, value in shown.items()]
    page = ReportPage(
        title=unit.id, subtitle="One unit, answered by itself: nothing was trained.",
        highlights=(*facts[:3], Fact("time", f"{seconds:.1f} s", "images in memory")), dataset=tuple(facts),
        headline_name=task.case_headline, pictures=(CasePictures(unit.id, drawn),) if drawn else (), plan=plan_rows(plan),
        notes=task.notes(spec), provenance=tuple(Fact(name, value) for name, value in provenance.items()))
    write_text(folder / PAGE, render(page))
    return folder / PAGE
