"""The command `explain`: heat maps of what a bundle says of images, as NIfTI and pictures, each with its verdict."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

from autoseg.core.case import Unit
from autoseg.core.image import Image
from autoseg.core.task import Inputs
from autoseg.core.verb import BundleVerb, Illustration, Made, Opened
from autoseg.io.atomic import write_bytes
from autoseg.io.images import write_volume
from autoseg.io.values import write_value
from autoseg.tasks.classification.evidence import (
    METHODS,
    Evidence,
    chosen_method,
    ensemble_of,
    evidence_for,
    images_with_tensors,
    require_deciding_networks,
)
from autoseg.tasks.classification.explained import require_known, what_was_said
from autoseg.tasks.classification.heads import heads_of
from autoseg.tasks.classification.heat import chosen_units, illustrate, outlines_of, picture_files, verdict_text
from autoseg.tasks.classification.refine import AVERAGED
from autoseg.tasks.classification.target import Answer

FORMAT = 1
UNIT_FILE = "explanation.json"
# Names of classes in file names; longer ones are cut.
MOST_LETTERS = 60
# Who answered what a map explains.
NETWORKS, WITH_CHEAP = "network", "mean of network and cheap model"
METHOD_HELP = f"What makes the maps: {', '.join(METHODS)}; auto: by construction where the network has such maps, else Grad-CAM."


def begin(method: Annotated[str, METHOD_HELP] = "auto",
          target: Annotated[str | None, "Explain this target only; default: every one."] = None,
          class_: Annotated[str | None, "Explain this class; default: what was decided."] = None,
          faithfulness: Annotated[bool, "Compare every map with those of random networks, and remove what it points at."] = True,
          ) -> Callable[[Opened], Callable[[Unit, Inputs, Path], Made]]:
    """What is done with opened networks; see `core.verb.BundleVerb`.

    Raises:
        UsageError: there is no such method, target or class, or the network cannot be explained by the method.
    """
    def with_networks(opened: Opened) -> Callable[[Unit, Inputs, Path], Made]:
        heads = heads_of(opened.configuration)
        require_deciding_networks(opened)
        require_known(heads, target, class_)
        chosen = chosen_method(method, opened)
        ensemble = ensemble_of(opened.networks)

        def explain_unit(unit: Unit, inputs: Inputs, folder: Path) -> Made:
            answer = opened.predict(inputs)
            listed = what_was_said(answer, heads, target, class_)
            made = Made(())
            for place, image, tensor, record in images_with_tensors(inputs, opened):
                for said in listed:
                    evidence = evidence_for(said, tensor, record, opened, ensemble, method=chosen,
                                            check="all" if faithfulness else "none")
                    made = _added(made, _write(evidence, answer, unit, place, image, opened, folder))
            path = folder / UNIT_FILE
            write_value(path, {"format": FORMAT, "explanations": list(made.rows)})
            return Made((*made.files, path), made.rows)

        return explain_unit

    return with_networks


def _added(made: Made, more: Made) -> Made:
    return Made(made.files + more.files, made.rows + more.rows)


def _write(evidence: Evidence, answer: Answer, unit: Unit, place: int, image: Image, opened: Opened, folder: Path) -> Made:
    """The map and the pictures of one image, and its row."""
    case = unit.cases[place].id
    said = evidence.said
    number = list(said.head.classes).index(said.name) if said.place >= 0 else 0
    stem = "_".join([*([f"{place}"] if len(unit.cases) > 1 else []), _safe(said.head.name), f"{number}", _safe(said.name)])
    heat = folder / f"{stem}.nii.gz"
    write_volume(heat, evidence.heat[None], image)
    files = [heat]
    outlines = outlines_of(said, answer, (), image) if place == 0 else ()
    for name, pixels in picture_files(evidence, image, opened.spec, outlines).items():
        picture = folder / f"{stem}{name}.png"
        write_bytes(picture, pixels)
        files.append(picture)
    return Made(tuple(files), (_row(evidence, case, heat.name, is_mean=AVERAGED in opened.refinements),))


def _row(evidence: Evidence, case: str, file: str, *, is_mean: bool) -> dict[str, float | str]:
    """What the table says of a map; numbers that were not measured are nan.

    Args:
        is_mean: the answer is that of the networks and of a cheap model, and the map explains the networks.
    """
    said, check = evidence.said, evidence.check
    return {
        "image": case, "target": said.head.name, "class": said.name, "explained": said.text, "method": evidence.method,
        "answered_by": WITH_CHEAP if is_mean else NETWORKS, "probability": said.probability,
        "similarity": math.nan if check is None else check.similarity,
        "deletion": math.nan if check is None else check.deletion, "insertion": math.nan if check is None else check.insertion,
        "verdict": verdict_text(check), "file": file}


def _safe(name: str) -> str:
    """A name as part of a file's, on any system."""
    return re.sub(r"[^A-Za-z0-9.-]+", "-", name)[:MOST_LETTERS].strip("-.") or "class"


def tell(rows: Sequence[Mapping[str, str]]) -> str:
    """How many maps are faithful, and every one that is not."""
    counts = Counter(row["verdict"] for row in rows)
    methods = ", ".join(sorted({row["method"] for row in rows}))
    lines = [f"{len(rows)} heat map(s)" + (f" by {methods}: " if rows else "")
             + ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))]
    for row in rows:
        if row["verdict"] == "not faithful":
            lines.append(f"NOT FAITHFUL  {row['case']}, {row['explained']}: similarity {row['similarity']} to maps of random "
                         "networks; it would look the same had the network learnt nothing")
        elif row["verdict"] == "no evidence":
            lines.append(f"NO EVIDENCE   {row['case']}, {row['explained']}: nothing in the image speaks for it by this method")
    if any(row["answered_by"] == WITH_CHEAP for row in rows):
        lines.append("note          the answers are means of the network and of a cheap model of simple features; the maps "
                     "explain the network")
    return "\n".join(lines)


EXPLAIN = BundleVerb(
    "explain", "Heat maps of what in the images speaks for what a bundle says of them, each with a check of its faithfulness.",
    begin, tell, Illustration(chosen_units, illustrate))
