"""The verbs of the command line: each reads options, calls the pipeline and shows what came out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from autoseg.cli import bundles, catalogue, pairs, show
from autoseg.cli.audit import origin
from autoseg.cli.bundles import BundleFolder, Trust, bundle_folder, named_bundle, policies
from autoseg.cli.options import (
    AsJson,
    Configurations,
    DataFolder,
    Dataset,
    DeviceName,
    EngineName,
    Jobs,
    Memory,
    Minutes,
    PlanName,
    PrecisionName,
    Root,
    StartFrom,
    Target,
    TaskPath,
    TileStep,
    Tta,
)
from autoseg.cli.run import last_plan, make_budget, open_dataset, root_folder, start, stop_signal, workers
from autoseg.cli.screen import versions

if TYPE_CHECKING:
    from autoseg.core.plan import Plan
    from autoseg.core.task import Context, PlanRequest
    from autoseg.workspace import Workspace


def datasets(name: Annotated[str | None, typer.Argument(help="Show this one in full: a name, a specification (.yaml), or a "
                                                        "folder with a dataset.json.")] = None,
             as_json: AsJson = False) -> None:
    """List the specifications that autoseg knows, or show one in full: source, licence, labels, layouts."""
    from autoseg.io.specs import known_specs, load_spec, read_spec

    screen = start("datasets", as_json)
    if name is not None:
        specs = [load_spec(name)]
        catalogue.in_full(screen, specs[0])
    else:
        specs = [read_spec(path) for path in known_specs().values()]
        catalogue.overview(screen, specs)
    screen.finish(datasets=specs)


def init(folder: Annotated[Path, typer.Argument(help="A folder with images and label maps, in any arrangement.")],
         output: Annotated[Path | None, typer.Option("-o", "--output", help="The file to write; default: NAME.yaml.")] = None,
         name: Annotated[str | None, typer.Option("--name", help="Of the dataset; default: the folder's.")] = None,
         as_json: AsJson = False) -> None:
    """Look at an unknown folder and write a first specification; what the files do not say is marked with '# ?'."""
    from autoseg.core.errors import UsageError
    from autoseg.io.atomic import require_writable, write_text
    from autoseg.io.initial import proposal_text, propose_spec

    screen = start("init", as_json)
    require_writable(Path() if output is None else output.parent)
    proposal = propose_spec(folder, name=name)
    path = output or Path(f"{proposal.spec.name}.yaml")
    if path.exists():
        raise UsageError(f"{path} exists and is not overwritten; name another file with -o, or delete it",
                         hint=f"autoseg check -d {path} -i {folder}")
    text = proposal_text(proposal, folder)
    write_text(path, text)
    show.proposal(screen, proposal, text, path, folder)
    screen.finish(specification=path, spec=proposal.spec, found=proposal.found)


def check(dataset: Dataset = None, data: DataFolder = None, root: Root = None, task: TaskPath = None,
          jobs: Jobs = None, as_json: AsJson = False) -> int:
    """Show what is understood of a dataset's folder, and every problem in it. Writes nothing."""
    from autoseg import pipeline

    screen = start("check", as_json)
    workspace = open_dataset(screen, root, dataset, data, task)
    with workers(jobs or 1, workspace) as executor:  # one: a folder with problems has no units to count
        understood = pipeline.check(workspace, executor=executor)
    show.understanding(screen, understood)
    code = 3 if understood.problems else 0
    screen.finish("invalid" if code else "ok", code, understood=understood.lines, problems=show.by_case(understood.problems),
                  warnings=show.by_case(understood.warnings), ignored=understood.ignored)
    return code


def plan(dataset: Dataset = None, data: DataFolder = None, target: Target = None, memory: Memory = None,
         minutes: Minutes = None, configuration: Configurations = None, plan: PlanName = None, seed: show.Seed = 0,
         explain: Annotated[bool, typer.Option("--explain", help="Every planned value: from what, why, by which "
                                               "rule.")] = False,
         start_from: StartFrom = None, root: Root = None, task: TaskPath = None, jobs: Jobs = None,
         as_json: AsJson = False) -> None:
    """Measure the dataset and plan: preprocessing, patch, network, schedule. Nothing is preprocessed."""
    screen = start("plan", as_json, root_folder(root))
    workspace = open_dataset(screen, root, dataset, data, task)
    asked = any(option is not None for option in (data, target, memory, minutes, configuration, plan, start_from)) or seed
    from autoseg.stages.plan import fits_specification

    earlier = last_plan(workspace)
    if explain and not asked and (workspace.layout.plan(earlier) / "plan.json").exists() and fits_specification(
            workspace.plan(earlier), workspace.spec):
        made = workspace.plan(earlier)
    else:
        made = make_plan(workspace, target, memory, minutes, configuration, plan, seed, jobs, start_from)
        screen.made["plan"] = workspace.layout.plan(made.name) / MANIFEST
    if explain:
        show.explanation(screen, made)
    else:
        show.plan(screen, made)
    screen.finish(plan=made)


def plan_and_preprocess(dataset: Dataset = None, data: DataFolder = None, target: Target = None, memory: Memory = None,
                        minutes: Minutes = None, configuration: Configurations = None, plan: PlanName = None,
                        seed: show.Seed = 0, start_from: StartFrom = None, root: Root = None, task: TaskPath = None,
                        jobs: Jobs = None, as_json: AsJson = False) -> None:
    """Measure the dataset, plan, and bring every case to the planned grid. Resumes; unchanged cases are skipped."""
    screen = start("plan_and_preprocess", as_json, root_folder(root))
    workspace = open_dataset(screen, root, dataset, data, task)
    made = make_plan(workspace, target, memory, minutes, configuration, plan, seed, jobs, start_from)
    preprocess(workspace, made, configuration, jobs)
    screen.made["plan"] = workspace.layout.plan(made.name) / MANIFEST
    show.plan(screen, made)
    screen.say(f"\nnext: autoseg train -d {workspace.spec.name}")
    screen.finish(plan=made)


def train(dataset: Dataset = None, configuration: Annotated[str | None, typer.Option(
              "-c", "--configuration", help="Default: 3d_fullres where planned, else the first.")] = None,
          fold: Annotated[str, typer.Option("-f", "--fold", help="A fold (0 to 4; several with commas), missing: every "
                                            "fold that is not there yet, all: one model on all data.")] = "missing",
          plan: PlanName = None, minutes: Minutes = None, target: Target = None, memory: Memory = None,
          device: DeviceName = None, jobs: Jobs = None, root: Root = None, task: TaskPath = None,
          as_json: AsJson = False) -> None:
    """Train folds, validate them on whole cases, and write the bundle. Resumes after any interruption."""
    from autoseg import pipeline

    screen = start("train", as_json, root_folder(root))
    workspace = open_dataset(screen, root, dataset, None, task)
    if minutes is None:
        made = workspace.plan(plan or last_plan(workspace))
    else:
        made = make_plan(workspace, target, memory, minutes, None, plan, 0, jobs)
        preprocess(workspace, made, [configuration or default_configuration(made)], jobs)
    reports = train_folds(workspace, made, configuration, fold, device, jobs)
    bundle = pipeline.select(workspace, made, prediction_context(device or made.budget.target))
    page = pipeline.report(workspace, made, provenance(made))
    screen.made |= vouching(workspace, made)
    show.training(screen, workspace.task, reports, bundle, workspace.layout.bundle(made.name), page)
    screen.finish(folds=reports, bundle=workspace.layout.bundle(made.name), report=page)


def predict(source: Annotated[Path, typer.Option("-i", "--input", help="A folder of images, or one image.")],
            output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the predictions.")],
            dataset: Dataset = None,
            bundle: BundleFolder = None, trust: Trust = None, plan: PlanName = None, tta: Tta = None,
            save_probabilities: Annotated[bool, typer.Option("--save-probabilities", help="Also write the probability of "
                                                             "every class; takes 4 bytes of memory per class and voxel.")
                                        ] = False,
            engine: EngineName = "auto", tile_step: TileStep = None, precision: PrecisionName = None,
            device: DeviceName = None, root: Root = None, task: TaskPath = None, as_json: AsJson = False) -> int:
    """Predict a folder of images with a bundle. Finished cases are skipped; a bad one does not stop the others."""
    from autoseg import pipeline

    screen = start("predict", as_json, root_folder(root), output)
    context = prediction_context(device, tta, save_probabilities, engine, tile_step, precision)
    folder = bundle_folder(screen, bundle, root, dataset, plan, task)
    manifest = pipeline.predict(folder, source, output, context, trusted_task=task, progress=screen.progress,
                                policies=policies(root, trust), origin=origin())
    screen.made["predictions"] = output / MANIFEST
    code = 4 if manifest.failures else 0
    show.predictions(screen, manifest, output)
    screen.finish("partial" if code else "ok", code, output=output, cases=manifest.finished, failures=manifest.failures)
    return code


def evaluate(predictions: Annotated[Path, typer.Option("-p", "--predictions", help="Folder of predictions.")],
             labels: Annotated[Path, typer.Option("-l", "--labels", help="Folder of references, or a table of them.")],
             output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder for scores.json and its manifest; "
                                                         "default: nothing is written.")] = None,
             dataset: Dataset = None, root: Root = None, task: TaskPath = None, as_json: AsJson = False) -> int:
    """Score predictions against references, with intervals: Dice, surface Dice, HD95 and volumes of a segmentation; AUC, rates at
    the threshold and calibration of a classification, agreement of values."""
    from autoseg import pipeline

    screen = start("evaluate", as_json, root_folder(root) if output else None, output)
    workspace = open_dataset(screen, root, dataset, None, task)
    report = pipeline.evaluate(workspace.spec, predictions, labels, trusted_task=task, progress=screen.progress,
                               output=output, origin=origin())
    if output is not None:
        screen.made["scores"] = output / MANIFEST
    show.report(screen, report, workspace.task.notes(workspace.spec))
    code = 4 if report.failures else 0
    screen.finish("partial" if code else "ok", code, summary=report.summary, per_patient=report.per_patient,
                  cases=report.records, failures=report.failures)
    return code


def report(dataset: Dataset = None, plan: PlanName = None, root: Root = None, task: TaskPath = None,
           as_json: AsJson = False) -> None:
    """Write the report page of a plan's finished runs: scores, pictures, curves, plan, baseline."""
    from autoseg import pipeline

    screen = start("report", as_json, root_folder(root))
    workspace = open_dataset(screen, root, dataset, None, task)
    made = workspace.plan(plan or last_plan(workspace))
    page = pipeline.report(workspace, made, provenance(made))
    screen.made |= vouching(workspace, made)
    screen.say(str(page))
    screen.finish(report=page)


def fit(dataset: Dataset = None, data: DataFolder = None, minutes: Minutes = None, target: Target = None,
        memory: Memory = None, configuration: Annotated[str | None, typer.Option(
            "-c", "--configuration", help="Default: 3d_fullres where the dataset allows it.")] = None,
        fold: Annotated[str, typer.Option("-f", "--fold", help="Folds to train, as in autoseg train; --minutes is for "
                                          "each of them.")] = "0",
        plan: PlanName = None, seed: show.Seed = 0, jobs: Jobs = None, root: Root = None, task: TaskPath = None,
        as_json: AsJson = False) -> None:
    """All in one go: measure, plan, preprocess, train, select, report."""
    from autoseg import pipeline

    screen = start("fit", as_json, root_folder(root))
    workspace = open_dataset(screen, root, dataset, data, task)
    wanted = [configuration] if configuration else None
    made = make_plan(workspace, target, memory, minutes, wanted, plan, seed, jobs)
    chosen = configuration or default_configuration(made)
    preprocess(workspace, made, [chosen], jobs)
    reports = train_folds(workspace, made, chosen, fold, None, jobs)
    bundle = pipeline.select(workspace, made, prediction_context(made.budget.target))
    page = pipeline.report(workspace, made, provenance(made))
    screen.made |= vouching(workspace, made)
    show.training(screen, workspace.task, reports, bundle, workspace.layout.bundle(made.name), page)
    screen.say(f"\nnext: autoseg predict -d {workspace.spec.name} -i FOLDER -o OUT")
    screen.finish(folds=reports, bundle=workspace.layout.bundle(made.name), report=page)


def task(context: typer.Context,
         name: Annotated[str, typer.Argument(help="A task of autoseg, or the dotted module path of your own; it runs code.")],
         ) -> int:
    """Run an extra command of a task: autoseg task NAME COMMAND ...; with --help after NAME, the commands there are."""
    from autoseg.cli.extra import mounted
    from autoseg.core.errors import UsageError
    from autoseg.core.verb import BundleVerb
    from autoseg.tasks import load_task

    screen = start("task", as_json=False)
    loaded = load_task(name, trusted=name)
    if not loaded.verbs:
        raise UsageError(f"task {name!r} has no commands of its own", hint="autoseg --help lists those of every task")
    commands = typer.Typer(name=f"autoseg task {name}", no_args_is_help=True, pretty_exceptions_enable=False)
    commands.callback()(lambda: None)
    for verb in loaded.verbs:
        run = mounted(verb, name) if isinstance(verb, BundleVerb) else verb.run
        commands.command(name=verb.name, help=verb.help)(run)
    result = commands(context.args, prog_name=f"autoseg task {name}", standalone_mode=False)
    if isinstance(result, str):
        screen.say(result)
    return result if isinstance(result, int) else 0


RULE_BOOKS = ("default", "nnunet")
# As `io.manifests` calls it, which nobody who asks for help waits for.
MANIFEST = "manifest.json"
VERBS = (datasets, init, check, plan, plan_and_preprocess, train, predict, evaluate, report, fit, pairs.register, *bundles.VERBS,
         task)


def make_plan(workspace: Workspace, target: str | None, memory: str | None, minutes: float | None,
              configurations: list[str] | None, plan_name: str | None, seed: int, jobs: int | None,
              start_from: Path | None = None) -> Plan:
    """The plan for these options; its name is remembered as the dataset's last."""
    from autoseg import pipeline
    from autoseg.io.values import write_value

    request = plan_request(plan_name, minutes, configurations, seed)
    if start_from is not None:
        start_from = named_bundle(start_from, workspace.layout.root)
        request = replace(request, name=plan_name or f"{request.name}_started")  # not to overwrite the plan without a start
    with workers(jobs, workspace) as executor:
        made = pipeline.plan(workspace, make_budget(target, memory, minutes), request, executor=executor,
                             keep_memory=memory is None, start=start_from, policies=policies(workspace.layout.root, None))
    write_value(workspace.layout.folder / "last.json", {"plan": made.name})
    return made


def plan_request(plan_name: str | None, minutes: float | None, configurations: list[str] | None,
                 seed: int) -> PlanRequest:
    """Name and rule book: a time budget gives a plan of its own name, so that plans do not overwrite each other."""
    import difflib
    import logging

    from autoseg.core.errors import UsageError
    from autoseg.core.task import PlanRequest
    from autoseg.io.layouts import is_safe_id

    rules = "nnunet" if plan_name == "nnunet" else "default"
    name = plan_name or ("default" if minutes is None else f"{minutes:g}min")
    near = difflib.get_close_matches(name.lower(), RULE_BOOKS, n=1, cutoff=0.7)
    if not is_safe_id(name) or (near and name not in RULE_BOOKS):
        meant = f"; did you mean {near[0]!r}?" if near else ": letters, digits, '.', '_' and '-' only"
        raise UsageError(f"a plan cannot be called {name!r}{meant}")
    if rules == "nnunet" and minutes is not None:
        logging.getLogger(__name__).warning(
            "--plan nnunet trains 250,000 iterations, as nnU-Net does; the %g minutes are not obeyed", minutes)
    if seed:
        name += f"_seed{seed}"
    return PlanRequest(name, rules, tuple(configurations or ()), seed)


def default_configuration(plan: Plan) -> str:
    """3d_fullres where it is planned, else the first configuration."""
    return "3d_fullres" if "3d_fullres" in plan.configurations else next(iter(plan.configurations))


def preprocess(workspace: Workspace, plan: Plan, configurations: list[str] | None, jobs: int | None) -> None:
    """Preprocesses configurations of a plan."""
    from autoseg import pipeline

    chosen = [plan.configuration(name) for name in configurations or plan.configurations]
    with workers(jobs, workspace, chosen) as executor:
        pipeline.preprocess(workspace, plan, configurations or (), executor=executor)


def train_folds(workspace: Workspace, plan: Plan, configuration: str | None, fold: str, device: str | None,
                jobs: int | None) -> dict[str, Any]:
    """Trains folds until they are done or a signal comes."""
    from autoseg import pipeline
    from autoseg.training.device import detect_device

    address = detect_device(device or plan.budget.target).address
    loaders = 0 if address == "cpu" else jobs or max(1, detect_device("cpu").threads - 1)
    with stop_signal() as should_stop:
        return pipeline.train(workspace, plan, configuration or default_configuration(plan), fold, device=address,
                              workers=loaders, should_stop=should_stop)


def vouching(workspace: Workspace, plan: Plan) -> dict[str, Path]:
    """The files that vouch for a plan, its bundle and the report page."""
    layout = workspace.layout
    return {"plan": layout.plan(plan.name) / MANIFEST, "bundle": layout.bundle(plan.name) / "bundle.json",
            "report": layout.report.parent / MANIFEST}


def provenance(plan: Plan) -> dict[str, str]:
    """How the results were made, for the page: versions, machine, plan."""
    from autoseg.io.atomic import hash_values

    return {**versions(), "plan": f"{plan.name}, digest {hash_values(plan)[:16]}",
            "trained for": f"{plan.budget.target}: {plan.budget.device}, {plan.budget.threads} threads"}


def mirroring(tta: str | None) -> bool | None:
    """True, False or as planned, from `--tta`."""
    from autoseg.core.errors import choose

    return None if tta is None else choose({"none": False, "mirror": True}, tta, "--tta")


def prediction_context(device: str | None, tta: str | None = None, probabilities: bool = False, engine: str = "auto",
                       tile_step: float | None = None, precision: str | None = None) -> Context:
    """How to predict, from the command line.

    Raises:
        UsageError: an option has a value that it cannot have.
    """
    from autoseg.core.errors import UsageError, choose
    from autoseg.core.plan import Precision
    from autoseg.core.task import Context, Engine
    from autoseg.training.device import detect_device

    if tile_step is not None and not 0 < tile_step <= 1:
        raise UsageError(f"--tile-step {tile_step:g} is not above 0 and at most 1; 0.5 lets neighbouring windows overlap by half")
    chosen = choose({name: name for name in get_args(Engine)}, engine, "--engine")
    wanted = None if precision is None else choose({name: name for name in get_args(Precision)}, precision, "--precision")
    return Context(detect_device(device or "auto").address, mirroring(tta), probabilities, chosen, tile_step, wanted)
