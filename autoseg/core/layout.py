"""Where everything lies below one root; paths inside are relative, so the folder can be moved."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Layout:
    """Folders and files of one dataset below `root`."""

    root: Path
    dataset: str

    @property
    def folder(self) -> Path:
        return self.root / self.dataset

    @property
    def spec(self) -> Path:
        return self.folder / "spec.yaml"

    @property
    def source(self) -> Path:
        """Where the images are and which cases were found: the remembered `-i`."""
        return self.folder / "source.json"

    @property
    def splits(self) -> Path:
        return self.folder / "splits.json"

    @property
    def fingerprint(self) -> Path:
        """Folder of the fingerprint stage: `fingerprint.json`, per-case cache, `done.json`."""
        return self.folder / "fingerprint"

    def plan(self, plan: str) -> Path:
        """Folder of one plan: `plan.json`, `budget.json`, `done.json`."""
        return self.folder / "plans" / plan

    def store(self, grid_hash: str) -> Path:
        return self.folder / "store" / grid_hash

    def runs(self, plan: str, configuration: str) -> Path:
        return self.folder / "runs" / plan / configuration

    def run(self, plan: str, configuration: str, fold: str) -> Path:
        return self.runs(plan, configuration) / f"fold_{fold}"

    def baseline(self, fold: str) -> Path:
        return self.folder / "baseline" / f"fold_{fold}"

    def bundle(self, plan: str) -> Path:
        return self.folder / "bundles" / plan

    @property
    def report(self) -> Path:
        return self.folder / "report.html"
