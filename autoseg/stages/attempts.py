"""Which case a folder of predictions was at when its command was killed, so that one case cannot stop a folder for ever.

Python cannot clean up after a kill for memory: the note of the case under way stays. The next command predicts all others
first, and gives a case up that ended two commands.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from autoseg.core.case import Unit
from autoseg.core.errors import AutosegError
from autoseg.io.values import read_value, write_value
from autoseg.stages.workers import LostWorkerError

log = logging.getLogger(__name__)

NOTE = ".under_way.json"
# The first end may have been a kill by hand or a power cut; the second one, alone at the end, is the case.
MOST_ENDS = 2


@dataclass(frozen=True)
class Attempts:
    """The case under way, and how many commands ended while they were at a case, by id."""

    under_way: str = ""
    ends: dict[str, int] = field(default_factory=dict)


class Track:
    """Keeps the note of one folder; nobody else may write there meanwhile."""

    def __init__(self, folder: Path) -> None:
        self._note = folder / NOTE
        self._attempts = _read(self._note)
        case_id = self._attempts.under_way
        if case_id:
            ends = self._attempts.ends.get(case_id, 0) + 1
            log.warning("the last command in %s was killed while it was at case %s, perhaps for memory; %s", folder, case_id,
                        "it is left out now" if ends >= MOST_ENDS else "the others come first now")
            self._keep(Attempts("", self._attempts.ends | {case_id: ends}))

    def sorted(self, units: Sequence[Unit]) -> list[Unit]:
        """The units in their order, those at which a command ended last."""
        return sorted(units, key=lambda unit: self._attempts.ends.get(unit.id, 0))

    @contextmanager
    def of(self, case_id: str) -> Iterator[None]:
        """Inside the block the note says that this case is under way; only a kill leaves it so.

        Raises:
            LostWorkerError: the case ended too many commands.
        """
        ends = self._attempts.ends.get(case_id, 0)
        if ends >= MOST_ENDS:
            raise LostWorkerError(f"{ends} commands were killed while they predicted it, which usually means that memory ran "
                                  f"out; to try it again where more is free, delete {self._note}")
        write_value(self._note, replace(self._attempts, under_way=case_id), durable=False)
        try:
            yield
            done = replace(self._attempts, ends={name: count for name, count in self._attempts.ends.items() if name != case_id})
        except BaseException:
            self._keep(self._attempts)
            raise
        self._keep(done)

    def _keep(self, attempts: Attempts) -> None:
        self._attempts = attempts
        if attempts.ends:
            write_value(self._note, attempts, durable=False)
        else:
            self._note.unlink(missing_ok=True)


def _read(path: Path) -> Attempts:
    if not path.exists():
        return Attempts()
    try:
        return read_value(path, Attempts)
    except AutosegError as error:
        log.warning("%s; it is ignored", error)
        return Attempts()
