"""The story: every verb as a few stage calls. The one place where a task meets the stages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from autoseg.core.budget import Budget
from autoseg.core.bundle import Bundle
from autoseg.core.case import Unit
from autoseg.core.errors import DatasetError, IncompatibleError, UsageError
from autoseg.core.fingerprint import Fingerprint
from autoseg.core.layout import Layout
from autoseg.core.plan import Configuration, Plan
from autoseg.core.progress import Progress
from autoseg.core.report import Failure, Report
from autoseg.core.spec import DatasetSpec
from autoseg.core.task import Context, PlanRequest, Task
from autoseg.io.atomic import hash_values, remove_leftovers, require_writable, sha256_file
from autoseg.io.bundles import read_bundle
from autoseg.io.dataset import list_inputs, require_no_problems, scan, spec_of_folder
from autoseg.io.done import read_done
from autoseg.io.lock import locked, reading
from autoseg.io.specs import load_spec, read_spec, write_spec
from autoseg.io.store import Store
from autoseg.io.values import from_plain, read_value, write_value
from autoseg.planning.splits import Fold, make_folds
from autoseg.stages.check import Understanding, run_check
from autoseg.stages.evaluate import run_evaluate
from autoseg.stages.fingerprint import digest_unit, run_fingerprint
from autoseg.stages.limits import prediction_bytes, require_space, store_bytes
from autoseg.stages.plan import fits_specification, read_plan, require_same_measurements, run_plan
from autoseg.stages.prepare import grid_hash
from autoseg.stages.preprocess import run_preprocess
from autoseg.stages.summary import make_report
from autoseg.tasks import load_task

# Memory of decompressed cases in one process; a dataset that fits is read from disk once.
STORE_CACHE_BYTES = 2 * 2**30


@dataclass(frozen=True)
class Source:
    """`source.json`: where the images of a dataset are, remembered from the last `-i`."""

    folder: str


@dataclass(frozen=True)
class Workspace:
    """A dataset at work: where it lies, what it is, and who listens to the progress.

    Attributes:
        trusted_task: dotted path of a task outside autoseg that the user named, or None.
    """

    layout: Layout
    spec: DatasetSpec
    data: Path
    progress: Progress
    trusted_task: str | None = None

    @cached_property
    def task(self) -> Task:
        """The task, after its options in the specification were checked."""
        task = load_task(self.spec.task, trusted=self.trusted_task)
        from_plain(self.spec.options, task.options, source=f"options of specification {self.spec.name!r}")
        return task

    @cached_property
    def units(self) -> tuple[Unit, ...]:
        found = scan(self.spec, self.data)
        require_no_problems(found.problems, self.spec)
        return self.task.index(self.spec, found.cases)

    @cached_property
    def sources(self) -> Mapping[str, str]:
        """Digest of the files of each unit, by id."""
        return {unit.id: digest_unit(unit) for unit in self.units}

    @cached_property
    def units_by_id(self) -> Mapping[str, Unit]:
        return {unit.id: unit for unit in self.units}

    @cached_property
    def fingerprint(self) -> Fingerprint:
        path = self.layout.fingerprint / "fingerprint.json"
        if not path.exists():
            raise UsageError(f"dataset {self.spec.name!r} has not been planned below {self.layout.root}",
                             hint=f"autoseg plan_and_preprocess -d {self.spec.name} -i FOLDER")
        made = (read_done(path.parent) or {"outputs": {}})["outputs"].get(path.name)
        if made is not None and sha256_file(path) != made["sha256"]:
            raise IncompatibleError(f"{path} was edited after the dataset was measured", code="E_FINGERPRINT_EDITED",
                                    hint=f"autoseg plan_and_preprocess -d {self.spec.name} measures it anew")
        return read_value(path, Fingerprint)

    def plan(self, name: str) -> Plan:
        """A plan made earlier.

        Raises:
            UsageError: there is none of this name.
            IncompatibleError: it was edited since, or made by a newer autoseg.
        """
        path = self.layout.plan(name) / "plan.json"
        if not path.exists():
            raise UsageError(f"dataset {self.spec.name!r} has no plan {name!r} below {self.layout.root}",
                             hint=f"autoseg plan_and_preprocess -d {self.spec.name}")
        return read_plan(path.parent)

    def folds(self) -> tuple[Fold, ...]:
        """The folds of this dataset: those of `splits.json`, which may be edited.

        A file that nobody edited is made anew when cases came or went; none where all cases are of one patient.

        Raises:
            DatasetError: an edited file and the cases do not fit each other.
        """
        stored = read_value(self.layout.splits, Splits) if self.layout.splits.exists() else None
        if stored is not None and stored.covers({unit.id for unit in self.units}):
            return stored.folds
        if stored is not None and not stored.is_generated:
            raise DatasetError(f"{self.layout.splits} was edited and does not fit the {len(self.units)} cases: every fold "
                               "must hold each case once, in train or in validation",
                               hint="correct the file, or delete it to have it made anew")
        folds = make_folds(self.units) if len({unit.group for unit in self.units}) > 1 else ()
        write_value(self.layout.splits, Splits(folds, hash_values(folds)))
        return folds

    def store(self, plan: Plan, configuration: Configuration) -> Path:
        return self.layout.store(grid_hash(plan, configuration, self.spec, self.fingerprint.spacings_mm))


@dataclass(frozen=True)
class Splits:
    """`splits.json`: unit ids of every fold, and the digest of the folds as they were made."""

    folds: tuple[Fold, ...]
    generated: str = ""

    @property
    def is_generated(self) -> bool:
        """Nobody edited the folds."""
        return hash_values(self.folds) == self.generated

    def covers(self, ids: set[str]) -> bool:
        """Every fold holds each of the ids once."""
        return bool(self.folds) and all(
            sorted((*fold.train, *fold.validation)) == sorted(ids) for fold in self.folds)


def open_workspace(root: Path, dataset: str, data: Path | None, progress: Progress,
                   trusted_task: str | None = None) -> Workspace:
    """The workspace of a dataset, from a spec's name, a spec file, or a folder that explains itself.

    The folder with the images is `data`, else the one used last, else `<root>/raw/<name>`.
    """
    remembered = root / dataset / "spec.yaml"
    is_name = Path(dataset).name == dataset  # a path is a specification or a folder, never what was planned before
    is_remembered = data is None and is_name and remembered.exists()
    spec = read_spec(remembered) if is_remembered else load_spec(dataset, data_folder=data)
    layout = Layout(root, spec.name)
    if data is None and (Path(dataset) / "dataset.json").is_file() and not is_remembered:
        data = Path(dataset)
    if data is None and layout.source.exists():
        data = Path(read_value(layout.source, Source).folder)
    data = data or root / "raw" / spec.name
    trusted = trusted_task or (spec.task if Path(dataset).is_file() else None)
    return Workspace(layout, spec_of_folder(spec, data), data.resolve(), progress, trusted)


def remember(workspace: Workspace) -> None:
    """Writes specification and source folder, so that later commands need neither."""
    if not workspace.data.is_dir():
        raise UsageError(f"the folder {workspace.data} with the images of {workspace.spec.name!r} does not exist",
                         hint=f"autoseg plan_and_preprocess -d {workspace.spec.name} -i FOLDER")
    tidy(workspace)
    write_spec(workspace.layout.spec, workspace.spec)
    write_value(workspace.layout.source, Source(str(workspace.data)))
    write_value(workspace.layout.root / "last.json", {"dataset": workspace.spec.name})


def tidy(workspace: Workspace) -> None:
    """Removes the temporary files that killed commands left; those of running ones stay."""
    remove_leftovers(workspace.layout.root)
    remove_leftovers(workspace.layout.folder, recursive=True)


def check(workspace: Workspace, *, executor: Executor | None) -> Understanding:
    """What is understood of the dataset's folder, and every problem."""
    found = scan(workspace.spec, workspace.data)
    units = workspace.task.index(workspace.spec, found.cases)
    return run_check(workspace.task, workspace.spec, found, units, workspace.data, executor=executor,
                     progress=workspace.progress)


def plan(workspace: Workspace, budget: Budget, request: PlanRequest, *, executor: Executor | None,
         keep_memory: bool = False) -> Plan:
    """Fingerprint, folds and plan; `keep_memory` takes the memory of an earlier plan of this name, where there is one."""
    units = workspace.units
    with locked(workspace.layout.folder, "plan"):
        remember(workspace)
        fingerprint = run_fingerprint(workspace.task, workspace.spec, units, workspace.layout.fingerprint,
                                      executor=executor, progress=workspace.progress)
        workspace.folds()
        return run_plan(workspace.task, workspace.spec, units, fingerprint, budget, request,
                        workspace.layout.plan(request.name), keep_memory=keep_memory)


def preprocess(workspace: Workspace, plan: Plan, configurations: Sequence[str], *,
               executor: Executor | None) -> list[Path]:
    """Stores of the named configurations (all of the plan if none is named)."""
    folders = []
    with locked(workspace.layout.folder, "preprocess"):
        for name in configurations or plan.configurations:
            configuration = plan.configuration(name)
            folders.append(workspace.store(plan, configuration))
            require_space(folders[-1], store_bytes(workspace.fingerprint, plan, configuration), f"the store of {name!r}")
            run_preprocess(workspace.task, workspace.spec, workspace.units, plan, configuration, folders[-1],
                           executor=executor, progress=workspace.progress)
    return folders


def train(workspace: Workspace, plan: Plan, configuration: str, folds: str, *, device: str, workers: int,
          should_stop: Callable[[], bool]) -> dict[str, Report]:
    """Validation reports of the asked folds, each with the baseline on the same fold; then the bundle."""
    from autoseg.stages.baseline import run_baseline
    from autoseg.stages.train import run_train

    tidy(workspace)
    reports = {}
    for name in fold_names(workspace, folds):
        with reading(workspace.store(plan, plan.configuration(configuration)), "train"):
            run = make_run(workspace, plan, configuration, name)
            with locked(run.folder, "train"):
                reports[name] = run_train(run, device=device, workers=workers, progress=workspace.progress,
                                          should_stop=should_stop)
        if name != "all":
            run_baseline(workspace.task, workspace.spec, workspace.units_by_id, run.fold,
                         hash_values(workspace.fingerprint), workspace.layout.baseline(name), seed=plan.seed,
                         progress=workspace.progress, should_stop=should_stop)
    return reports


def fold_names(workspace: Workspace, folds: str) -> list[str]:
    """Names of the folds that `-f` means: a number, several with commas, `missing` (all five in turn) or `all`."""
    known = [str(number) for number in range(len(workspace.folds()))]
    if not known and folds != "all":
        raise DatasetError(f"all cases of {workspace.spec.name!r} are of one patient, so no fold can be validated",
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
    changed = [name for name, digest in workspace.sources.items() if not store.has_case(name, digest)]
    if changed:
        raise IncompatibleError(f"{len(changed)} case(s) changed or were damaged after they were preprocessed "
                                f"({', '.join(changed[:3])})", code="E_CASES_CHANGED",
                                hint=f"autoseg plan_and_preprocess -d {workspace.spec.name}")
    ids = tuple(unit.id for unit in workspace.units)
    fold = Fold(ids, ()) if fold_name == "all" else workspace.folds()[int(fold_name)]
    return Run(workspace.task, workspace.spec, plan, configuration, fold, fold_name, workspace.units_by_id,
               workspace.sources, store, workspace.layout.run(plan.name, configuration_name, fold_name))


def select(workspace: Workspace, plan: Plan, context: Context | None = None) -> Bundle:
    """The bundle of all finished runs of a plan; ways to predict are compared with the device and engine of `context`."""
    from autoseg.stages.select import run_select

    runs = all_runs(workspace, plan)
    with ExitStack() as held:
        for folder in {run.run.store.folder for run in runs}:
            held.enter_context(reading(folder, "select"))
        held.enter_context(locked(workspace.layout.bundle(plan.name), "select"))
        return run_select(workspace.task, workspace.spec, plan, workspace.fingerprint, workspace.units_by_id, runs,
                          workspace.layout.bundle(plan.name), fold_count=len(workspace.folds()),
                          baseline=baseline_report(workspace, runs), context=context or Context(), progress=workspace.progress)


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

    Args:
        provenance: versions, command and whatever else says how the results were made.
    """
    from autoseg.stages.report import run_report

    require_writable(workspace.layout.folder)
    runs = all_runs(workspace, plan)
    return run_report(workspace.task, workspace.spec, plan, workspace.fingerprint, workspace.units_by_id, runs,
                      baseline_report(workspace, runs), workspace.layout, provenance)


def load_predictor(bundle_folder: Path, context: Context | None = None, *, trusted_task: str | None = None):
    """A `Predictor` with a bundle's networks in memory; needs the bundle's folder, nothing else.

    Example:
        >>> predictor = load_predictor(Path("autoseg_home/Hippocampus/bundles/default"))          # doctest: +SKIP
        >>> predictor.predict_array(voxels, spacing_mm=(1.0, 1.0, 1.0)).label                     # doctest: +SKIP
    """
    from autoseg.stages.predict import Predictor

    bundle = read_bundle(bundle_folder)
    return Predictor.load(bundle_folder, bundle, load_task(bundle.spec.task, trusted=trusted_task), context or Context())


def predict(bundle_folder: Path, inputs: Path, output: Path, context: Context, *, trusted_task: str | None,
            progress: Progress):
    """The manifest of a folder of predictions; needs the bundle and the images, nothing else."""
    from autoseg.stages.predict import run_predict

    if output.resolve() == (inputs if inputs.is_dir() else inputs.parent).resolve():
        raise UsageError(f"predictions would overwrite the images in {inputs}; name another folder with -o")
    require_writable(output)  # before seconds of loading networks
    predictor = load_predictor(bundle_folder, context, trusted_task=trusted_task)
    found = list_inputs(predictor.bundle.spec, inputs)
    refused = [Failure(problem.case, problem.code, problem.message) for problem in found.problems]
    networks = predictor.bundle.plan.configurations.values()
    require_space(output, prediction_bytes(found.cases, max(c.network.out_channels for c in networks),
                                           probabilities=context.probabilities), "predictions")
    with locked(output, "predict"):
        return run_predict(predictor, found.cases, output, refused=refused, progress=progress)


def evaluate(spec: DatasetSpec, predictions: Path, references: Path, *, trusted_task: str | None,
             progress: Progress) -> Report:
    """Scores of a folder of predictions against a folder of references."""
    return run_evaluate(load_task(spec.task, trusted=trusted_task), spec, predictions, references, progress=progress)
