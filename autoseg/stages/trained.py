"""Finished runs of a plan, and means over their scores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoseg.core.report import Estimate, Record, Report
from autoseg.core.task import Task
from autoseg.io.done import is_done
from autoseg.io.values import read_value
from autoseg.reporting.numbers import counted, score
from autoseg.stages.train import Run


@dataclass(frozen=True)
class Trained:
    """A finished run: its configuration, fold name, folder and validation report.

    Attributes:
        run: what was trained, with its preprocessed cases; None where only the files are looked at.
    """

    configuration: str
    fold: str
    folder: Path
    report: Report
    run: Run | None = None


def finished_runs(runs: Sequence[Run]) -> list[Trained]:
    """Those of the runs that are finished, from the same plan, folds and data as now."""
    return [Trained(run.configuration.name, run.fold_name, run.folder, read_value(run.folder / "summary.json", Report), run)
            for run in runs if is_done(run.folder, run.inputs_hash())]


def weights_of(run: Trained) -> Path:
    """The weights file of a finished run."""
    return run.folder / "training" / "model.safetensors"


def mean_score(records: Sequence[Record], name: str) -> float:
    """Mean over the units for which a score of units is defined, nan for none."""
    values = [record.scores[name] for record in records if np.isfinite(record.scores.get(name, np.nan))]
    return float(np.mean(values)) if values else float("nan")


def summary_of(task: Task, records: Sequence[Record]) -> dict[str, Estimate]:
    """The task's summary for comparing models; empty where there is no record. Its intervals are not looked at."""
    return task.summarise(records, np.random.default_rng(0)) if records else {}


def mean_in(summary: Mapping[str, Estimate], name: str) -> float:
    """A score of a summary, nan where it is not there."""
    return summary[name].mean if name in summary else float("nan")


def parts_of(headline: str, names: Iterable[str]) -> list[str]:
    """Names of the scores that the headline is made of: its metric for each label."""
    metric = headline.rpartition(".")[2]
    return [name for name in names if name.endswith(f".{metric}") and name != headline]


def behind_baseline(task: Task, records: Sequence[Record], baseline: Iterable[Record]) -> str:
    """A sentence where the network scores no higher than the baseline on the cases that both were scored on, else an empty one.

    Both of them at Dice 0 is such a case: what a headline has at worst only its task knows, that they tie is plain.
    """
    units = {record.unit for record in records}
    common = [record for record in baseline if record.unit in units]
    scored = {record.unit for record in common}
    network, cheap = (mean_in(summary_of(task, found), task.headline)
                      for found in ([record for record in records if record.unit in scored], common))
    if not cheap >= network:
        return ""
    said = ("The baseline, a cheap model, scores higher than the network" if cheap > network else
            "The network scores no higher than the baseline, a cheap model")
    return f"{said}: {task.headline} {score(cheap)} and {score(network)} on {counted(len(common), 'case')}."
