"""A JSON file of finished measurements, so that an interrupted benchmark goes on where it stopped."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from autoseg.io.atomic import hash_values, sha256_file, write_json
from autoseg.io.values import read_json

REPOSITORY = Path(__file__).resolve().parents[1]


class Ledger:
    """Entries by key, each with the digest of what it depends on; every change is on disk at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: dict[str, dict[str, Any]] = read_json(path) if path.exists() else {}

    def has(self, key: str, inputs: str) -> bool:
        """Whether `key` was measured with these inputs."""
        return key in self.entries and self.entries[key]["inputs"] == inputs

    def result(self, key: str) -> dict[str, Any] | None:
        """What was measured, None when it was not."""
        return self.entries[key]["result"] if key in self.entries else None

    def keep_only(self, prefix: str, keys: Collection[str]) -> None:
        """Forget entries whose keys begin so and are none of these: they belong to other samples."""
        self.entries = {key: entry for key, entry in self.entries.items() if not key.startswith(prefix) or key in keys}

    def add(self, key: str, inputs: str, result: dict[str, Any]) -> None:
        self.entries[key] = {"inputs": inputs, "result": result}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, self.entries)


def source_digest() -> str:
    """Digest of autoseg's source files: what was measured with another one is measured again."""
    files = sorted((REPOSITORY / "autoseg").rglob("*.py"))
    return hash_values([(path.relative_to(REPOSITORY).as_posix(), sha256_file(path)) for path in files])[:16]


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; the first column to the left, the others to the right."""
    rule = [":--", *("--:" for _ in header[1:])]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [header, rule, *rows])
