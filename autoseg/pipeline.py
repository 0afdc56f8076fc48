"""The story: every verb as a few stage calls. The one place where a task meets the stages."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoseg.core.budget import Budget
from autoseg.core.bundle import Bundle
from autoseg.core.case import Unit
from autoseg.core.errors import DatasetError, IncompatibleError, UsageError
from autoseg.core.plan import Plan
from autoseg.core.progress import Progress
from autoseg.core.provenance import Origin
from autoseg.core.report import Failure, Report
from autoseg.core.spec import DatasetSpec
from autoseg.core.task import Context, PlanRequest
from autoseg.core.verb import BundleVerb
from autoseg.io.atomic import hash_values, require_writable
from autoseg.io.bundles import read_bundle
from autoseg.io.dataset import Scan, list_inputs, scan_all
from autoseg.io.lock import locked, reading
from autoseg.io.policy import Policy
from autoseg.io.store import Store
from autoseg.io.values import from_plain, read_value, write_value
from autoseg.planning.splits import Fold, crosses_patients
from autoseg.stages.check import Understanding, few_patients, require_sound_units, run_check
from autoseg.stages.evaluate import run_evaluate
from autoseg.stages.fingerprint import run_fingerprint
from autoseg.stages.limits import prediction_bytes, require_space, store_bytes
from autoseg.stages.plan import fits_specification, require_same_measurements, run_plan
from autoseg.stages.preprocess import run_preprocess
from autoseg.stages.provenance import record_evaluation, record_plan, record_predictions, record_report, record_run
from autoseg.stages.start import place_weights, starting_from
from autoseg.stages.summary import make_report
from autoseg.tasks import load_task
from autoseg.workspace import Workspace, remember, tidy

if TYPE_CHECKING:
    from autoseg.tasks.registration.single import PairFiles

log = logging.getLogger(__name__)

# Memory of decompressed cases in one process; a dataset that fits is read from disk once.
STORE_CACHE_BYTES = 2 * 2**30


def check(workspace: Workspace, *, executor: Executor | None) -> Understanding:
    """What is understood of the dataset's folder, and every problem."""
    found = scan_all(workspace.spec, workspace.data)
    units = workspace.task.index(workspace.spec, found.cases)
    return run_check(workspace.task, workspace.spec, found, units, workspace.data, executor=executor,
                     progress=workspace.progress)


def plan(workspace: Workspace, budget: Budget, request: PlanRequest, *, executor: Executor | None,
         keep_memory: bool = False, start: Path | None = None, policies: Sequence[Policy] = ()) -> Plan:
    """Fingerprint, folds and plan.

    Args:
        keep_memory: take the memory of an earlier plan of this name, where there is one.
        start: a bundle whose weights training may start from; they are copied beside the plan.
        policies: who may have made that bundle.
    """
    units = workspace.units
    starting, weights = (None, None) if start is None else starting_from(start, policies)
    request = replace(request, start=starting)
    with locked(workspace.layout.folder, "plan"):
        remember(workspace)
        odd = [*require_sound_units(workspace.task, workspace.spec, units), *few_patients(units)]
        fingerprint = run_fingerprint(workspace.task, workspace.spec, units, workspace.layout.fingerprint,
                                      executor=executor, progress=workspace.progress)
        workspace.folds()
        for warning in odd:
            log.warning("%s %s [%s]", warning.unit, warning.message, warning.code)
        folder = workspace.layout.plan(request.name)
        made = run_plan(workspace.task, workspace.spec, units, fingerprint, budget, request, folder, keep_memory=keep_memory)
        if starting is not None and weights is not None:
            place_weights(starting, weights, folder)
        record_plan(folder, made, workspace.layout.fingerprint / "fingerprint.json", workspace.origin)
        return made


def preprocess(workspace: Workspace, plan: Plan, configurations: Sequence[str], *,
               executor: Executor | None) -> list[Path]:
    """Stores of the named configurations (all of the plan if none is named); configurations of one grid share a store."""
    folders: list[Path] = []
    with locked(workspace.layout.folder, "preprocess"):
        for name in configurations or plan.configurations:
            configuration = plan.configuration(name)
            folder = workspace.store(plan, configuration)
            if folder in folders:
                continue
            folders.append(folder)
            require_space(folders[-1], store_bytes(workspace.fingerprint, plan, configuration), f"the store of {name!r}")
            run_preprocess(workspace.task, workspace.spec, workspace.units, plan, configuration, folders[-1],
                           executor=executor, progress=workspace.progress)
    return folders


def train(workspace: Workspace, plan: Plan, configuration: str, folds: str, *, device: str, workers: int,
          should_stop: Callable[[], bool]) -> dict[str, Report]:
    """Validation reports of the asked folds, each with the baseline on the same fold; then the bundle."""
    from autoseg.stages.baseline import run_baseline
    from autoseg.stages.feasible import require_training_fits
    from autoseg.stages.train import run_train

    tidy(workspace)
    reports = {}
    require_training_fits(workspace.task, plan.configuration(configuration), workspace.layout.plan(plan.name) / "plan.json",
                          device)
    for name in fold_names(workspace, folds):
        with reading(workspace.store(plan, plan.configuration(configuration)), "train"):
            run = make_run(workspace, plan, configuration, name)
            with locked(run.folder, "train"):
                reports[name] = run_train(run, device=device, workers=workers, progress=workspace.progress,
                                          should_stop=should_stop)
                record_run(run, workspace.origin)
        if name != "all":
            run_baseline(baseline_run(workspace, plan, name), progress=workspace.progress, should_stop=should_stop)
    return reports


def fold_names(workspace: Workspace, folds: str) -> list[str]:
    """Names of the folds that `-f` means: a number, several with commas, `missing` (all five in turn) or `all`."""
    known = [str(number) for number in range(len(workspace.folds()))]
    if not known and folds != "all":
        what = ("the pairs of {} cannot be divided between two sets of patients" if crosses_patients(workspace.units) else
                "all cases of {} are of one patient")
        raise DatasetError(f"{what.format(repr(workspace.spec.name))}, so no fold can be validated",
                           hint=f"autoseg train -d {workspace.spec.name} -f all")
    if folds == "missing":
        return known
    names = folds.split(",")
    wrong = [name for name in names if name not in (*known, "all")]
    if wrong:
        raise UsageError(f"fold {wrong[0]!r} does not exist; {workspace.spec.name!r} has the folds {', '.join(known)}, "
                         "and 'all' trains one model on everything")
    return names


def make_run(workspace: Workspace, plan: Plan, configuration_name: str, fold_name: str):
    """The training run of one fold.

    Raises:
        UsageError: the configuration has not been preprocessed.
        IncompatibleError: the plan was made for another state of the specification or of the data, or cases changed or were
            damaged after they were preprocessed.
    """
    from autoseg.stages.train import Run

    configuration = plan.configuration(configuration_name)
    if not fits_specification(plan, workspace.spec):
        raise IncompatibleError(f"the specification of {workspace.spec.name!r} says other inputs, labels, regions or options "
                                f"than when the plan {plan.name!r} was made",
                                hint=f"autoseg plan_and_preprocess -d {workspace.spec.name} -c {configuration_name}")
    require_same_measurements(plan, workspace.fingerprint)
    folder = workspace.store(plan, configuration)
    if not (folder / "done.json").exists():
        raise UsageError(f"configuration {configuration_name!r} of {workspace.spec.name!r} is not preprocessed",
                         hint=f"autoseg plan_and_preprocess -d {workspace.spec.name} -c {configuration_name}")
    store = Store(folder, cache_bytes=STORE_CACHE_BYTES)
    changed = [name for name, digest in workspace.case_sources.items() if not store.has_case(name, digest)]
    if changed:
        raise IncompatibleError(f"{len(changed)} case(s) changed or were damaged after they were preprocessed "
                                f"({', '.join(changed[:3])})", code="E_CASES_CHANGED",
                                hint=f"autoseg plan_and_preprocess -d {workspace.spec.name}")
    ids = tuple(unit.id for unit in workspace.units)
    fold = Fold(ids, ()) if fold_name == "all" else workspace.folds()[int(fold_name)]
    return Run(workspace.task, workspace.spec, plan, configuration, fold, fold_name, workspace.units_by_id,
               workspace.sources, store, workspace.layout.run(plan.name, configuration_name, fold_name),
               workspace.layout.plan(plan.name))


def baseline_run(workspace: Workspace, plan: Plan, fold_name: str):
    """The cheap model of one fold."""
    from autoseg.stages.baseline import BaselineRun

    return BaselineRun(workspace.task, workspace.spec, workspace.units_by_id, workspace.folds()[int(fold_name)],
                       hash_values(workspace.fingerprint), workspace.layout.baseline(fold_name), plan.seed)


def select(workspace: Workspace, plan: Plan, context: Context | None = None) -> Bundle:
    """The bundle of all finished runs of a plan; ways to predict are compared with the device and engine of `context`.

    Folds that are trained side by side may end together: the later one waits, and then takes the runs of both.
    """
    from autoseg.stages.select import run_select

    with ExitStack() as held:
        held.enter_context(locked(workspace.layout.bundle(plan.name), "select", wait=True))
        runs = all_runs(workspace, plan)
        for folder in {run.run.store.folder for run in runs}:
            held.enter_context(reading(folder, "select"))
        cheap = {run.fold: baseline_run(workspace, plan, run.fold) for run in runs if run.fold != "all"}
        return run_select(workspace.task, workspace.spec, plan, workspace.fingerprint, workspace.units_by_id, runs,
                          workspace.layout.bundle(plan.name), fold_count=len(workspace.folds()),
                          baseline=baseline_report(workspace, runs), context=context or Context(), progress=workspace.progress,
                          baselines={name: run for name, run in cheap.items() if run.is_finished}, origin=workspace.origin)


def all_runs(workspace: Workspace, plan: Plan) -> list:
    """The finished runs of a plan."""
    from autoseg.stages.trained import finished_runs

    names = [*(str(number) for number in range(len(workspace.folds()))), "all"]
    return finished_runs([make_run(workspace, plan, configuration, fold)
                          for configuration in sorted(plan.configurations) for fold in names
                          if (workspace.layout.run(plan.name, configuration, fold) / "done.json").exists()
                          and (workspace.store(plan, plan.configuration(configuration)) / "done.json").exists()])


def baseline_report(workspace: Workspace, runs: Sequence) -> Report | None:
    """The baseline's records on all folds that were trained, summarised together."""
    import numpy as np

    paths = [workspace.layout.baseline(fold) / "summary.json" for fold in sorted({run.fold for run in runs})]
    records = [record for path in paths if path.exists() for record in read_value(path, Report).records]
    if not records:
        return None
    return make_report(workspace.task, records, np.random.default_rng(0))


def report(workspace: Workspace, plan: Plan, provenance: Mapping[str, str]) -> Path:
    """Path of the page with scores, pictures, curves, plan and baseline of a plan's finished runs.

    There is one page for all plans. Who finds another process at it waits, so that the page of the most runs stays.

    Args:
        provenance: versions, command and whatever else says how the results were made.
    """
    from autoseg.stages.report import run_report

    require_writable(workspace.layout.folder)
    with locked(workspace.layout.bundle(plan.name).parent, "report", wait=True):
        runs = all_runs(workspace, plan)
        page = run_report(workspace.task, workspace.spec, plan, workspace.fingerprint, workspace.units_by_id, runs,
                          baseline_report(workspace, runs), workspace.layout, provenance)
        record_report(page, plan, runs, workspace.origin)
    return page


def load_predictor(bundle_folder: Path, context: Context | None = None, *, trusted_task: str | None = None,
                   policies: Sequence[Policy] = (), of_task: str | None = None):
    """A `Predictor` with a bundle's networks in memory; needs the bundle's folder, nothing else.

    Args:
        policies: who may have made the bundle (`io.policy.read_policy`); each of them is obeyed.
        of_task: the task that the bundle must be of; None: any.
    Raises:
        IncompatibleError: the bundle is of another task.
    Example:
        >>> predictor = load_predictor(Path("autoseg_home/Hippocampus/bundles/default"))          # doctest: +SKIP
        >>> predictor.predict_array(voxels, spacing_mm=(1.0, 1.0, 1.0)).label                     # doctest: +SKIP
    """
    from autoseg.stages.feasible import require_prediction_fits
    from autoseg.stages.predict import Predictor

    bundle = read_bundle(bundle_folder, policies)
    context = context or Context()
    if of_task is not None and bundle.spec.task != of_task:
        raise IncompatibleError(f"the bundle in {bundle_folder} is of the task {bundle.spec.task!r}, and one of {of_task!r} is "
                                "expected", hint="name another bundle with -b")
    for name in {member.configuration for member in bundle.members}:
        require_prediction_fits(bundle.plan.configuration(name), bundle_folder / "plan.json", context.device)
    return Predictor.load(bundle_folder, bundle, load_task(bundle.spec.task, trusted=trusted_task), context)


def predict(bundle_folder: Path, inputs: Path, output: Path, context: Context, *, trusted_task: str | None,
            progress: Progress, policies: Sequence[Policy] = (), origin: Origin | None = None):
    """The manifest of a folder of predictions; needs the bundle and the images, nothing else."""
    from autoseg.stages.predict import run_predict

    require_folder_apart(output, [inputs], "predictions")
    predictor = load_predictor(bundle_folder, context, trusted_task=trusted_task, policies=policies)
    found, units, refused = _units_in(inputs, predictor)
    networks = predictor.bundle.plan.configurations.values()
    require_space(output, prediction_bytes(found.cases, max(c.network.out_channels for c in networks),
                                           probabilities=context.probabilities), "predictions")
    with locked(output, "predict"):
        manifest = run_predict(predictor, units, output, refused=refused, progress=progress)
        record_predictions(output, predictor, manifest, origin or Origin())
    return manifest


def require_folder_apart(output: Path, inputs: Sequence[Path], what: str) -> None:
    """Raises where `output` is one of the inputs, or the folder of one, or cannot be written to; before anything is read."""
    if output.resolve() in {(path if path.is_dir() else path.parent).resolve() for path in inputs}:
        raise UsageError(f"{what} would lie among the images in {output}; name another folder with -o")
    require_writable(output, make=False)


def _units_in(inputs: Path, predictor) -> tuple[Scan, Sequence[Unit], list[Failure]]:
    """What was found among the images, the units of it, and what cannot even be tried."""
    found = list_inputs(predictor.bundle.spec, inputs)
    carried = predictor.bundle.cases
    own = [case for case in found.cases if case.id not in {shared.id for shared in carried}]
    refused = [Failure(problem.case, problem.code, problem.message) for problem in found.problems]
    return found, predictor.task.index(predictor.bundle.spec, (*own, *carried)), refused


def work_with_bundle(verb: BundleVerb, options: Mapping[str, Any], bundle_folder: Path, inputs: Path, output: Path,
                     device: str, *, task: str, progress: Progress, policies: Sequence[Policy] = (),
                     origin: Origin | None = None):
    """The manifest of a folder of what a task's own command makes of images.

    Args:
        options: of the verb's own.
        task: the name under which the verb's task was called; the bundle must be of it.
    """
    from autoseg.stages.verbs import run_verb

    require_folder_apart(output, [inputs], "results")
    predictor = load_predictor(bundle_folder, Context(device=device, engine="torch"), trusted_task=task, policies=policies,
                               of_task=task)
    _, units, refused = _units_in(inputs, predictor)
    with locked(output, verb.name):
        return run_verb(predictor, verb, options, units, output, refused=refused, progress=progress,
                        origin=origin or Origin())


def register(files: PairFiles, output: Path, budget: Budget, context: Context, *, method: str, similarity: str,
             progress: Progress, provenance: Mapping[str, str], origin: Origin | None = None, start: Path | None = None,
             policies: Sequence[Policy] = ()):
    """A single pair, registered without training: `output` receives displacement, transform, what was warped, and a page.

    Args:
        method, similarity: see `tasks.registration.spec.RegistrationOptions`.
        start: a bundle whose features are compared.
        policies: who may have made that bundle.
    """
    from autoseg.stages.single import run_single
    from autoseg.tasks.registration.single import single_pair
    from autoseg.tasks.registration.spec import RegistrationOptions

    require_folder_apart(output, [files.fixed, files.moving], "results")
    options = from_plain({"method": method, "similarity": similarity, "pairs": "table"}, RegistrationOptions,
                         source="autoseg register")
    spec, unit = single_pair(files, options)
    starting = None if start is None else starting_from(start, policies)
    with locked(output, "register"):
        return run_single(load_task(spec.task), spec, unit, output, budget, context=context, progress=progress,
                          provenance=provenance, origin=origin or Origin(), start=starting)


def evaluate(spec: DatasetSpec, predictions: Path, references: Path, *, trusted_task: str | None,
             progress: Progress, output: Path | None = None, origin: Origin | None = None) -> Report:
    """Scores of a folder of predictions against a folder of references; `output` receives them with a manifest."""
    if output is not None:
        folders = [path for path in (predictions, references) if path.is_dir()]  # a table may have its scores beside it
        require_folder_apart(output, folders, "scores")
    report = run_evaluate(load_task(spec.task, trusted=trusted_task), spec, predictions, references, progress=progress)
    if output is not None:
        with locked(output, "evaluate"):
            write_value(output / "scores.json", report)
            record_evaluation(output, predictions, references, origin or Origin())
    return report
