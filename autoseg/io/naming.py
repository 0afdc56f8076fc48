"""How the files of an unknown folder are named: patterns with `{case}`, or `{group}` and `{visit}`, found by trying every way
to read a name."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from autoseg.io.images.endings import image_ending, split_ending

# Words in file and folder names that mark label maps, the most telling first.
LABEL_WORDS = ("label", "labels", "dseg", "seg", "segm", "segmentation", "segmentations", "gt", "groundtruth", "truth",
               "annotation", "annotations", "manual", "contour", "contours", "mask", "masks", "roi", "rois", "instance",
               "instances")
# Of the files that the best pattern has, another channel has at least this share; what is missing is then a problem that
# `check` lists. Below it the files are something else.
_CHANNEL_SHARE = 0.9
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_BORDER = re.compile(r"[_\-. ]|(?<=[A-Za-z])(?=[0-9])|(?<=[0-9])(?=[A-Za-z])")
_CASE = "{case}"
_PLACE = re.compile(r"\{[a-z]+\}")
# The case id where it is put together from two folders: patient and visit.
VISIT_ID = "{group}_{visit}"


@dataclass(frozen=True)
class Naming:
    """One pattern and the files that follow it, by case."""

    pattern: str
    files: dict[str, str]

    @property
    def literal(self) -> str:
        """The pattern without what differs between cases."""
        return _PLACE.sub(" ", self.pattern)

    @property
    def is_by_visit(self) -> bool:
        """The case id is made of two folders, as `VISIT_ID` says."""
        return "{visit}" in self.pattern


@dataclass(frozen=True)
class Arrangement:
    """Patterns that belong together: one per channel, one of the label maps (or None), and other annotations."""

    channels: tuple[Naming, ...]
    label: Naming | None
    others: tuple[Naming, ...] = ()

    @property
    def cases(self) -> list[str]:
        """Cases that have every file, sorted."""
        sets = [set(naming.files) for naming in (*self.channels, *([self.label] if self.label else []))]
        return sorted(set.intersection(*sets))


def find_namings(names: Iterable[str]) -> list[Naming]:
    """Patterns that image files follow, of one case only where there is no other; of those with the same files by case the
    plainest."""
    table: dict[str, dict[str, str]] = defaultdict(dict)
    twice = set()
    for name in names:
        if image_ending(Path(name)) is None:
            continue
        for case, pattern in _readings(name):
            if table[pattern].setdefault(case, name) != name:
                twice.add(pattern)
    if any(len(files) > 1 for files in table.values()):
        twice |= {pattern for pattern, files in table.items() if len(files) == 1}
    plainest: dict[tuple[tuple[str, str], ...], str] = {}
    for pattern in sorted(set(table) - twice, key=lambda p: (p.count("*"), p.count("{visit}"), -p.count(_CASE), p)):
        plainest.setdefault(tuple(sorted(table[pattern].items())), pattern)
    return [Naming(pattern, dict(files)) for files, pattern in plainest.items()]


def arrange(namings: Sequence[Naming]) -> Arrangement | None:
    """The label maps that words in the names mark, with the images of the same cases; None where no word marks any."""
    common = set.intersection(*(_words(name) for naming in namings for name in naming.files.values()))
    ranks = [_rank(naming, common) for naming in namings]
    images = [naming for naming, rank in zip(namings, ranks, strict=True) if rank is None]
    best: tuple[tuple[float, ...], Naming] | None = None
    for naming, rank in zip(namings, ranks, strict=True):
        shared = max((_shared(naming, image) for image in images), default=0) if rank is not None else 0
        score = (shared, -(rank or 0), -naming.is_by_visit, _id_length(naming), -naming.pattern.count("*"))
        if shared and (best is None or score > best[0]):
            best = (score, naming)
    if best is None:
        return None
    label = best[1]
    others = [naming for naming, rank in zip(namings, ranks, strict=True)
              if rank is not None and naming is not label and set(naming.files) == set(label.files)]
    return Arrangement(channels_of(label, images), label, tuple(others))


def channels_of(label: Naming, images: Sequence[Naming]) -> tuple[Naming, ...]:
    """The patterns whose files have the cases of the label maps, one per file, in the order of their names."""
    most = max(_shared(label, image) for image in images)
    found = sorted((image for image in images if _shared(label, image) >= _CHANNEL_SHARE * most),
                   key=lambda image: (-_shared(label, image), len(image.files), image.pattern.count("*"), image.pattern))
    channels: list[Naming] = []
    taken: set[str] = set()
    for image in found:
        files = {image.files[case] for case in image.files if case in label.files}
        if not files & taken:
            channels.append(image)
            taken |= files
    return tuple(sorted(channels, key=lambda image: image.pattern))


def unlabelled(namings: Sequence[Naming]) -> Arrangement:
    """Images alone: nnU-Net's `<case>_0000` and so on, else every file a case of its own."""
    numbered = [naming for naming in namings if re.search(r"\{case\}_\d{4}\.", naming.pattern)]
    most = max((len(naming.files) for naming in numbered), default=0)
    full = [naming for naming in numbered if len(naming.files) == most]
    if full and sum(len(naming.files) for naming in full) == len({name for naming in namings for name in naming.files.values()}):
        return Arrangement(tuple(sorted(full, key=lambda naming: naming.pattern)), None)
    return Arrangement((max(namings, key=lambda naming: (len(naming.files), _id_length(naming))),), None)


def channel_words(patterns: Sequence[str]) -> list[str]:
    """What tells the patterns of the channels apart (`t1`, `flair`, `0000`); of a single one the words in its file name."""
    plain = [_PLACE.sub("_", pattern) for pattern in patterns]
    texts = [split_ending(Path(text.replace("/", "_") if len(plain) > 1 else text))[0] for text in plain]
    parts = [[word for word in re.split(r"[^A-Za-z0-9]+", text) if word] for text in texts]
    common = set.intersection(*map(set, parts)) if len(parts) > 1 else set()
    return ["_".join(word for word in words if word not in common) for words in parts]


def _readings(name: str) -> Iterator[tuple[str, str]]:
    """Every (case, pattern) that a file name may mean."""
    *folders, file = name.split("/")
    stem, ending = split_ending(Path(file))
    for folder in dict.fromkeys(folders):
        parts = [_CASE if part == folder else part for part in folders]
        yield folder, "/".join([*parts, _replaced(stem, folder) + ending])
    for first, patient in enumerate(folders):
        for second in range(first + 1, len(folders) if any(c.isdigit() for c in patient) else 0):
            parts = [*folders[:first], "{group}", *folders[first + 1:second], "{visit}", *folders[second + 1:]]
            yield f"{patient}_{folders[second]}", "/".join([*parts, file])
    for case, pattern in _stem_readings(stem):
        places = ["*" if part in case and any(c.isdigit() for c in part) else part for part in folders]
        yield case, "/".join([*places, pattern + ending])


def _stem_readings(stem: str) -> Iterator[tuple[str, str]]:
    """The whole stem is the case, or what stands before or behind one of the borders in it."""
    yield stem, _CASE
    for border in _BORDER.finditer(stem):
        if border.start() > 0 and border.end() < len(stem):
            yield stem[:border.start()], _CASE + stem[border.start():]
            yield stem[border.end():], stem[:border.end()] + _CASE


def _replaced(stem: str, case: str) -> str:
    """The stem with the case in it replaced where it stands between borders."""
    return re.sub(rf"(?<![A-Za-z0-9]){re.escape(case)}(?![A-Za-z0-9])", _CASE, stem, count=1)


def _words(text: str) -> set[str]:
    return {word.lower() for word in _WORD.findall(text)}


def _rank(naming: Naming, common: set[str]) -> int | None:
    """Place of the most telling word among `LABEL_WORDS`; None where no word marks label maps."""
    marked = [LABEL_WORDS.index(word) for word in _words(naming.literal) - common if word in LABEL_WORDS]
    return min(marked, default=None)


def _shared(naming: Naming, other: Naming) -> int:
    return len(naming.files.keys() & other.files.keys())


def _id_length(naming: Naming) -> float:
    return sum(map(len, naming.files)) / max(1, len(naming.files))
