"""Regular expressions of specifications, which may come from strangers: each match has a time limit."""

from __future__ import annotations

from functools import lru_cache

import regex

from autoseg.core.errors import DatasetError
from autoseg.core.text import printable

# Names have at most 255 characters, in which any sensible expression is found within microseconds. Nested repetition, as in
# (a+)+$, takes time that doubles with every character.
SECONDS = 1.0


def search(expression: str, text: str) -> regex.Match[str] | None:
    """Where `expression` is found in `text` first; None where it is not.

    Raises:
        DatasetError: the search does not end within `SECONDS`.
    """
    return _limited(compiled(expression), text, whole=False)


def match_whole(pattern: regex.Pattern[str], text: str) -> regex.Match[str] | None:
    """The match of all of `text`; see `search`."""
    return _limited(pattern, text, whole=True)


@lru_cache(maxsize=256)
def compiled(expression: str) -> regex.Pattern[str]:
    """The compiled expression, in the syntax of Python's `re`."""
    return regex.compile(expression)


def _limited(pattern: regex.Pattern[str], text: str, *, whole: bool) -> regex.Match[str] | None:
    try:
        return (pattern.fullmatch if whole else pattern.search)(text, timeout=SECONDS)
    except TimeoutError as error:
        raise DatasetError(f"the pattern {printable(pattern.pattern[:200])!r} does not come to an end on {printable(text)!r} "
                           f"within {SECONDS:g} s; write it without repetition inside repetition, such as (a+)+",
                           code="E_PATTERN") from error
