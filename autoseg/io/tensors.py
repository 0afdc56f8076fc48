"""What a safetensors file says it holds, checked before any tensor is read.

The header is JSON after its own length in 8 bytes, the tensors follow without gap or overlap
(https://github.com/huggingface/safetensors, "Format"). The library allows headers of 100 MB and allocates what shapes ask for;
here a header is small, and everything it says has to agree with the size of the file.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoseg.core.errors import ReadError, UnsafeError
from autoseg.io.values import parse_json

# An entry takes some 130 bytes, so this is enough for 8,000 tensors; the largest nnU-Net has 500.
LARGEST_HEADER = 2**20
# Bytes per value (safetensors 0.8, `Dtype`); sizes below a byte are no weights of ours.
ITEM_BYTES = {"BOOL": 1, "U8": 1, "I8": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2, "I32": 4, "U32": 4, "F32": 4,
              "I64": 8, "U64": 8, "F64": 8}
# How files begin that are opened by running what they say: a pickle (protocol 2 and up), a zip (PyTorch since 1.6), gzip.
PICKLE_BEGINNINGS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04", b"\x1f\x8b")


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file: `dtype` as safetensors names it (`F32`)."""

    dtype: str
    shape: tuple[int, ...]


def stored_tensors(path: Path) -> dict[str, StoredTensor]:
    """Name -> tensor of a safetensors file, of which only the header was read.

    Raises:
        ReadError: the file is missing, torn or no safetensors file.
        UnsafeError: it is a pickle, or its header is too large or does not agree with the file.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start, brace = file.read(8), file.read(1)
            if brace != b"{" and start.startswith(PICKLE_BEGINNINGS):  # a header of 640 bytes begins like a pickle, too
                raise UnsafeError(f"{path} is no safetensors file but a PyTorch checkpoint, pickle or archive; opening one can "
                                  "run code, so it is never opened", code="E_PICKLE",
                                  hint="convert the weights to safetensors where they were made")
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            if not 2 <= length <= size - 8:
                raise ReadError(f"weights {path} cannot be read ({size} bytes are no safetensors file, or a part of one); train "
                                "again or restore the file")
            if length > LARGEST_HEADER:
                raise _unsafe(path, f"its header takes {length} bytes, and that of a network at most {LARGEST_HEADER}")
            header = brace + file.read(length - 1)
    except OSError as error:
        raise ReadError(f"weights {path} cannot be read ({error}); train again or restore the file") from error
    try:
        document = parse_json(header.decode("utf-8"), source=str(path))
    except UnicodeDecodeError as error:
        raise ReadError(f"weights {path} cannot be read (its header is no text: {error})") from error
    return _checked(path, document, size - 8 - length)


def _checked(path: Path, document: Any, data_bytes: int) -> dict[str, StoredTensor]:
    """The entries of a header, whose tensors must fill the data exactly."""
    if not isinstance(document, dict):
        raise _unsafe(path, "its header is no mapping of tensors")
    document.pop("__metadata__", None)
    spans, found = [], {}
    for name, entry in document.items():
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            raise _unsafe(path, f"tensor {name!r} needs dtype, shape and data_offsets, and nothing else")
        shape, offsets, dtype = entry["shape"], entry["data_offsets"], entry["dtype"]
        if not (_are_sizes(shape) and _are_sizes(offsets) and len(offsets) == 2):
            raise _unsafe(path, f"shape and offsets of tensor {name!r} must be whole numbers from 0 up")
        if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
            raise _unsafe(path, f"tensor {name!r} has the unknown type {dtype!r}")
        if offsets[1] - offsets[0] != math.prod(shape) * ITEM_BYTES[dtype]:
            raise _unsafe(path, f"tensor {name!r} of shape {shape} and type {dtype} does not take the bytes {offsets[0]} to "
                                f"{offsets[1]}")
        spans.append((offsets[0], offsets[1]))
        found[name] = StoredTensor(dtype, tuple(shape))
    end = 0
    for begin, stop in sorted(spans):
        if begin != end:
            raise _unsafe(path, f"its tensors overlap or leave a gap at byte {min(begin, end)}")
        end = stop
    if end != data_bytes:
        raise _unsafe(path, f"its tensors take {end} bytes and the file holds {data_bytes}")
    return found


def _are_sizes(values: Any) -> bool:
    return isinstance(values, list) and len(values) <= 16 and all(type(value) is int and 0 <= value < 2**63 for value in values)


def _unsafe(path: Path, what: str) -> UnsafeError:
    return UnsafeError(f"weights {path} are refused: {what}", code="E_WEIGHTS", hint="take the model from where it was made")
