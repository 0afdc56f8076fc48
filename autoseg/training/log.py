"""`metrics.jsonl`: one JSON object per line, one line per epoch."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from autoseg.io.atomic import explaining, write_text

Record = dict[str, Any]


class MetricsLog:
    """A file of records that survives a kill: each is on disk when `append` returns; a torn last line is ignored."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    def append(self, record: Record) -> None:
        """Write one record; numbers that are not finite become null."""
        line = json.dumps({key: _plain(value) for key, value in record.items()}, allow_nan=False)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with explaining(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())

    def truncate(self, iteration: int) -> None:
        """Drop records of iterations after `iteration` and a torn last line, so that a resumed run repeats none."""
        if self.path.exists():
            kept = [record for record in read_metrics(self.path) if record["iteration"] <= iteration]
            write_text(self.path, "".join(json.dumps(record) + "\n" for record in kept))


def read_metrics(path: Path) -> list[Record]:
    """All complete records of a metrics file, in order; empty when there is no file."""
    if not Path(path).exists():
        return []
    lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    records = [_parse(line) for line in lines]
    return [record for record in records if record is not None]


def _parse(line: str) -> Record | None:
    try:
        record = json.loads(line)
    except json.JSONDecodeError:
        return None
    return record if isinstance(record, dict) else None


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
