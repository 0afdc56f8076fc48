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
        run: digest of the run that it belongs to.
    """

    iteration: int
    tensors: dict[str, Tensor]
    state: dict[str, Any]
    run: str = ""


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> Path:
    """Path of the new checkpoint; of all others the one before it is kept. A kill leaves the old or the new one.

    Those of later iterations go too: a run that writes an earlier one could not use them. Floats in `state` come back
    bit-equal.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.tensors.items()}
    about = {"iteration": checkpoint.iteration, "run": checkpoint.run, "state": checkpoint.state}
    content = safetensors.torch.save(tensors, metadata={"state": json.dumps(about)})
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{checkpoint.iteration:08d}-{sha256_bytes(content)[:16]}.checkpoint"
    write_bytes(path, content)
    found = _newest_first(folder)
    kept = [path, *(other for other in found if other.name[:8] < path.name[:8])][:KEPT]
    for other in found:
        if other not in kept:
            other.unlink(missing_ok=True)
    return path


def read_newest_checkpoint(folder: Path, run: str = "") -> Checkpoint | None:
    """The newest checkpoint that is whole and belongs to `run`; None when there is none.

    Others are passed over with a warning that names them; where none is left, another warning says so.
    """
    found = _newest_first(folder)
    for path in found:
        try:
            return _read(path, run)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            _LOG.warning("checkpoint %s cannot be used: %s; the one before it is taken", path, error)
    if found:
        _LOG.warning("none of the %d checkpoint(s) in %s can be used: TRAINING BEGINS ANEW", len(found), folder)
    return None


def _read(path: Path, run: str) -> Checkpoint:
    content = path.read_bytes()
    digest = sha256_bytes(content)[:16]
    if digest != path.stem.partition("-")[2]:
        raise ValueError(f"it is damaged, its SHA-256 begins with {digest} and not with what its name says")
    about = _about(content)
    if about["run"] != run or about["iteration"] != int(path.name[:8]):
        raise ValueError("it belongs to another run or fold, or was renamed")
    return Checkpoint(about["iteration"], safetensors.torch.load(content), about["state"], about["run"])


def _newest_first(folder: Path) -> list[Path]:
    """By iteration; the name decides, since clocks may go back."""
    if not folder.is_dir():
        return []
    return sorted((path for path in folder.iterdir() if _NAME.fullmatch(path.name)), reverse=True)


def _about(content: bytes) -> dict[str, Any]:
    """The JSON in a safetensors header: 8 bytes of length, then the header, which holds strings by name."""
    length = int.from_bytes(content[:8], "little")
    return json.loads(json.loads(content[8:8 + length])["__metadata__"]["state"])
