"""Where findings are, learned from what is said of whole images: boxes around what heat maps by construction point at.

Source: Wang et al. 2017 (ChestX-ray8, arXiv 1705.02315), sections 3.2 and 4.2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.core.geometry import Box, GridRecord, Spacing
from autoseg.core.plan import Configuration
from autoseg.core.report import Scores
from autoseg.io.boxes import DrawnBox
from autoseg.metrics.boxes import LOCATED_FROM, THRESHOLDS, best_overlap, heat_boxes, iobb, iou
from autoseg.ops.boxes import stored_box
from autoseg.ops.resample import resample
from autoseg.tasks.classification.heads import Head, heads_of
from autoseg.tasks.classification.kinds import Kind

# The planned value that asks for boxes.
LOCALISE = "localise"


@dataclass(frozen=True)
class Seen:
    """What networks say of a unit, and where in its first image.

    Attributes:
        logits: (K,).
        maps: (K, *places) of the last map, in logits.
    """

    logits: NDArray[np.float32]
    maps: NDArray[np.float32]


@dataclass(frozen=True)
class FoundBox:
    """A box around a part of a finding's heat map.

    Attributes:
        threshold: grey value, of 0 to 255, above which the map lies in it.
        box: voxels along z, y, x of the image as stored.
    """

    target: str
    finding: str
    threshold: float
    box: Box


def localises(configuration: Configuration) -> bool:
    """The plan asks for boxes."""
    return bool(configuration.task_values.get(LOCALISE, False))


def finding_outputs(head: Head) -> dict[str, int]:
    """Findings of a target that have a place in the image, each with its output: labels, classes, the second of two classes.

    Grades and values have none: their outputs say more or less of something, not that it is there.
    """
    if head.kind == Kind.BINARY:
        return {head.classes[1]: head.outputs.start}
    return dict(zip(head.classes, head.outputs, strict=True)) if head.kind in (Kind.MULTILABEL, Kind.MULTICLASS) else {}


def find_boxes(maps: NDArray[np.float32], record: GridRecord, configuration: Configuration) -> tuple[FoundBox, ...]:
    """Boxes at both thresholds around what the map of every finding points at, whether it is decided to be there or not.

    A map is interpolated to the model's grid, where regions are sought; a box that both thresholds give stands once.

    Args:
        maps: (K, *places).
    """
    found: dict[tuple[str, str, Box], FoundBox] = {}
    for head in heads_of(configuration):
        for finding, output in finding_outputs(head).items():
            places = maps[output].reshape((1,) * (4 - maps[output].ndim) + maps[output].shape)
            heat = resample(places, record.model_shape, order=1)[0]
            for threshold in THRESHOLDS:
                for sides in heat_boxes(heat, (threshold,)):
                    box = stored_box((sides[0], sides[1], sides[2]), record)
                    found.setdefault((head.name, finding, box), FoundBox(head.name, finding, threshold, box))
    return tuple(found.values())


def boxes_document(found: Sequence[FoundBox], decided: Mapping[str, Sequence[str]], spacing_mm: Spacing) -> dict[str, Any]:
    """Boxes by target and finding as a prediction's file holds them, and whether the finding was decided to be there.

    Args:
        decided: names of the classes that are there, by target.
        spacing_mm: of the image as stored, along z, y, x; millimetres count from the outer corner of its first voxel.
    """
    document: dict[str, Any] = {}
    for entry in found:
        findings = document.setdefault(entry.target, {})
        listed = findings.setdefault(entry.finding, {"decided": entry.finding in decided.get(entry.target, ()), "boxes": []})
        starts, stops = zip(*entry.box, strict=True)
        listed["boxes"].append({
            "threshold": entry.threshold, "start": list(starts), "stop": list(stops),
            "start_mm": _in_mm(starts, spacing_mm), "stop_mm": _in_mm(stops, spacing_mm)})
    return document


def _in_mm(places: Sequence[int], spacing_mm: Spacing) -> list[float]:
    return [round(place * step, 6) for place, step in zip(places, spacing_mm, strict=True)]


def boxes_in(document: Mapping[str, Any]) -> tuple[FoundBox, ...]:
    """The boxes of `boxes_document`."""
    found = []
    for target, findings in document.items():
        for finding, listed in findings.items():
            for entry in listed["boxes"]:
                (z, y, x), (below, behind, beside) = map(int, entry["start"]), map(int, entry["stop"])
                box = ((z, below), (y, behind), (x, beside))
                if any(stop <= start or start < 0 for start, stop in box):
                    raise ValueError(f"a box of {finding} must have voxels, found {box}")
                found.append(FoundBox(str(target), str(finding), float(entry["threshold"]), box))
    return tuple(found)


def score_boxes(found: Sequence[FoundBox], drawn: Sequence[DrawnBox], findings: Mapping[str, Sequence[str]]) -> Scores:
    """Overlaps of found with drawn boxes, of the findings around which one was drawn.

    `<target>.<finding>.iobb` and `.box_iou`: the largest overlap of a found box with a drawn one, 0 where no box was found;
    `.false_boxes_T`: found boxes whose intersection with any drawn one is no more than T percent of themselves.

    Args:
        findings: names of the findings, by target; boxes around anything else say nothing.
    """
    scores: Scores = {}
    for target, names in findings.items():
        for name in names:
            truths = [box.sides for box in drawn if box.label == name and box.sides]
            if not truths:
                continue
            boxes = [entry.box for entry in found if (entry.target, entry.finding) == (target, name)]
            inside = [best_overlap(box, truths, iobb) for box in boxes]
            scores |= {f"{target}.{name}.iobb": max(inside, default=0.0),
                       f"{target}.{name}.box_iou": max((best_overlap(box, truths, iou) for box in boxes), default=0.0)}
            scores |= {f"{target}.{name}.false_boxes_{percent(least)}": float(sum(overlap <= least for overlap in inside))
                       for least in LOCATED_FROM}
    return scores


def percent(share: float) -> int:
    """A share in whole percent, as names of scores have it."""
    return math.floor(100 * share + 0.5)
