"""Commands of tasks that work on images with a bundle: their own options beside those that all of them have."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin, get_type_hints

import typer

from autoseg.cli import show
from autoseg.cli.audit import origin
from autoseg.cli.bundles import BundleFolder, Trust, bundle_folder, policies
from autoseg.cli.options import AsJson, Dataset, DeviceName, PlanName, Root
from autoseg.cli.run import root_folder, start

if TYPE_CHECKING:
    from autoseg.core.verb import BundleVerb


def mounted(verb: BundleVerb, task: str) -> Callable[..., int]:
    """The function of a command: the options that all have, and the parameters of the verb as further ones."""
    own = _options(verb)

    def run(source: Annotated[Path, typer.Option("-i", "--input", help="A folder of images, or one image.")],
            output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the results.")],
            dataset: Dataset = None, bundle: BundleFolder = None, trust: Trust = None, plan: PlanName = None,
            device: DeviceName = None, root: Root = None, as_json: AsJson = False, **given: Any) -> int:
        from autoseg import pipeline
        from autoseg.io.manifests import MANIFEST
        from autoseg.training.device import detect_device

        screen = start(f"task {verb.name}", as_json, root_folder(root), output)
        folder = bundle_folder(screen, bundle, root, dataset, plan, None if task.isidentifier() else task)
        manifest = pipeline.work_with_bundle(verb, given, folder, source, output,
                                             detect_device(device or "auto").address, task=task, progress=screen.progress,
                                             policies=policies(root, trust), origin=origin())
        screen.made[verb.name] = output / MANIFEST
        code = 4 if manifest.failures else 0
        screen.say(f"{len(manifest.finished)} case(s) in {output}")
        screen.say(verb.tell(manifest.rows))
        show.failures(screen, manifest.failures)
        screen.finish("partial" if code else "ok", code, output=output, rows=manifest.rows, failures=manifest.failures)
        return code

    common = [parameter for parameter in inspect.signature(run).parameters.values() if parameter.kind != parameter.VAR_KEYWORD]
    hints = get_type_hints(run, include_extras=True)
    common = [parameter.replace(annotation=hints[parameter.name]) for parameter in common]
    run.__signature__ = inspect.Signature([*common, *own], return_annotation=int)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in [*common, *own]} | {"return": int}
    return run


def _options(verb: BundleVerb) -> list[inspect.Parameter]:
    """The verb's own parameters as options; the text in an `Annotated` is the help of one."""
    hints = get_type_hints(verb.begin, include_extras=True)
    found = []
    for parameter in inspect.signature(verb.begin).parameters.values():
        hint: Any = hints[parameter.name]
        kind, notes = (get_args(hint)[0], get_args(hint)[1:]) if get_origin(hint) is Annotated else (hint, ())
        name = parameter.name.strip("_").replace("_", "-")
        flag = f"--{name}/--no-{name}" if kind is bool else f"--{name}"
        annotation: Any = Annotated[kind, typer.Option(flag, help=next((note for note in notes if isinstance(note, str)), ""))]
        found.append(parameter.replace(annotation=annotation, kind=inspect.Parameter.KEYWORD_ONLY))
    return found
