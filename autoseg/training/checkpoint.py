"""The state of a training run as one file: safetensors for tensors, JSON in its header for the rest.

A file's name holds its iteration and the digest of its bytes, so one atomic rename publishes both and a file that was
damaged later is recognised. Nothing is ever unpickled.
"""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from autoseg.io.atomic import sha256_bytes, write_bytes

_LOG = logging.getLogger(__name__)
_NAME = re.compile(r"(\d{8})-([0-9a-f]{16})\.checkpoint")
KEPT = 2


@dataclass(frozen=True)
class Checkpoint:
    """Everything that a run needs to go on.

    Attributes:
        iteration: optimisation steps done.
        tensors: by name.
        state: JSON values by name.
    """

    iteration: int
    tensors: dict[str, Tensor]
    state: dict[str, Any]


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> Path:
    """Path of the new checkpoint; older ones than the last two are removed. A kill leaves the old or the new one.

    Floats in `state` come back bit-equal.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.tensors.items()}
    content = safetensors.torch.save(tensors, metadata={"state": json.dumps(checkpoint.state)})
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{checkpoint.iteration:08d}-{sha256_bytes(content)[:16]}.checkpoint"
    write_bytes(path, content)
    for old in [other for other in _newest_first(folder) if other != path][KEPT - 1:]:
        old.unlink(missing_ok=True)
    return path


def read_newest_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest checkpoint that is whole; None when there is none. Damaged ones are passed over with a warning."""
    for path in _newest_first(folder):
        try:
            content = path.read_bytes()
            if sha256_bytes(content)[:16] != path.stem.partition("-")[2]:
                raise ValueError("its digest differs from the one in its name")
            return Checkpoint(int(path.name[:8]), safetensors.torch.load(content), _state(content))
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            _LOG.warning("checkpoint %s is damaged (%s); the one before it is used", path, error)
    return None


def _newest_first(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted((path for path in folder.iterdir() if _NAME.fullmatch(path.name)),
                  key=lambda path: (path.name[:8], path.stat().st_mtime_ns), reverse=True)


def _state(content: bytes) -> dict[str, Any]:
    """The JSON in a safetensors header: 8 bytes of length, then the header, which holds strings by name."""
    length = int.from_bytes(content[:8], "little")
    return json.loads(json.loads(content[8:8 + length])["__metadata__"]["state"])
