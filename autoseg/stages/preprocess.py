"""Brings every case to the model grid and stores it; resumes per case."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

from autoseg.core.case import Unit
from autoseg.core.plan import Configuration, Plan
from autoseg.core.progress import Progress
from autoseg.core.spec import DatasetSpec
from autoseg.core.task import Task
from autoseg.io.atomic import hash_values
from autoseg.io.done import DONE, mark_done
from autoseg.io.images import unchanged
from autoseg.io.store import Store
from autoseg.stages.fingerprint import digest_unit, unit_files
from autoseg.stages.parallel import map_cases, require_all
from autoseg.stages.prepare import prepare_inputs, read_inputs


@dataclass(frozen=True)
class PrepareUnit:
    """Prepares one unit and stores it, unless it is stored already from the same files."""

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
            if store.has_case(case_id, digest):
                return digest
            arrays, record = prepare_inputs(read_inputs(unit, self.spec), self.plan, self.configuration)
            target = self.task.read_target(unit, self.spec)
        if target is not None:
            arrays |= self.task.prepare_target(target, record, self.configuration)
        store.write_case(case_id, arrays, record, source_digest=digest, chunk_hint=self.configuration.patch_size)
        return digest


def run_preprocess(task: Task, spec: DatasetSpec, units: Sequence[Unit], plan: Plan, configuration: Configuration,
                   folder: Path, *, executor: Executor | None, progress: Progress) -> Store:
    """The store of one configuration's grid.

    Raises:
        DatasetError: cases cannot be prepared; all of them are listed, the others are stored.
    """
    (folder / DONE).unlink(missing_ok=True)  # until all cases are there again, nobody may train on this store
    prepare = PrepareUnit(task, spec, plan, configuration, folder)
    digests, failures = map_cases(prepare, units, [unit.id for unit in units],
                                  stage=f"preprocess {configuration.name}", executor=executor, progress=progress)
    require_all(failures, f"preprocessing {configuration.name}")
    mark_done(folder, hash_values(digests), [])
    return Store(folder)
