"""Brings every case to the model grid and stores it; resumes per case."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from autoseg.core.case import Unit, single_units
from autoseg.core.plan import Configuration, Plan
from autoseg.core.progress import Progress
from autoseg.core.spec import DatasetSpec
from autoseg.core.task import Task
from autoseg.io.atomic import hash_values
from autoseg.io.done import DONE, is_done, mark_done
from autoseg.io.images import unchanged
from autoseg.io.lock import rewriting
from autoseg.io.store import Store
from autoseg.stages.fingerprint import digest_unit, unit_files
from autoseg.stages.parallel import map_cases, require_all
from autoseg.stages.prepare import prepare_inputs, read_inputs


@dataclass(frozen=True)
class PrepareUnit:
    """Prepares a unit of one case and stores it, unless it is stored already, undamaged and from the same files."""

    task: Task
    spec: DatasetSpec
    plan: Plan
    configuration: Configuration
    folder: Path

    def __call__(self, unit: Unit) -> str:
        store = Store(self.folder)
        case_id = unit.cases[0].id
        with unchanged(unit_files(unit)):
            digest = digest_unit(unit)
            if store.has_case(case_id, digest, check_digests=True):
                return digest
            arrays, record = prepare_inputs(read_inputs(unit, self.spec), self.plan, self.configuration)
            target = self.task.read_target(unit, self.spec)
        if target is not None:
            arrays |= self.task.prepare_target(target, record, self.configuration)
        store.write_case(case_id, arrays, record, source_digest=digest, chunk_hint=self.configuration.patch_size)
        return digest


@dataclass(frozen=True)
class CheckUnit:
    """The digest of a unit's files, and whether it is stored from them, undamaged."""

    folder: Path

    def __call__(self, unit: Unit) -> tuple[str, bool]:
        digest = digest_unit(unit)
        return digest, Store(self.folder).has_case(unit.cases[0].id, digest, check_digests=True)


def run_preprocess(task: Task, spec: DatasetSpec, units: Sequence[Unit], plan: Plan, configuration: Configuration,
                   folder: Path, *, executor: Executor | None, progress: Progress) -> Store:
    """The store of one configuration's grid with the cases of all units.

    Nothing is written where all of them are there, whole and from the same files.

    Raises:
        DatasetError: cases cannot be prepared; all of them are listed, the others are stored.
        LockedError: a case would have to be stored anew that a live run trains on.
    """
    store, units = Store(folder), single_units(units)
    found = [unit for unit in units if store.is_recorded(unit.cases[0].id)]
    checked, failures = map_cases(CheckUnit(folder), found, [unit.id for unit in found],
                                  stage=f"check {configuration.name}", executor=executor, progress=progress)
    require_all(failures, f"preprocessing {configuration.name}")
    digests = {unit.id: digest for unit, (digest, intact) in zip(found, checked, strict=True) if intact}
    wanted = [unit for unit in units if unit.id not in digests]
    with rewriting(folder, "preprocess") if len(digests) < len(found) else nullcontext():
        if wanted:
            (folder / DONE).unlink(missing_ok=True)  # until all cases are there again, nobody may train on this store
        prepare = PrepareUnit(task, spec, plan, configuration, folder)
        prepared, failures = map_cases(prepare, wanted, [unit.id for unit in wanted],
                                       stage=f"preprocess {configuration.name}", executor=executor, progress=progress)
        require_all(failures, f"preprocessing {configuration.name}")
        digests |= {unit.id: digest for unit, digest in zip(wanted, prepared, strict=True)}
        inputs = hash_values([digests[unit.id] for unit in units])
        if not is_done(folder, inputs):
            mark_done(folder, inputs, [])
    return store
