"""What is said of a unit, by a table for certain or by a network with probabilities; read, counted and stored as numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from autoseg.core.case import Unit
from autoseg.core.errors import DatasetError
from autoseg.core.geometry import GridRecord
from autoseg.core.plan import Configuration
from autoseg.core.spec import DatasetSpec
from autoseg.core.task import Arrays, Description, Inputs
from autoseg.io.boxes import BoxColumns, DrawnBox, find_above, read_boxes
from autoseg.ops.crop import content_mask, corner_value
from autoseg.tasks.classification.boxes import FoundBox
from autoseg.tasks.classification.heads import heads_of
from autoseg.tasks.classification.kinds import Kind, Meaning, meanings_in, read_cell
from autoseg.tasks.classification.spec import BoxOptions, TargetOptions, classification_options

# Of a probability at which a class is said to be there, where nothing better was fitted.
MIDDLE = 0.5
# Sizes of lesions are counted in thousandths of the image's side, so that they can be summed over datasets.
LESION_UNITS = 1000


@dataclass(frozen=True)
class Reading:
    """What is said of one target.

    Attributes:
        classes: names; of two classes the second is the positive one; none of a continuous target.
        probabilities: one per class; nan where nothing is said. They sum to 1, but of several labels each is by itself.
        value: of a continuous target, in its own unit; nan where nothing is said.
        std: spread of a continuous target over the training units, in its own unit.
        logits: what the networks said; empty for a reference and for the baseline.
        cell: as it stands in the table; empty for a prediction.
        thresholds: probability from which on the positive class, or each of several labels, is said to be there; empty: the
            middle. Three classes and more are decided by the largest probability.
    """

    name: str
    kind: Kind
    classes: tuple[str, ...] = ()
    probabilities: tuple[float, ...] = ()
    value: float = math.nan
    std: float = 1.0
    logits: tuple[float, ...] = ()
    cell: str = ""
    thresholds: tuple[float, ...] = ()

    @property
    def is_known(self) -> bool:
        """Something is said."""
        return not math.isnan(self.value if self.kind == Kind.CONTINUOUS else self.probabilities[0])

    @property
    def decided(self) -> tuple[int, ...]:
        """Places of the classes that are there: one, or those of several labels; none of a continuous target."""
        if self.kind == Kind.CONTINUOUS or not self.is_known:
            return ()
        if self.kind == Kind.MULTILABEL:
            thresholds = self.thresholds or (MIDDLE,) * len(self.classes)
            return tuple(place for place, (probability, threshold) in enumerate(zip(self.probabilities, thresholds, strict=True))
                         if probability >= threshold)
        if self.kind == Kind.BINARY and len(self.classes) == 2:
            return (int(self.probabilities[1] >= (self.thresholds or (MIDDLE,))[0]),)
        return (int(np.argmax(self.probabilities)),)


@dataclass(frozen=True)
class Answer:
    """What is said of a unit.

    Attributes:
        readings: one per target.
        refined: names of the post-processing steps that were applied.
        boxes: around findings of the first image, of a reference.
        found: the same of a prediction; None: no boxes were sought.
    """

    readings: tuple[Reading, ...]
    refined: tuple[str, ...] = ()
    boxes: tuple[DrawnBox, ...] = ()
    found: tuple[FoundBox, ...] | None = None

    def reading(self, name: str) -> Reading:
        """What is said of one target.

        Raises:
            DatasetError: nothing is.
        """
        for reading in self.readings:
            if reading.name == name:
                return reading
        raise DatasetError(f"the prediction says nothing of target {name!r}, only of "
                           f"{', '.join(reading.name for reading in self.readings)}; it was made with another specification",
                           code="E_PREDICTION")


def read_target(unit: Unit, spec: DatasetSpec) -> Answer | None:
    """What the table says of a unit; None for units to predict, of which no column is known.

    Raises:
        DatasetError: a cell is no class, or the images of an exam contradict each other.
    """
    meanings = meanings_in(unit.cases[0].values)
    if not meanings:
        return None
    return replace(answer_of(unit, spec, meanings), boxes=drawn_boxes(unit, classification_options(spec).boxes))


def drawn_boxes(unit: Unit, options: BoxOptions | None, *, beside: Path | None = None) -> tuple[DrawnBox, ...]:
    """The boxes around findings of a unit's first image, under the names of the targets.

    Args:
        beside: a file in whose folder, or above, the table lies, where there is no image; without the table there are none.
    Raises:
        DatasetError: the table is not there, or cannot be read.
    """
    first = unit.cases[0]
    image = next((path for paths in first.inputs.values() for path in paths), beside)
    if options is None or image is None:
        return ()
    table = find_above(options.table, image)
    if table is None:
        if image == beside:
            return ()
        raise DatasetError(f"the table of boxes {options.table!r} is neither beside {image} nor in a folder above; put it into "
                           "the dataset's folder, or leave 'boxes' out of the options", code="E_TABLE")
    columns = BoxColumns(options.case_column, options.label_column, options.width_column, options.height_column,
                         options.x_column, options.y_column, options.z_column, options.depth_column)
    return tuple(replace(box, label=options.names.get(box.label, box.label))
                 for box in read_boxes(table, columns).get(first.id, ()))


def answer_of(unit: Unit, spec: DatasetSpec, meanings: Sequence[Meaning]) -> Answer:
    """What the table says of a unit, in the classes of `meanings`.

    Raises:
        DatasetError: as `read_target`.
    """
    options = {target.label: target for target in classification_options(spec).targets}
    return Answer(tuple(_read(unit, options[meaning.name], meaning) for meaning in meanings if meaning.name in options))


def _read(unit: Unit, target: TargetOptions, meaning: Meaning) -> Reading:
    found = []
    for case in unit.cases:
        try:
            entry = read_cell(case.values.get(target.column), target, meaning)
        except DatasetError as error:
            raise DatasetError(f"case {case.id}: {error}", code=error.code) from error
        if entry is not None:
            found.append(entry)
    if len(set(found)) > 1:
        written = ", ".join(repr(case.values.get(target.column, "")) for case in unit.cases)
        raise DatasetError(f"the images of exam {unit.id} say different things in column {target.column!r}: {written}; an exam "
                           "has one truth. Correct the cells, or leave 'exam' out", code="E_EXAM_DIFFERS")
    known = found[0] if found else (math.nan,) * max(len(meaning.classes), 1)
    cell = unit.cases[0].values.get(target.column, "").strip()
    if meaning.kind == Kind.CONTINUOUS:
        return Reading(meaning.name, meaning.kind, value=known[0], std=meaning.std, cell=cell)
    return Reading(meaning.name, meaning.kind, meaning.classes, known, cell=cell)


def describe(unit: Unit, inputs: Inputs, target: Answer | None) -> Description:
    """Foreground = what differs from the corners (all where nothing does); counted are cells, sides, and sizes of lesions.

    Properties: `target.<name>=<cell>`, `sides.<z>x<y>x<x>` of the whole image, `lesion.<thousandths of its shorter side>`.
    Patients are counted by `known.<name>` and `class.<name>=<class>`.
    """
    image = next(iter(inputs.values()))
    voxels = image.voxels
    mask = content_mask(list(voxels), [corner_value(channel) for channel in voxels])
    properties = {"sides." + "x".join(str(size) for size in image.geometry.shape): 1}
    if target is not None:
        # The cell as it is written: what cells mean is understood from all of them together, when the plan is made.
        properties |= {f"target.{reading.name}={reading.cell}": 1 for reading in target.readings}
        side = min(image.geometry.shape[1:])
        for box in target.boxes:
            key = f"lesion.{round(min(box.width, box.height) / side * LESION_UNITS)}"
            properties[key] = properties.get(key, 0) + 1
    return Description(mask if mask.any() else np.ones(mask.shape, bool), properties, _marks(target))


def _marks(target: Answer | None) -> tuple[str, ...]:
    known = [reading for reading in target.readings if reading.is_known] if target is not None else []
    classes = [f"class.{reading.name}={reading.classes[place]}" for reading in known for place in reading.decided]
    return (*(f"known.{reading.name}" for reading in known), *classes)


def prepare_target(target: Answer, record: GridRecord, configuration: Configuration) -> Arrays:
    """`truths`: float32 (T,), what the losses compare with, as `heads.Head.truths` orders it; nan or -1 where unknown."""
    truths: list[float] = []
    for head in heads_of(configuration):
        reading = target.reading(head.name)
        if head.kind == Kind.CONTINUOUS:
            truths.append((reading.value - head.mean) / head.std)
        elif head.kind == Kind.MULTILABEL:
            truths += aligned(reading, head.classes).probabilities
        elif head.kind == Kind.BINARY:
            truths.append(aligned(reading, head.classes).probabilities[1])
        else:
            truths.append(float(np.argmax(aligned(reading, head.classes).probabilities)) if reading.is_known else -1.0)
    return {"truths": np.array(truths, np.float32)}


def aligned(reading: Reading, classes: Sequence[str]) -> Reading:
    """The reading with its classes in another order; classes that it does not know have probability 0.

    Raises:
        DatasetError: it is sure of a class that is not among `classes`.
    """
    if tuple(classes) == reading.classes or reading.kind == Kind.CONTINUOUS:
        return reading
    known = dict(zip(reading.classes, reading.probabilities, strict=True))
    lost = [name for name, probability in known.items() if name not in classes and probability > MIDDLE]
    if lost and reading.kind != Kind.MULTILABEL:
        raise DatasetError(f"the class {lost[0]!r} of target {reading.name!r} does not occur in what was learned, which knows "
                           f"{', '.join(classes)}; train with cases of this class, or leave the unit out", code="E_CLASS_UNKNOWN")
    missing = math.nan if not reading.is_known else 0.0
    return replace(reading, classes=tuple(classes), probabilities=tuple(known.get(name, missing) for name in classes), logits=(),
                   thresholds=())
