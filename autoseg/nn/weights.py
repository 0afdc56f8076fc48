"""Weights of a network as safetensors: no code runs when they are read."""

from __future__ import annotations

from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import nn

from autoseg.core.errors import IncompatibleError, ReadError
from autoseg.io.atomic import write_bytes


def save_weights(path: Path, module: nn.Module) -> None:
    """Write all parameters and buffers of `module` to `path`, atomically, in contiguous layout."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    write_bytes(path, safetensors.torch.save(tensors))


def load_weights(path: Path, module: nn.Module) -> None:
    """Copy the weights in `path` into `module`, which keeps its device, precision and memory format.

    Raises:
        ReadError: the file is missing, torn or no safetensors file.
        IncompatibleError: names or shapes differ from those of `module`.
    """
    try:
        tensors = safetensors.torch.load(Path(path).read_bytes())
    except (OSError, SafetensorError) as error:
        raise ReadError(f"weights {path} cannot be read ({error}); train again or restore the file") from error
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if found != expected:
        names = sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))
        first = names[0]
        raise IncompatibleError(
            f"weights {path} do not fit the network of the plan: {len(names)} tensors differ, the first is {first!r} "
            f"with shape {found.get(first, 'missing')} in the file and {expected.get(first, 'missing')} in the network")
    module.load_state_dict(tensors)
