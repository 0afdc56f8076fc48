"""Regular expressions and patterns of paths in specifications, which may come from strangers: each match has a time limit."""

from __future__ import annotations

import re
from functools import lru_cache

import regex

from autoseg.core.errors import DatasetError
from autoseg.core.text import printable

# Names have at most 255 characters, in which any sensible expression is found within microseconds. Nested repetition, as in
# (a+)+$, takes time that doubles with every character.
SECONDS = 1.0
# What stands for a text in a pattern: {name}, {name:shape}, *, ** and **/.
PLACES = re.compile(r"\{(?P<name>[a-z_]+)(?::(?P<shape>[^{}/]+))?\}|\*\*/|\*\*|\*")
# Inside the braces after the colon: any text, one character, one character of a set.
_SHAPE_TOKENS = re.compile(r"\*|\?|\[!?[^\]]+\]")


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


@lru_cache(maxsize=256)
def pattern_regex(pattern: str) -> regex.Pattern[str]:
    """The regular expression that a pattern stands for; matches the whole relative name.

    A pattern that ends in `/` matches every file in that folder.
    """
    if pattern.endswith("/"):
        pattern += "*"
    tokens = list(PLACES.finditer(pattern))
    shapes = {token["name"]: token["shape"] for token in reversed(tokens) if token["shape"]}
    seen: set[str] = set()
    parts, end = [], 0
    for token in tokens:
        parts += [re.escape(pattern[end:token.start()]), _token_regex(token, shapes, seen)]
        end = token.end()
    return compiled("".join(parts) + re.escape(pattern[end:]))


def filled(template: str, match: regex.Match[str]) -> str:
    """The template with each `{name}` replaced by what it stood for in the match, nothing where it stood for none."""
    named = match.groupdict()
    return PLACES.sub(lambda token: named.get(token["name"]) or "", template)


def _limited(pattern: regex.Pattern[str], text: str, *, whole: bool) -> regex.Match[str] | None:
    try:
        return (pattern.fullmatch if whole else pattern.search)(text, timeout=SECONDS)
    except TimeoutError as error:
        raise DatasetError(f"the pattern {printable(pattern.pattern[:200])!r} does not come to an end on {printable(text)!r} "
                           f"within {SECONDS:g} s; write it without repetition inside repetition, such as (a+)+",
                           code="E_PATTERN") from error


def _token_regex(token: re.Match[str], shapes: dict[str, str], seen: set[str]) -> str:
    name = token["name"]
    if name is None:
        return {"**/": "(?:[^/]+/)*", "**": ".*", "*": "[^/]*"}[token.group()]
    if name in seen:
        return f"(?P={name})"
    seen.add(name)
    return f"(?P<{name}>{_shape_regex(shapes[name]) if name in shapes else '[^/]+'})"


def _shape_regex(shape: str) -> str:
    parts, end = [], 0
    for token in _SHAPE_TOKENS.finditer(shape):
        wild = {"*": "[^/]*", "?": "[^/]"}.get(token.group()) or token.group().replace("[!", "[^")
        parts += [re.escape(shape[end:token.start()]), wild]
        end = token.end()
    return "".join(parts) + re.escape(shape[end:])
