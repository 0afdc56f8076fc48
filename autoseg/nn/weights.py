"""Weights of a network as safetensors: no code runs when they are read."""

from __future__ import annotations

from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from autoseg.core.errors import IncompatibleError, ReadError, UnsafeError
from autoseg.core.networks import Start
from autoseg.io.atomic import sha256_bytes, write_bytes
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
    module.load_state_dict(_tensors(path, _content(path)))


def load_start(path: Path, network: nn.Module, start: Start) -> list[str]:
    """Copy the weights in `path` that `start` names and that fit into `network`, or into the part of it that `start` names.

    Returns:
        Names of the network's tensors that got them.

    A tensor fits that has the name and shape of one of the network, after these changes where they are needed: 2-D kernels
    are repeated along a third axis and divided by its size (I3D: Carreira and Zisserman 2017, arXiv 1705.07750, section 2.3.2),
    kernels over one channel are repeated for several and divided by their number, and kernels over several are summed to one.
    An image that is constant along the new axis, or equal in all channels, gives the features that it gave before.

    Raises:
        ReadError: the file is missing, torn or no safetensors file.
        UnsafeError: a pickle, another file than the plan's, or weights that are not finite.
        IncompatibleError: nothing fits, or not every tensor of these parts where some of them stay untrained.
    """
    path = Path(path)
    stored_tensors(path)  # refuses pickles and false headers before anything large is read
    content = _content(path)
    if sha256_bytes(content) != start.sha256:
        raise UnsafeError(f"weights {path} are refused: they are not those that the plan starts from (SHA-256 "
                          f"{sha256_bytes(content)}, and the plan says {start.sha256})", code="E_DIGEST",
                          hint="plan again with the weights as they are now")
    into = start.into or ""
    below = {name[len(into):]: tensor for name, tensor in network.state_dict().items() if name.startswith(into)}
    own = {name: tensor for name, tensor in below.items() if name.startswith(start.parts)}
    found = {name: tensor for name, tensor in _tensors(path, content).items() if name.startswith(start.parts)}
    fitted = {name: tensor for name in own if name in found and (tensor := _fitted(found[name], own[name])) is not None}
    missing = [name for name in own if name not in fitted]
    if not fitted or (missing and start.trained != "all"):
        raise IncompatibleError(_misfit(path, start, found, own, missing or list(own)), code="E_START",
                                hint="take another start, or name other parts of it; with trained = all, what does not fit is "
                                     "trained afresh")
    named = {f"{into}{name}": tensor for name, tensor in fitted.items()}
    network.load_state_dict(named, strict=False)
    return list(named)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ReadError(f"weights {path} cannot be read ({error}); train again or restore the file") from error


def _tensors(path: Path, content: bytes) -> dict[str, Tensor]:
    """Tensors by name, all of them finite."""
    try:
        tensors = safetensors.torch.load(content)
    except SafetensorError as error:
        raise ReadError(f"weights {path} cannot be read ({error}); train again or restore the file") from error
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            count = int((~torch.isfinite(tensor)).sum())
            raise UnsafeError(f"weights {path} are refused: {count} of {tensor.numel()} values of tensor {name!r} are not "
                              "finite, so every prediction would be empty or wrong", code="E_NONFINITE_WEIGHTS",
                              hint="train again, or take the model from where it was made")
    return tensors


def _fitted(found: Tensor, own: Tensor) -> Tensor | None:
    """The tensor in the shape of the network's own; None where it has no way there."""
    if found.is_floating_point() != own.is_floating_point():
        return None
    if found.ndim == 4 and own.ndim == 5:
        depth = own.shape[2]
        found = found.unsqueeze(2).expand(-1, -1, depth, -1, -1) / depth
    if found.ndim == own.ndim >= 4 and found.shape[1] != own.shape[1]:
        count = own.shape[1]
        if found.shape[1] == 1:
            found = found.expand(-1, count, *found.shape[2:]) / count
        elif count == 1:
            found = found.sum(1, keepdim=True)
    return found if found.shape == own.shape else None


def _misfit(path: Path, start: Start, found: dict[str, Tensor], own: dict[str, Tensor], missing: list[str]) -> str:
    """What is in the way, for the first of the network's tensors that got nothing."""
    parts = ", ".join(repr(part) for part in start.parts)
    if not found or not own:
        where = "the file" if not found else "the network"
        return f"weights {path} give the network nothing: no tensor of {where} has a name that begins with {parts}"
    name = missing[0]
    inside = f"shape {tuple(found[name].shape)}" if name in found else "no such tensor"
    return (f"weights {path} do not fit the network: {len(missing)} of its {len(own)} tensors below {parts} get no weights, the "
            f"first is {name!r} of shape {tuple(own[name].shape)}, and the file has {inside}")


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
