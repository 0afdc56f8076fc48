"""A command of a task that works on images with a bundle: on every unit of a folder, or on units of validation for the report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from autoseg.core.case import Unit
from autoseg.core.plan import Configuration, Plan
from autoseg.core.progress import Progress
from autoseg.core.provenance import Manifest, Origin
from autoseg.core.report import Failure, Record
from autoseg.core.spec import DatasetSpec
from autoseg.core.task import Context, Inputs, Picture, Task
from autoseg.core.verb import BundleVerb, Made, Opened
from autoseg.inference.engine import in_use
from autoseg.io.atomic import hash_values, sha256_file
from autoseg.io.images import unchanged
from autoseg.io.manifests import write_manifest
from autoseg.io.spreadsheet import cell, write_table
from autoseg.nn.weights import load_weights
from autoseg.stages.fingerprint import unit_files
from autoseg.stages.predict import UNIT_COLUMN, Predictor
from autoseg.stages.prepare import prepare_inputs, read_inputs
from autoseg.stages.trained import Trained, weights_of
from autoseg.stages.units import input_digests, work_through

Work = Callable[[Unit, Inputs, Path], Made]


@dataclass(frozen=True)
class WorkedUnit:
    """A finished unit: digests of what went in and of what came out, and its rows of the table."""

    inputs: dict[str, str]
    outputs: dict[str, str]
    rows: tuple[dict[str, str], ...] = ()


@dataclass(frozen=True)
class VerbManifest:
    """What a folder was made with, and which units are finished.

    Attributes:
        made_with: digest of the bundle, the command and its options.
    """

    made_with: str
    finished: dict[str, WorkedUnit] = field(default_factory=dict)
    failures: tuple[Failure, ...] = ()

    @property
    def rows(self) -> tuple[dict[str, str], ...]:
        """Rows of all finished units, each with its unit."""
        return tuple({UNIT_COLUMN: name, **row} for name, found in self.finished.items() for row in found.rows)


def run_verb(predictor: Predictor, verb: BundleVerb, options: Mapping[str, Any], units: Sequence[Unit], folder: Path, *,
             refused: Sequence[Failure], progress: Progress, origin: Origin) -> VerbManifest:
    """Does the verb's work on every unit, into `folder/<unit>`; as `run_predict`, with `<verb>.json` and `<verb>.csv`.

    Args:
        predictor: whose context asks for torch.
        options: of the verb's own.
    Raises:
        UsageError: the options do not suit the bundle.
    """
    work = verb.begin(**options)(predictor.opened())
    bundle = predictor.bundle
    made_with = hash_values([member.sha256 for member in bundle.members], bundle.plan, bundle.decisions, verb.name, dict(options))
    table = folder / f"{verb.name}.csv"
    manifest = work_through(units, folder / f"{verb.name}.json", VerbManifest,
                            lambda unit: _work_on(unit, predictor.bundle.spec, work, folder), stage=verb.name,
                            made_with=made_with, refused=refused, table=table, write_rows=_write_rows, progress=progress)
    settings = {name: str(value) for name, value in options.items()} | {"device": predictor.context.device,
                                                                      "signature": bundle.signed}
    inputs = {f"{unit}/{name}": digest for unit, found in manifest.finished.items() for name, digest in found.inputs.items()}
    outputs = {name: digest for found in manifest.finished.values() for name, digest in found.outputs.items()}
    write_manifest(folder, Manifest(verb.name, origin, hash_values(bundle.plan), bundle.digest, bundle.plan.seed, settings,
                                    inputs, outputs | {table.name: sha256_file(table)}))
    return manifest


def _work_on(unit: Unit, spec: DatasetSpec, work: Work, folder: Path) -> WorkedUnit:
    with unchanged(unit_files(unit)):
        inputs = read_inputs(unit, spec, compact=True, varied=True)
        digests = input_digests(unit)
    made = work(unit, inputs, folder / unit.id)
    rows = tuple({column: cell(value) for column, value in row.items()} for row in made.rows)
    return WorkedUnit(digests, {path.relative_to(folder).as_posix(): sha256_file(path) for path in made.files}, rows)


def _write_rows(path: Path, manifest: VerbManifest) -> None:
    write_table(path, list(dict.fromkeys([UNIT_COLUMN, *(column for row in manifest.rows for column in row)])), manifest.rows)


def illustrations(task: Task, spec: DatasetSpec, units: Mapping[str, Unit],
                  runs: Sequence[Trained]) -> Iterator[tuple[BundleVerb, Trained, Unit, tuple[Picture, ...]]]:
    """What the commands of a task show in the report, each unit by the network of the fold that did not see it.

    One network is in memory at a time; units come fold by fold.
    """
    for verb in task.verbs:
        if not isinstance(verb, BundleVerb) or verb.illustration is None:
            continue
        records = [record for run in runs for record in run.report.records]
        wanted = verb.illustration.choose(records)
        for run in runs:
            mine = _in_order(wanted, run.report.records)
            opened = opened_run(task, spec, run) if mine else None
            for name in mine:
                if opened is not None:
                    unit = units[name]
                    yield verb, run, unit, verb.illustration.draw(opened, unit, read_inputs(unit, spec))


def _in_order(wanted: Sequence[str], records: Sequence[Record]) -> list[str]:
    own = {record.unit for record in records}
    return [name for name in wanted if name in own]


def opened_run(task: Task, spec: DatasetSpec, trained: Trained) -> Opened:
    """The network of a finished run, on the CPU."""
    run = trained.run
    if run is None:
        raise ValueError("a run that is only looked at cannot be opened")
    network = task.build_network(run.configuration)
    load_weights(weights_of(trained), network)
    context = Context(device="cpu", engine="torch")
    networks = [in_use(network, run.configuration.inference, context.device, context.engine)]
    prepare = partial(prepare_inputs, plan=run.plan, configuration=run.configuration)
    return Opened(spec, run.configuration, networks, context.device, prepare,
                  partial(_predicted, task, networks, run.plan, run.configuration, context))


def _predicted(task: Task, networks: Sequence[nn.Module], plan: Plan, configuration: Configuration, context: Context,
               inputs: Inputs) -> Any:
    arrays, record = prepare_inputs(inputs, plan, configuration)
    return task.restore(task.infer(networks, arrays, configuration, context), record, configuration, context)
