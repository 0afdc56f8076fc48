"""A dataset at work: its folder, specification, cases, and what earlier commands made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

from autoseg.core.case import Unit, single_units
from autoseg.core.errors import IncompatibleError, UsageError, unknown_name
from autoseg.core.fingerprint import Fingerprint
from autoseg.core.layout import Layout
from autoseg.core.plan import Configuration, Plan
from autoseg.core.progress import Progress
from autoseg.core.provenance import Origin
from autoseg.core.spec import DatasetSpec
from autoseg.core.task import Task
from autoseg.core.text import has_control_characters
from autoseg.io.atomic import remove_leftovers, sha256_file
from autoseg.io.dataset import require_no_problems, scan, spec_of_folder
from autoseg.io.done import read_done
from autoseg.io.specs import load_spec, read_spec, write_spec
from autoseg.io.values import from_plain, read_value, write_value
from autoseg.planning.splits import Fold
from autoseg.stages.fingerprint import COPIES, digest_unit, join_digests
from autoseg.stages.folds import dataset_folds
from autoseg.stages.plan import read_made_plan
from autoseg.stages.prepare import grid_hash
from autoseg.tasks import load_task


@dataclass(frozen=True)
class Source:
    """`source.json`: where the images of a dataset are, remembered from the last `-i`."""

    folder: str


@dataclass(frozen=True)
class Workspace:
    """A dataset at work: where it lies, what it is, and who listens to the progress.

    Attributes:
        trusted_task: dotted path of a task outside autoseg that the user named, or None.
        origin: the command and the versions, for the manifests of what is written.
    """

    layout: Layout
    spec: DatasetSpec
    data: Path
    progress: Progress
    trusted_task: str | None = None
    origin: Origin = Origin()

    @cached_property
    def task(self) -> Task:
        """The task, after its options in the specification were checked."""
        task = load_task(self.spec.task, trusted=self.trusted_task)
        require_known_options(self.spec, task)
        return task

    @cached_property
    def units(self) -> tuple[Unit, ...]:
        found = scan(self.spec, self.data)
        require_no_problems(found.problems, self.spec, self.data)
        return self.task.index(self.spec, found.cases)

    @cached_property
    def case_sources(self) -> Mapping[str, str]:
        """Digest of each case, by id."""
        return {unit.id: digest_unit(unit) for unit in single_units(self.units)}

    @cached_property
    def sources(self) -> Mapping[str, str]:
        """Digest of each unit, by id."""
        return {unit.id: join_digests([self.case_sources[case.id] for case in unit.cases]) for unit in self.units}

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
        plan = read_made_plan(path.parent)
        if (plan.dataset, plan.task) != (self.spec.name, self.spec.task):
            raise IncompatibleError(f"{path} says that it is a plan of {plan.dataset!r} for task {plan.task!r}, and one of "
                                    f"{self.spec.name!r} for task {self.spec.task!r} is expected",
                                    hint=f"autoseg plan_and_preprocess -d {self.spec.name}")
        return plan

    def folds(self) -> tuple[Fold, ...]:
        """The folds of this dataset, see `stages.folds`."""
        return dataset_folds(self.layout.splits, self.units, self.copies)

    @cached_property
    def copies(self) -> tuple[tuple[str, ...], ...]:
        """Sets of cases with the same image, as the fingerprint found them."""
        path = self.layout.fingerprint / COPIES
        return read_value(path, tuple[tuple[str, ...], ...]) if path.exists() else ()

    def store(self, plan: Plan, configuration: Configuration) -> Path:
        return self.layout.store(grid_hash(plan, configuration, self.spec, self.fingerprint.spacings_mm))


def open_workspace(root: Path, dataset: str, data: Path | None, progress: Progress,
                   trusted_task: str | None = None) -> Workspace:
    """The workspace of a dataset, from a spec's name, a spec file, or a folder that explains itself.

    The folder with the images is `data`, else the one used last, else `<root>/raw/<name>`.
    """
    remembered = root / dataset / "spec.yaml"
    is_name = Path(dataset).name == dataset  # a path is a specification or a folder, never what was planned before
    is_remembered = data is None and is_name and remembered.exists()
    if data is not None and has_control_characters(str(data.absolute())):
        raise UsageError(f"the folder {str(data)!r} has control characters in its name, or is not UTF-8; rename it")
    spec = read_spec(remembered) if is_remembered else load_spec(dataset, data_folder=data)
    layout = Layout(root, spec.name)
    if data is None and (Path(dataset) / "dataset.json").is_file() and not is_remembered:
        data = Path(dataset)
    if data is None and layout.source.exists():
        data = Path(read_value(layout.source, Source).folder)
    data = data or root / "raw" / spec.name
    trusted = trusted_task or (spec.task if Path(dataset).is_file() else None)
    return Workspace(layout, spec_of_folder(spec, data), data.resolve(), progress, trusted)


def require_known_options(spec: DatasetSpec, task: Task) -> None:
    """Raises an IncompatibleError where the options of a specification are not those that the task knows."""
    source = f"options of specification {spec.name!r}"
    names = {kind: [entry.name for entry in fields(kind)] for kind in task.option_types}
    known = [name for own in names.values() for name in own]
    unknown = [unknown_name(key, known, "key") for key in spec.options if key not in known]
    if unknown:
        raise IncompatibleError(f"{source}: {'; '.join(unknown)}")
    for kind, own in names.items():
        from_plain({key: value for key, value in spec.options.items() if key in own}, kind, source=source)


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
