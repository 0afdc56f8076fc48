"""Works through the units of a folder: finished ones are skipped, and one that fails does not stop the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from autoseg.core.case import Unit
from autoseg.core.errors import AutosegError
from autoseg.core.progress import Progress
from autoseg.core.report import Failure
from autoseg.io.atomic import hash_values, sha256_file, sha256_path
from autoseg.io.values import read_value, write_value
from autoseg.stages.attempts import Track
from autoseg.stages.fingerprint import case_files
from autoseg.stages.parallel import failure_of, naming_slow_cases
from autoseg.training.device import Stopwatch

# The manifest is written again after this many times of what writing it took, so that it costs a tenth of a run at most.
WRITING_PAUSE = 10


class FinishedUnit(Protocol):
    """A finished unit: digests of what went in and of what came out, by name."""

    @property
    def inputs(self) -> dict[str, str]: ...

    @property
    def outputs(self) -> dict[str, str]: ...


class FolderManifest(Protocol):
    """What a folder was made with, and which units are finished; a frozen dataclass of these fields, in this order."""

    def __init__(self, made_with: str, finished: dict[str, Any], failures: tuple[Failure, ...] = ()) -> None: ...

    @property
    def made_with(self) -> str: ...

    @property
    def finished(self) -> dict[str, Any]: ...

    @property
    def failures(self) -> tuple[Failure, ...]: ...


M = TypeVar("M", bound=FolderManifest)
F = TypeVar("F", bound=FinishedUnit)


def work_through(units: Sequence[Unit], path: Path, kind: type[M], work: Callable[[Unit], F], *, stage: str, made_with: str,
                 refused: Sequence[Failure], table: Path, write_rows: Callable[[Path, M], None], progress: Progress) -> M:
    """Works on every unit; the manifest `path`, beside the outputs, is written after each, or less often where it is long.

    A unit counts as finished when the same inputs were worked on with the same settings, and its outputs are still what was
    written.

    Args:
        kind: of the manifest.
        made_with: digest of all that decides the outputs, but for the unit.
        refused: cases that cannot even be tried (a channel is missing); listed with the failures.
        table: is written by `write_rows` when the run ends, however it does.
    """
    folder = path.parent
    finished, failures = dict(_earlier(path, kind, made_with).finished), list(refused)
    manifest = kind(made_with, finished, tuple(failures))
    keep = _Sparing(path)
    keep(manifest)  # where no case can even be tried, that has to be said too
    track = Track(folder)
    table.unlink(missing_ok=True)  # of an earlier run
    try:
        with naming_slow_cases(advice="stop it and take the case out of the folder") as begin:
            for place, unit in enumerate(track.sorted(units)):
                begin(unit.id)
                earlier = finished.pop(unit.id, None)
                try:
                    finished[unit.id] = _finished_unit(unit, folder, earlier, work, track)
                except (AutosegError, MemoryError, RuntimeError) as error:
                    failures.append(failure_of(unit.id, error))  # listed at the end; until then in the manifest
                # In an order of their own: a run that was taken up again writes the bytes of an undisturbed one.
                manifest = kind(made_with, dict(sorted(finished.items())), tuple(failures))
                keep.when_due(manifest)
                progress(stage, place + 1, len(units), unit.id)
    finally:
        keep(manifest)
        write_rows(table, manifest)
    return manifest


class _Sparing:
    """Writes a manifest that grows with every unit; for thousands of small images most of the time would else go into it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._taken = 0.0
        self._since = Stopwatch()

    def __call__(self, manifest: FolderManifest) -> None:
        watch = Stopwatch()
        write_value(self._path, manifest)
        self._taken, self._since = watch.seconds(), Stopwatch()

    def when_due(self, manifest: FolderManifest) -> None:
        """Writes where the last writing took at most a tenth of the time since; a kill costs what was predicted in between."""
        if self._since.seconds() >= WRITING_PAUSE * self._taken:
            self(manifest)


def input_digests(unit: Unit) -> dict[str, str]:
    """Digest of every file by its name, with its case where there are several; and of what is known of a case besides."""
    digests: dict[str, str] = {}
    for case in unit.cases:
        within = f"{case.id}/" if len(unit.cases) > 1 else ""
        digests |= {f"{within}{path.name}": sha256_path(path) for path in case_files(case)}
        if case.values:
            digests[f"{within}values"] = hash_values(case.values)
    return digests


def _earlier(path: Path, kind: type[M], made_with: str) -> M:
    if path.exists():
        earlier = read_value(path, kind)
        if earlier.made_with == made_with:
            return kind(made_with, earlier.finished)
    return kind(made_with, {})


def _finished_unit(unit: Unit, folder: Path, earlier: F | None, work: Callable[[Unit], F], track: Track) -> F:
    """What an earlier run made of the unit where that still holds, else what is made of it now."""
    if earlier is not None and _still_holds(earlier, unit, folder):
        return earlier
    with track.of(unit.id):
        return work(unit)


def _still_holds(earlier: FinishedUnit, unit: Unit, folder: Path) -> bool:
    return earlier.inputs == input_digests(unit) and all((folder / name).is_file() and sha256_file(folder / name) == digest
                                                         for name, digest in earlier.outputs.items())
