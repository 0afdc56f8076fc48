"""Weights of a network as safetensors: no code runs when they are read."""

from __future__ import annotations

from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from autoseg.core.errors import IncompatibleError, ReadError, UnsafeError
from autoseg.core.networks import Start
from autoseg.io.atomic import write_bytes
from autoseg.io.tensors import StoredTensor, stored_tensors

# Names that safetensors has for torch's types.
_DTYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.float64: "F64", torch.int64: "I64",
           torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL"}


def save_weights(path: Path, module: nn.Module) -> None:
    """Write all parameters and buffers of `module` to `path`, atomically, in contiguous layout."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    write_bytes(path, safetensors.torch.save(tensors))


def load_weights(path: Path, module: nn.Module) -> None:
    """Copy the weights in `path` into `module`, which keeps its device, precision and memory format.

    The header is compared with the network before anything as large as the weights is read.

    Raises:
        ReadError: the file is missing, torn or no safetensors file.
        UnsafeError: a pickle, a header that does not agree with the file, or weights that are not finite.
        IncompatibleError: names, shapes or types differ from those of `module`.
    """
    path = Path(path)
    _require_same(path, stored_tensors(path), module)
    module.load_state_dict(_read_finite(path))


def load_start(path: Path, module: nn.Module, start: Start) -> list[str]:
    """Copies the tensors in `path` whose names begin with one of `start.parts` into `module`; names of those taken, sorted.

    Tensors that the network lacks are left out: an encoder's weights may come with a decoder's.

    Raises:
        ReadError, UnsafeError: as `load_weights`.
        IncompatibleError: a tensor has another shape or type in the network, or none is taken.
    """
    found = stored_tensors(path)
    own = module.state_dict()
    names = sorted(name for name in found if name.startswith(start.parts) and name in own)
    wrong = [name for name in names if found[name] != StoredTensor(_DTYPES[own[name].dtype], tuple(own[name].shape))]
    if wrong or not names:
        what = (f"tensor {wrong[0]!r} has {_described(found[wrong[0]])}, and shape {tuple(own[wrong[0]].shape)} in the network"
                if wrong else f"none of its tensors begins with {' or '.join(start.parts)} and is in the network")
        raise IncompatibleError(f"weights {path} cannot be started from: {what}", code="E_START",
                                hint="plan again with the bundle that the weights came from")
    tensors = _read_finite(path)
    with torch.no_grad():
        for name in names:
            own[name].copy_(tensors[name])
    return names


def _read_finite(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a file whose header was checked.

    Raises:
        ReadError: it cannot be read.
        UnsafeError: a value is not finite.
    """
    try:
        tensors = safetensors.torch.load(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise ReadError(f"weights {path} cannot be read ({error}); train again or restore the file") from error
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            count = int((~torch.isfinite(tensor)).sum())
            raise UnsafeError(f"weights {path} are refused: {count} of {tensor.numel()} values of tensor {name!r} are not "
                              "finite, so every prediction would be empty or wrong", code="E_NONFINITE_WEIGHTS",
                              hint="train again, or take the model from where it was made")
    return tensors


def _require_same(path: Path, found: dict[str, StoredTensor], module: nn.Module) -> None:
    expected = {name: StoredTensor(_DTYPES[tensor.dtype], tuple(tensor.shape)) for name, tensor in module.state_dict().items()}
    if found == expected:
        return
    names = sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))
    first = names[0]
    raise IncompatibleError(
        f"weights {path} do not fit the network of the plan: {len(names)} tensors differ, the first is {first!r} "
        f"with {_described(found.get(first))} in the file and {_described(expected.get(first))} in the network")


def _described(tensor: StoredTensor | None) -> str:
    return "missing" if tensor is None else f"shape {tensor.shape} and type {tensor.dtype}"
