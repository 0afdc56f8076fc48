"""Pictures of heat maps over their images, with the boxes that were found and drawn; for files and for the report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from autoseg.core.case import Unit
from autoseg.core.image import Image
from autoseg.core.report import Record
from autoseg.core.spec import DatasetSpec
from autoseg.core.task import Inputs, Picture
from autoseg.core.verb import Opened
from autoseg.io.boxes import DrawnBox
from autoseg.metrics.boxes import THRESHOLDS
from autoseg.ops.boxes import canonical_sides
from autoseg.reporting.colours import OKABE_ITO, Colour
from autoseg.reporting.drawing import WHITE, captioned, encode_png
from autoseg.reporting.heat import LINE_NOTE, Outline, heat_pictures
from autoseg.tasks.classification.evidence import NAMES, Evidence, chosen_method, ensemble_of, evidence_for, images_with_tensors
from autoseg.tasks.classification.explained import Said, what_was_said
from autoseg.tasks.classification.figures import channels_of
from autoseg.tasks.classification.heads import heads_of
from autoseg.tasks.classification.target import Answer, read_target

if TYPE_CHECKING:
    from autoseg.inference.faithfulness import Faithfulness

# Units whose explanations the report shows beside the median and the best one.
WORST_UNITS = 4
# Boxes of the lower threshold, and of higher ones; boxes that were drawn.
FOUND_LOW, FOUND_HIGH, DRAWN = OKABE_ITO[3], OKABE_ITO[1], OKABE_ITO[2]
COLOUR_NOTE = f"purple: little evidence, pale yellow: the largest; {LINE_NOTE}"
WARNING: Colour = (255, 120, 120)


def verdict_text(check: Faithfulness | None) -> str:
    """`faithful`, `not faithful` or `no evidence`; `not checked`."""
    return "not checked" if check is None else check.verdict


def title_of(evidence: Evidence) -> str:
    """What a picture begins with: what was said, how sure, how it was explained, and whether to believe it."""
    said, check = evidence.said, evidence.check
    chance = "" if math.isnan(said.probability) else f", probability {said.probability:.3f}"
    return f"{said.text}{chance}; {NAMES[evidence.method]}; {_verdict_sentence(check)}"


def _verdict_sentence(check: Faithfulness | None) -> str:
    if check is None:
        return "faithfulness not checked"
    if check.verdict == "no evidence":
        return "NO EVIDENCE for it by this method"
    alike = f"similarity {check.similarity:.2f} to maps of random networks"
    if check.verdict == "not faithful":
        return f"NOT FAITHFUL, it would look the same had the network learnt nothing ({alike})"
    return f"faithful ({alike})"


def picture_files(evidence: Evidence, image: Image, spec: DatasetSpec, outlines: Sequence[Outline]) -> dict[str, bytes]:
    """PNG files by what is added to their names: of a flat image one, of a volume one per slice that is shown."""
    pictures = pictures_of(evidence, image, spec, outlines)
    is_sound = evidence.check is None or evidence.check.verdict == "faithful"
    found = {}
    for place, picture in enumerate(pictures):
        lines = [(picture.caption, WHITE if is_sound else WARNING), (COLOUR_NOTE, WHITE)]
        lines += [(outline.name, outline.colour) for outline in {outline.name: outline for outline in outlines}.values()]
        found[f"_{place}" if len(pictures) > 1 else ""] = encode_png(captioned(picture.pixels, lines), quickly=True)
    return found


def pictures_of(evidence: Evidence, image: Image, spec: DatasetSpec, outlines: Sequence[Outline]) -> tuple[Picture, ...]:
    """The slices with most evidence."""
    names, ct = channels_of(spec)
    return heat_pictures(image.voxels, names, ct, evidence.heat, image.geometry, title=title_of(evidence), outlines=outlines)


def outlines_of(said: Said, answer: Answer, drawn: Sequence[DrawnBox], image: Image) -> tuple[Outline, ...]:
    """The boxes around a finding in an image: those that were found at each threshold, and those that were drawn."""
    found = [Outline(canonical_sides(entry.box, image.orientation, image.stored.shape),
                     f"found box, map above {entry.threshold:g} of 255",
                     FOUND_LOW if entry.threshold <= THRESHOLDS[0] else FOUND_HIGH)
             for entry in answer.found or () if (entry.target, entry.finding) == (said.head.name, said.name)]
    return (*found, *(Outline(canonical_sides(box.sides, image.orientation, image.stored.shape), "reference box (dashed)", DRAWN,
                              dashed=True) for box in drawn if box.label == said.name and box.sides))


def chosen_units(records: Sequence[Record]) -> list[str]:
    """The worst, the median and the best decided units; where boxes were drawn and sought, those that were located so."""
    located = [(max(values), record.unit) for record in records
               if (values := [value for name, value in record.scores.items() if name.endswith(".iobb")])]
    ranked = [unit for _, unit in sorted(located)] or [
        record.unit for record in sorted(records, key=lambda record: record.scores["mean.log_score"])
        if not math.isnan(record.scores["mean.log_score"])]
    places = sorted({*range(min(WORST_UNITS, len(ranked))), *((len(ranked) // 2, len(ranked) - 1) if ranked else ())})
    return [ranked[place] for place in places]


def illustrate(opened: Opened, unit: Unit, inputs: Inputs) -> tuple[Picture, ...]:
    """The heat map of what was decided of the first target, or of the finding around which a box was drawn, in the first image.

    Compared with random networks, so that a map which does not depend on the network says so; nothing is removed from the
    image, which would take 42 passes instead of 5.
    """
    heads, answer = heads_of(opened.configuration), opened.predict(inputs)
    target = read_target(unit, opened.spec)
    drawn = () if target is None or answer.found is None else target.boxes
    known = {box.label for box in drawn if box.sides}
    marked = [said for head in heads for name in head.classes if name in known
              for said in what_was_said(answer, heads, head.name, name)]
    said = (marked or what_was_said(answer, heads))[0]
    _, image, tensor, record = next(images_with_tensors(inputs, opened))
    evidence = evidence_for(said, tensor, record, opened, ensemble_of(opened.networks), method=chosen_method("auto", opened),
                            check="similarity")
    return pictures_of(evidence, image, opened.spec, outlines_of(said, answer, drawn, image))
