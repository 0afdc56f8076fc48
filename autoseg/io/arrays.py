"""Named arrays in a file, as safetensors: no code runs when they are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from autoseg.core.errors import ReadError
from autoseg.io.atomic import write_bytes
from autoseg.io.tensors import stored_tensors


def write_arrays(path: Path, arrays: dict[str, NDArray]) -> None:
    """Replaces `path` by these arrays, atomically; the same arrays give the same bytes."""
    write_bytes(path, safetensors.numpy.save({name: np.asarray(arrays[name], order="C") for name in sorted(arrays)}))


def read_arrays(path: Path) -> dict[str, NDArray]:
    """The arrays in a file that `write_arrays` wrote.

    Raises:
        ReadError: the file is missing, torn or no safetensors file.
        UnsafeError: it is a pickle, or its header does not agree with the file.
    """
    stored_tensors(path)
    try:
        return safetensors.numpy.load(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise ReadError(f"{path} cannot be read ({error}); make it again or restore the file") from error
