"""Scores of both tasks side by side, and one that is made of both."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from autoseg.core.image import Image
from autoseg.core.report import Estimate, Record, Scores
from autoseg.core.spec import DatasetSpec
from autoseg.core.task import Task
from autoseg.tasks.joint.parts import ROLES, Pair, Parts, lifted, own, spec_of

# The metric of the summary that stands for the headline of each task, and of their mean.
METRIC = "score"
HEADLINE = f"mean.{METRIC}"


def score(parts: Parts, prediction: Pair, target: Pair, spec: DatasetSpec, image: Image) -> Scores:
    """The scores of both tasks, under names that begin with the task's; none of a task whose target is missing."""
    scores: Scores = {}
    for role in ROLES:
        task = parts.of(role)
        if target.of(role) is not None:
            scores |= lifted(task, task.score(prediction.of(role), target.of(role), spec_of(task, spec), image))
    return scores


def summarise(parts: Parts, records: Sequence[Record], rng: np.random.Generator) -> dict[str, Estimate]:
    """The summaries of both tasks; `<task>.score`, its headline; and `mean.score`, the mean of both headlines.

    The headlines of our tasks are shares, 1 at best (Dice, area under a curve): their mean weighs both alike, and a model that
    gives one of them up for the other does not win. Where one is not defined (a fold with one class), the mean is the other
    one. It has no interval: the two are resampled in different ways.
    """
    found: dict[str, Estimate] = {}
    heads: dict[str, Estimate] = {}
    for role in ROLES:
        task = parts.of(role)
        of_task = records_of(task, records)
        if any(record.scores for record in of_task):
            summary = task.summarise(of_task, rng)
            heads[score_name(task)] = summary[task.headline]
            found |= lifted(task, summary)
    known = [estimate.mean for estimate in heads.values() if not math.isnan(estimate.mean)]
    mean = math.fsum(known) / len(known) if known else math.nan
    return {HEADLINE: Estimate(mean, math.nan, math.nan, math.nan, len(records)), **heads, **found}


def score_name(task: Task) -> str:
    """Name of the score that stands for a task's headline in the summary."""
    return f"{task.name}.{METRIC}"


def records_of(task: Task, records: Sequence[Record]) -> list[Record]:
    """The same units with the scores of one task, under the task's own names."""
    return [Record(record.unit, own(task, record.scores), record.group) for record in records]
