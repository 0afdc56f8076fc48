"""Left and right in names: which labels are each other's mirror image."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Side = Literal["left", "right"]

# Words and abbreviations of anatomical label sets (FreeSurfer: Left-Hippocampus, ctx-lh-*; TotalSegmentator: kidney_left).
_WORDS: dict[str, Side] = {"left": "left", "right": "right", "lh": "left", "rh": "right", "lt": "left", "rt": "right"}
# A single letter is a side only where its partner exists: hippocampus_l and hippocampus_r.
_LETTERS: dict[str, Side] = {"l": "left", "r": "right"}
# Chambers of the heart are called left and right after their circulation; they are no mirror images of each other.
_HEART = {"heart", "cardiac", "atrium", "atrial", "myocardium", "myocardial", "coronary"}
_BRAIN_VENTRICLE = {"lateral", "lat", "inf", "inferior", "brain", "cerebral", "horn"}
_PARTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")


@dataclass(frozen=True)
class Sides:
    """What names say of left and right.

    Attributes:
        pairs: (left, right) places in the list of names.
        alone: names with a side whose partner is not in the list.
    """

    pairs: tuple[tuple[int, int], ...]
    alone: tuple[str, ...]


@dataclass(frozen=True)
class Laterality:
    """What mirroring the left-right axis does to the outputs of a network.

    Attributes:
        label_pairs: label indices that are swapped in a mirrored reference.
        output_pairs: outputs that are swapped back in test-time mirroring.
        unclear: why the axis cannot be mirrored; empty where it can.
        names: names that have a side, for the reasons.
    """

    label_pairs: tuple[tuple[int, int], ...] = ()
    output_pairs: tuple[tuple[int, int], ...] = ()
    unclear: str = ""
    names: tuple[str, ...] = ()

    @property
    def has_sides(self) -> bool:
        return bool(self.label_pairs or self.unclear)


def find_sides(names: Sequence[str]) -> Sides:
    """Pairs of names that differ in left and right only, and names with a side but no partner."""
    words = [_split(name) for name in names]
    sided = [_side(parts, {**_WORDS, **_LETTERS}) for parts in words]
    place = {key: number for number, key in enumerate(sided) if key is not None}
    pairs, alone = [], []
    for number, (name, parts, key) in enumerate(zip(names, words, sided, strict=True)):
        if key is None or _is_heart(parts):
            continue
        side, rest = key
        partner = place.get(("right" if side == "left" else "left", rest))
        if partner is None:
            alone += [name] if _side(parts, _WORDS) is not None else []
        elif side == "left":
            pairs.append((number, partner))
    return Sides(tuple(pairs), tuple(alone))


def find_laterality(labels: Sequence[str], regions: Mapping[str, Sequence[int]] | None) -> Laterality:
    """What mirroring left and right means for labels (indices 1 to n) and, where these are the outputs, for regions.

    Args:
        labels: names in the order of their indices.
        regions: name -> label indices, one per output; None where the outputs are background and labels.
    """
    sides = find_sides(labels)
    pairs = tuple((left + 1, right + 1) for left, right in sides.pairs)
    names = tuple(labels[place] for pair in sides.pairs for place in pair) + sides.alone
    vague = [name for name in labels if pairs and _may_be_heart_or_brain(_split(name))]
    if vague:
        return Laterality(unclear=f"{', '.join(vague)} may be of the heart or of the brain", names=(*names, *vague))
    if sides.alone:
        return Laterality(unclear=f"{', '.join(sides.alone)} has no partner of the other side", names=names)
    if regions is None:
        return Laterality(pairs, pairs, names=names)
    outputs = _swapped_outputs(list(regions.values()), dict([*pairs, *((right, left) for left, right in pairs)]))
    said = find_sides(list(regions))
    if outputs is None or said.alone or set(said.pairs) - {tuple(sorted(pair)) for pair in outputs} - set(outputs):
        return Laterality(unclear="with left and right exchanged, some region is no region", names=names or tuple(regions))
    return Laterality(pairs, outputs, names=names)


def _swapped_outputs(regions: list[Sequence[int]], swap: Mapping[int, int]) -> tuple[tuple[int, int], ...] | None:
    """Pairs of regions that a swap of labels turns into each other; None where one becomes something else."""
    sets = [frozenset(region) for region in regions]
    mirrored = [frozenset(swap.get(label, label) for label in region) for region in sets]
    if any(region not in sets for region in mirrored):
        return None
    partners = [number if region == sets[number] else sets.index(region) for number, region in enumerate(mirrored)]
    return tuple((number, partner) for number, partner in enumerate(partners) if number < partner)


def _split(name: str) -> tuple[str, ...]:
    """Lower-case words and numbers of a name: LeftKidney, left_kidney and `left kidney` are the same."""
    return tuple(part.lower() for part in _PARTS.findall(name))


def _side(parts: Sequence[str], words: Mapping[str, Side]) -> tuple[Side, tuple[str, ...]] | None:
    """The side that a name says, and its other words in order; None where it says none, or several."""
    places = [place for place, part in enumerate(parts) if part in words]
    if len(places) != 1:
        return None
    rest = tuple(part for place, part in enumerate(parts) if place != places[0])
    return words[parts[places[0]]], rest


def _may_be_heart_or_brain(parts: Sequence[str]) -> bool:
    """A ventricle on a side that no other word places: mirror images of each other in the brain, not in the heart."""
    said = set(parts)
    return "ventricle" in said and _side(parts, {**_WORDS, **_LETTERS}) is not None and not said & (_HEART | _BRAIN_VENTRICLE)


def _is_heart(parts: Sequence[str]) -> bool:
    said = set(parts)
    return bool(said & _HEART) or ("ventricle" in said and not said & _BRAIN_VENTRICLE)
