"""From networks to probabilities, grades and values, and to files."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from autoseg.core.errors import ReadError
from autoseg.core.geometry import GridRecord
from autoseg.core.image import Image
from autoseg.core.plan import Configuration, Inference
from autoseg.core.spec import DatasetSpec
from autoseg.core.task import Arrays, Context
from autoseg.io.images import image_ending
from autoseg.io.values import read_json, write_value
from autoseg.tasks.classification.boxes import Seen, boxes_document, boxes_in, find_boxes, localises
from autoseg.tasks.classification.heads import Head, heads_of
from autoseg.tasks.classification.kinds import Kind
from autoseg.tasks.classification.sample import is_flat
from autoseg.tasks.classification.target import MIDDLE, Answer, Reading

if TYPE_CHECKING:
    from torch import Tensor, nn

ENDING = ".json"
PREDICTION_FORMAT = 1


def infer(networks: Sequence[nn.Module], inputs: Arrays, configuration: Configuration,
          context: Context) -> NDArray[np.float32] | Seen:
    """Logits (K,): mean over members, over mirrorings if asked for, and over the images of an exam.

    With the maps of the first image where the plan asks for boxes.
    """
    import torch  # here, because planning loads this file too and needs no torch

    from autoseg.inference.averaging import averaged
    from autoseg.inference.engine import forward_of

    rules = configuration.inference
    mirror = rules.mirror if context.mirror is None else context.mirror
    forward = averaged([forward_of(network, rules, context.device) for network in networks])
    flips = _flips(rules.mirror_axes) if mirror else [()]
    means, maps = [], None
    with torch.no_grad():
        for voxels in images_of(inputs):
            image = torch.from_numpy(np.ascontiguousarray(voxels[None], dtype=np.float32)).to(context.device)
            image = image.squeeze(2) if is_flat(configuration) else image
            if localises(configuration) and maps is None:
                logits, maps = _with_maps(networks, image, flips, rules, context)
                means.append(logits)
            else:
                means.append(_mean_over_flips(forward, image, flips))
    mean = np.asarray(np.mean(means, axis=0, dtype=np.float32))
    return mean if maps is None else Seen(mean, maps)


def _with_maps(networks: Sequence[nn.Module], image: Tensor, flips: Sequence[tuple[int, ...]], rules: Inference,
               context: Context) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Logits (K,) and maps (K, *places) of one image in one pass of every member, by torch: the engine knows logits only."""
    from autoseg.inference.averaging import mean_logits
    from autoseg.inference.engine import answer_of

    answers = [(flip, answer_of(network, rules, context.device)(image.flip(flip) if flip else image))
               for network in networks for flip in flips]
    logits = mean_logits(found for _, (found, _) in answers)
    maps = mean_logits(found.flip(flip) if flip else found for flip, (_, found) in answers)
    return logits[0].cpu().numpy(), maps[0].cpu().numpy()


def images_of(inputs: Arrays) -> Iterator[NDArray]:
    """The images (C, Z, Y, X) of an exam; the roles of each are its channels, in their order."""
    for place in range(1 + max((int(role.partition("@")[2] or 0) for role in inputs), default=0)):
        roles = [role for role in inputs if (role.partition("@")[2] or "0") == str(place)]
        yield np.concatenate([inputs[role] for role in roles])


def _flips(axes: Sequence[int]) -> list[tuple[int, ...]]:
    return list(chain.from_iterable(combinations([axis - 3 for axis in axes], count) for count in range(len(axes) + 1)))


def _mean_over_flips(forward: Callable[[Tensor], Tensor], image: Tensor, flips: Sequence[tuple[int, ...]]) -> NDArray[np.float32]:
    total = sum(forward(image.flip(flip) if flip else image)[0].cpu() for flip in flips)
    return (total / len(flips)).numpy()  # type: ignore[union-attr]


def restore(raw: NDArray[np.float32] | Seen, record: GridRecord, configuration: Configuration, context: Context) -> Answer:
    """Probabilities and values of the logits (K,); with maps the boxes that they point at, in voxels of the stored image."""
    logits = raw.logits if isinstance(raw, Seen) else raw
    readings = tuple(reading_of(head, logits[head.outputs.start:head.outputs.stop]) for head in heads_of(configuration))
    return Answer(readings, found=find_boxes(raw.maps, record, configuration) if isinstance(raw, Seen) else None)


def reading_of(head: Head, logits: NDArray) -> Reading:
    """What the logits of a target mean, corrected for the weights of its loss.

    A loss that weighs a class w times moves its odds by w (Elkan 2001, "The foundations of cost-sensitive learning",
    theorem 2), which the correction takes back: probabilities are those of the dataset, and no order changes.
    """
    corrected = np.asarray(logits, np.float64)
    if head.kind == Kind.CONTINUOUS:
        return Reading(head.name, head.kind, value=float(corrected[0] * head.std + head.mean), std=head.std,
                       logits=tuple(map(float, corrected)))
    if head.weights:
        corrected = corrected - np.log(head.weights)
    probabilities = probabilities_of(head.kind, corrected)
    return Reading(head.name, head.kind, head.classes, probabilities, logits=tuple(map(float, corrected)))


def probabilities_of(kind: Kind, logits: NDArray[np.float64]) -> tuple[float, ...]:
    """Probabilities of all classes of a target, from its logits."""
    if kind == Kind.MULTICLASS:
        powers = np.exp(logits - logits.max())
        return tuple(map(float, powers / powers.sum()))
    above = 1 / (1 + np.exp(-np.clip(logits, -700, 700)))  # beyond, exp overflows
    if kind == Kind.MULTILABEL:
        return tuple(map(float, above))
    falling = np.minimum.accumulate(above)  # of grades: "above the second" is never likelier than "above the first"
    return tuple(map(float, -np.diff(np.concatenate([[1.0], falling, [0.0]]))))


def write_prediction(prediction: Answer, spec: DatasetSpec, image: Image, path: Path) -> tuple[Path, ...]:
    """Writes `<unit>.json`: per target what was decided, the probabilities or the value, and the thresholds; boxes, if sought.

    Args:
        path: with the ending of the image, or without.
    """
    written = _file(path)
    document = {"format": PREDICTION_FORMAT, "refined": list(prediction.refined),
                "targets": {reading.name: _document(reading) for reading in prediction.readings}}
    if prediction.found is not None:
        document["localisation"] = boxes_document(prediction.found, decided_classes(prediction), image.stored.spacing_mm)
    write_value(written, document)
    return (written,)


def decided_classes(prediction: Answer) -> dict[str, tuple[str, ...]]:
    """Names of the classes that are there, by target."""
    return {reading.name: tuple(reading.classes[place] for place in reading.decided) for reading in prediction.readings}


def read_prediction(path: Path, spec: DatasetSpec) -> Answer:
    """The prediction in a file, given with its ending or without.

    Raises:
        ReadError: it is no file that `write_prediction` wrote.
    """
    file = path if path.suffix == ENDING and path.exists() else _file(path)
    document = read_json(file)
    try:
        if document["format"] != PREDICTION_FORMAT:
            raise ReadError(f"{file} has the format {document['format']!r}, and this autoseg reads {PREDICTION_FORMAT}")
        readings = tuple(_from_document(name, entry) for name, entry in document["targets"].items())
        found = boxes_in(document["localisation"]) if "localisation" in document else None
        return Answer(readings, tuple(map(str, document["refined"])), found=found)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ReadError(f"{file} is no prediction of a classification ({error!r}); predict again") from error


def _file(path: Path) -> Path:
    """The file of a unit, whose id may hold dots, from its path with the ending of the image, or without."""
    return path.with_name(path.name.removesuffix(image_ending(path) or "") + ENDING)


def _document(reading: Reading) -> dict[str, Any]:
    document: dict[str, Any] = {"kind": str(reading.kind)}
    if reading.kind == Kind.CONTINUOUS:
        return document | {"value": reading.value, "std": reading.std, "logits": list(reading.logits)}
    decided = [reading.classes[place] for place in reading.decided]
    document |= {"decided": decided if reading.kind == Kind.MULTILABEL else decided[0],
                 "probabilities": dict(zip(reading.classes, reading.probabilities, strict=True)), "logits": list(reading.logits)}
    return document | {"thresholds": list(reading.thresholds)} if reading.thresholds else document


def _from_document(name: str, entry: dict[str, Any]) -> Reading:
    kind, logits = Kind(entry["kind"]), tuple(map(float, entry["logits"]))
    if kind == Kind.CONTINUOUS:
        return Reading(name, kind, value=float(entry["value"]), std=float(entry["std"]), logits=logits)
    probabilities = {str(cls): float(value) for cls, value in entry["probabilities"].items()}
    if any(not 0 <= value <= 1 for value in probabilities.values()):
        raise ValueError(f"probabilities of {name} must lie in 0 to 1, found {probabilities}")
    return Reading(name, kind, tuple(probabilities), tuple(probabilities.values()), logits=logits,
                   thresholds=tuple(map(float, entry.get("thresholds", ()))))


def row(prediction: Answer, spec: DatasetSpec, image: Image | None = None) -> dict[str, float | str]:
    """Per target what was decided, or the value; and the probability of every class but the first of two."""
    columns: dict[str, float | str] = {}
    for reading in prediction.readings:
        if reading.kind == Kind.CONTINUOUS:
            columns[reading.name] = reading.value
            continue
        columns[reading.name] = "|".join(reading.classes[place] for place in reading.decided)
        columns |= {f"{reading.name}.{name}.probability": probability for name, probability in shown_probabilities(reading)}
        if reading.kind == Kind.BINARY:
            columns[f"{reading.name}.threshold"] = (reading.thresholds or (MIDDLE,))[0]
    return columns


def shown_probabilities(reading: Reading) -> list[tuple[str, float]]:
    """Classes with their probabilities; of two classes that exclude each other the second says all."""
    pairs = list(zip(reading.classes, reading.probabilities, strict=True))
    return pairs[1:] if reading.kind == Kind.BINARY else pairs


def expected_grade(reading: Reading) -> float:
    """Mean place of the class under its probabilities: what ranks units of an ordinal target."""
    return math.fsum(place * probability for place, probability in enumerate(reading.probabilities))
