"""What is odd about a case only beside the others: channels in another order, the same image twice."""

from __future__ import annotations

from collections.abc import Sequence

from autoseg.core.profiles import ChannelProfile, find_suspects
from autoseg.core.report import Failure
from autoseg.core.spec import DatasetSpec

# Sets of copies, and cases of a set, that a warning names: a line or two of a terminal.
MOST_SETS, MOST_IN_A_SET = 3, 4


def channel_warnings(spec: DatasetSpec, ids: Sequence[str], profiles: Sequence[Sequence[ChannelProfile]]) -> list[Failure]:
    """One warning for each case whose channels look as if they had been swapped; cases without profiles are left out."""
    names = [channel.name for entry in spec.inputs if entry.kind == "image" for channel in entry.channels]
    known = [place for place, found in enumerate(profiles) if len(found) == len(names)]
    warnings = []
    for suspect in find_suspects([profiles[place] for place in known]):
        moved = [f"{names[channel]} looks like {names[other]}" for channel, other in enumerate(suspect.order) if channel != other]
        warnings.append(Failure(ids[known[suspect.case]], "W_CHANNEL_SUSPECT", f"beside the other cases, {', '.join(moved)}; "
                                "look whether the files of these channels were swapped"))
    return warnings


def find_copies(ids: Sequence[str], contents: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Sets of units, sorted, whose images are the same; `contents` are their digests, empty where not known."""
    sets: dict[str, list[str]] = {}
    for name, content in zip(ids, contents, strict=True):
        if content:
            sets.setdefault(content, []).append(name)
    return tuple(sorted(tuple(sorted(names)) for names in sets.values() if len(names) > 1))


def copy_warnings(copies: Sequence[Sequence[str]]) -> list[Failure]:
    """One warning for all cases that hold the same image as another one, with the first sets by name."""
    if not copies:
        return []
    named = [_listed(names, MOST_IN_A_SET, " and ") for names in copies]
    advice = ("; they are kept in one fold, so that none is validated on what was trained on. Exclude the copies, or correct the "
              "files if these should be different cases")
    if len(copies) == 1:
        return [Failure(named[0], "W_COPY", f"hold the same image{advice}")]
    return [Failure(f"{sum(map(len, copies))} cases", "W_COPY", f"hold {len(copies)} images, each of them several times: "
                    f"{_listed(named, MOST_SETS, '; ')}{advice}")]


def _listed(names: Sequence[str], most: int, between: str) -> str:
    """The first `most` of the names, and how many more there are."""
    rest = len(names) - most
    return between.join([*names[:most], *([f"{rest} more"] if rest > 0 else [])])
