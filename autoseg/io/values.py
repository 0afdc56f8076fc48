"""Frozen values to JSON and back; what does not fit is refused with file, key path and the nearest valid name."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from autoseg.core.errors import IncompatibleError, ReadError, unknown_name
from autoseg.core.text import printable
from autoseg.io.atomic import write_json
from autoseg.io.documents import read_document, require_plain
from autoseg.io.plain import to_plain

__all__ = ["from_plain", "parse_json", "read_json", "read_value", "to_plain", "write_value"]

T = TypeVar("T")
# The largest document of autoseg is a fingerprint: about 0.6 kB a case, so this is room for 400,000 of them.
MAX_BYTES = 2**28
_UNKNOWN_KEY = ("extra_forbidden", "unexpected_keyword_argument")


def from_plain(plain: Any, kind: type[T], *, source: str) -> T:
    """The value of type `kind` that `to_plain` made into `plain`.

    Lists become tuples and text keys numbers where the type says so; None becomes nan where a float is needed.

    Args:
        source: file or place that `plain` came from, for the message.
    Raises:
        IncompatibleError: a key is unknown or missing, or a value has the wrong type; all of them are listed.
    """
    _require_known_format(plain, kind, source)
    adapter = _adapter(kind)  # type: ignore[arg-type]  # a class is hashable
    try:
        value = adapter.validate_python(plain)
    except ValidationError as first:
        try:
            value = adapter.validate_python(_with_nan(plain, first))
        except ValidationError as error:
            raise IncompatibleError(f"{source}: {_describe(error, plain, kind)}") from None
    unknown = list(_unknown_keys(plain, value, ""))
    if unknown:
        raise IncompatibleError(f"{source}: {'; '.join(unknown)}")
    return value


def _require_known_format(plain: Any, kind: Any, source: str) -> None:
    """A document of a newer format is refused as such: its unknown keys are no misspelt ones."""
    known = next((field.default for field in dataclasses.fields(kind) if field.name == "format"), None) \
        if dataclasses.is_dataclass(kind) else None
    found = plain.get("format") if isinstance(plain, dict) else None
    if isinstance(known, int) and isinstance(found, int) and found > known:
        raise IncompatibleError(f"{source} has format {found}, and this autoseg understands {known} and older: a newer autoseg "
                                "wrote it; update autoseg, or make it anew with this version", code="E_NEWER_FORMAT",
                                hint="pip install -U autoseg")


def read_value(path: Path, kind: type[T]) -> T:
    """The value in a JSON file that `write_value` wrote.

    Raises:
        ReadError: the file is missing or not JSON.
        IncompatibleError: the content does not fit `kind`.
    """
    return from_plain(read_json(path), kind, source=str(path))


def write_value(path: Path, value: Any, *, durable: bool = True) -> None:
    """Replace `path` by the JSON form of `value`, atomically; `durable` as in `io.atomic.replacing`."""
    write_json(path, value, durable=durable)


def read_json(path: Path, *, most_bytes: int = MAX_BYTES) -> Any:
    """The document in a JSON file.

    Raises:
        ReadError: missing, not a regular file, larger than `most_bytes`, or not JSON; keys that occur twice, nan, infinity,
            numbers beyond 64 bits and control characters are refused.
    """
    return parse_json(read_document(path, most_bytes), source=str(path))


def parse_json(text: str, *, source: str) -> Any:
    """The document in JSON text; `source` names it in the message of the ReadError for what is not JSON."""
    try:
        document = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise ReadError(f"{source} is not valid JSON: line {error.lineno}, column {error.colno}: {error.msg}",
                        code="E_JSON") from error
    except RecursionError as error:
        raise ReadError(f"{source} is nested too deeply to be read", code="E_DOCUMENT") from error
    except ValueError as error:
        raise ReadError(f"{source}: {_with_place(error, text)}", code="E_JSON") from error
    require_plain(document, source)
    return document


@lru_cache(maxsize=64)
def _adapter(kind: Any) -> TypeAdapter:
    return TypeAdapter(kind)


class _Refused(ValueError):
    """What JSON readers disagree about: the last of the `occurrences` of `token`, if it does not stand elsewhere too."""

    def __init__(self, message: str, token: str, occurrences: int) -> None:
        super().__init__(message)
        self.token, self.occurrences = token, occurrences


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        keys = [key for key, _ in pairs]
        key = next(key for key in keys if keys.count(key) > 1)
        raise _Refused(f"key {printable(key)!r} occurs twice; remove one of them", json.dumps(key, ensure_ascii=False), 2)
    return document


def _no_constant(word: str) -> float:
    raise _Refused(f"{word} is not a JSON number; write null", word, 1)


def _with_place(error: ValueError, text: str) -> str:
    """The message with line and column where only one place can be meant: json says none for these."""
    if not isinstance(error, _Refused) or text.count(error.token) != error.occurrences:
        return str(error)
    place = text.rfind(error.token)
    return f"line {text.count(chr(10), 0, place) + 1}, column {place - text.rfind(chr(10), 0, place)}: {error}"


def _with_nan(plain: Any, error: ValidationError) -> Any:
    """Copy of `plain` with nan in the places where `error` says that a float was expected and None was found."""
    filled = copy.deepcopy(plain)
    for entry in error.errors(include_url=False):
        if entry["type"] != "float_type" or entry["input"] is not None:
            continue
        place = _without_tags(filled, entry["loc"])
        parent = _follow(filled, place[:-1])
        if isinstance(parent, (dict, list)):
            parent[place[-1]] = math.nan  # type: ignore[index]
    return filled


def _follow(plain: Any, path: Sequence[int | str]) -> Any:
    for step in path:
        try:
            plain = plain[step]
        except (KeyError, IndexError, TypeError):
            return None
    return plain


def _describe(error: ValidationError, plain: Any, kind: Any) -> str:
    sentences = []
    for entry in error.errors(include_url=False):
        where = _path_text(plain, _without_tags(plain, entry["loc"]))
        if entry["type"] in _UNKNOWN_KEY:
            path = where.rpartition(".")[0]
            known = _field_names(kind, entry["loc"][:-1])
            sentences.append(unknown_name(where, [f"{path}.{name}" if path else name for name in known], "key"))
        elif entry["type"] in ("missing", "missing_argument"):
            sentences.append(f"key {where!r} is missing")
        elif entry["type"] in ("union_tag_invalid", "union_tag_not_found"):
            context = entry["ctx"]
            key = f"{where}.{context['discriminator'].strip(chr(39))}"
            sentences.append(f"key {key!r} is missing" if "tag" not in context else
                             f"{key} is {context['tag']!r}, expected one of {context['expected_tags']}")
        elif entry["type"] == "value_error":
            sentences.append(f"{where + ': ' if where else ''}{entry['msg'].removeprefix('Value error, ')}")
        else:
            sentences.append(f"{where or 'the document'} is {_short(entry['input'])}: {entry['msg']}")
    return "; ".join(sentences)


def _without_tags(plain: Any, location: Sequence[int | str]) -> list[int | str]:
    """A place of pydantic without the tags of unions (`network.plain_unet.strides`), which stand for no key."""
    kept: list[int | str] = []
    for number, step in enumerate(location, start=1):
        below = _follow(plain, kept)
        if not (isinstance(below, dict) and isinstance(step, str) and step not in below and number < len(location)):
            kept.append(step)
    return kept


def _field_names(kind: Any, location: Sequence[int | str]) -> list[str]:
    """Fields of the dataclass that stands at `location` inside `kind`; empty where there is none."""
    for step in location:
        tagged = [member for member in get_args(kind) if dataclasses.is_dataclass(member)
                  and step in get_args(get_type_hints(member).get("kind"))]
        if tagged:
            kind = tagged[0]
            continue
        if dataclasses.is_dataclass(kind):
            kind = get_type_hints(kind).get(str(step))
        else:
            kind = next((argument for argument in reversed(get_args(kind)) if argument is not Ellipsis), None)
        members = [argument for argument in get_args(kind) if dataclasses.is_dataclass(argument)]
        if get_origin(kind) in (Union, UnionType) and len(members) == 1:
            kind = members[0]
    return [field.name for field in dataclasses.fields(kind)] if dataclasses.is_dataclass(kind) else []


def _path_text(plain: Any, location: Sequence[int | str]) -> str:
    """`labels.Anterior.value` rather than `labels.0.value`, where the entries of a list have names."""
    words = []
    for step in location:
        child = _follow(plain, (step,))
        named = isinstance(step, int) and isinstance(child, dict)
        words.append(str(child.get("name", child.get("role", step)) if named else step))
        plain = child
    return ".".join(words)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _unknown_keys(plain: Any, value: Any, path: str) -> Iterator[str]:
    """Keys of `plain` that no field of the dataclasses in `value` took; plain dataclasses would drop them silently."""
    if dataclasses.is_dataclass(value) and isinstance(plain, dict):
        known = [field.name for field in dataclasses.fields(value)]
        yield from (unknown_name(path + str(key), [path + name for name in known], "key")
                    for key in plain if key not in known)
        children: Any = ((key, plain[key], getattr(value, key)) for key in known if key in plain)
    elif isinstance(value, (tuple, list)) and isinstance(plain, (list, tuple)):
        children = ((index, plain[index], child) for index, child in enumerate(value))
    elif isinstance(value, dict) and isinstance(plain, dict):
        children = ((key, plain.get(str(key)), child) for key, child in value.items())
    else:
        return
    for key, below, child in children:
        if not isinstance(child, (int, float, str)):
            yield from _unknown_keys(below, child, f"{path}{key}.")
