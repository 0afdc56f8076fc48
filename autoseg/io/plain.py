"""Values as JSON can hold them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import numpy as np


def to_plain(value: Any) -> Any:
    """`value` as dicts with text keys, lists, text, numbers, booleans and None.

    Fields of dataclasses whose metadata says `left_out_if_none` are left out where they are None.

    Dataclasses become dicts by field name, tuples and arrays lists, paths text. JSON has no word for nan and infinity
    (RFC 8259, section 6): nan becomes None, infinities the texts `inf` and `-inf`.

    Raises:
        TypeError: a type without a plain form (sets have no order, functions no value).
    """
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return _plain_float(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        found = {field: getattr(value, field.name) for field in dataclasses.fields(value)}
        return {field.name: to_plain(child) for field, child in found.items()
                if child is not None or not field.metadata.get("left_out_if_none")}
    if isinstance(value, Mapping):
        return {str(key): to_plain(child) for key, child in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(child) for child in value]
    if isinstance(value, PurePath):
        return value.as_posix()
    if isinstance(value, (np.generic, np.ndarray)):
        return to_plain(value.tolist())
    raise TypeError(f"{type(value).__name__} has no plain form: {value!r}")


def _plain_float(value: float) -> float | str | None:
    if math.isfinite(value):
        return float(value)
    return None if math.isnan(value) else ("inf" if value > 0 else "-inf")
