"""One optimisation step of every phase: autocast, gradients, clipping, optimiser, moving average."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from autoseg.core.errors import AutosegError, IncompatibleError
from autoseg.core.plan import MemoryFormat, Optimization, Precision
from autoseg.core.task import Phase
from autoseg.training.ema import WeightAverage
from autoseg.training.muon import Muon, kernels_of
from autoseg.training.schedule import learning_rate

Batch = Mapping[str, Any]
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}


class DivergedError(AutosegError):
    """A loss, a gradient or a weight is not a finite number any more.

    Attributes:
        cases: those that the batch held; only the broken ones where the batch itself was not finite.
    """

    exit_code = 3
    default_code = "E_DIVERGED"

    def __init__(self, message: str, *, code: str | None = None, hint: str | None = None,
                 cases: Sequence[str] = ()) -> None:
        super().__init__(message, code=code, hint=hint)
        self.cases = tuple(cases)


class Stepper:
    """Network, optimisers (one per phase), loss scaler and weight average of a run.

    Args:
        network: moved to `device` and into the planned memory format, in place.
        phases: of an iteration, in order.
        device: `cpu` or `cuda[:n]`.
    Raises:
        IncompatibleError: half precision (fp16) is planned and the device is no CUDA device.
    """

    def __init__(
            self, network: nn.Module, phases: Sequence[Phase], optimization: Optimization, *, device: str) -> None:
        self.device = torch.device(device)
        if optimization.precision == "fp16" and self.device.type != "cuda":
            raise IncompatibleError(f"the plan trains in fp16, which needs a CUDA device; this is {device}",
                                    hint="plan again with --target cpu")
        self.network = arrange(_on_device(network, self.device), optimization.memory_format)
        self.optimization = optimization
        self.phases = tuple(phases)
        self.parameters = [list(phase.parameters(network)) for phase in phases]
        _freeze_others(network, self.parameters)
        kernels = kernels_of(network)
        self.optimizers = [_optimizer(parameters, optimization, kernels) for parameters in self.parameters]
        for phase, parameters, optimizer in zip(phases, self.parameters, self.optimizers, strict=True):
            if phase.rates is not None:
                _split_by_rate(optimizer, parameters, list(phase.rates(network)))
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=optimization.precision == "fp16")
        self.average = None if optimization.ema_decay is None else WeightAverage(network, optimization.ema_decay)

    def train(self) -> None:
        """Puts the network into training mode, but for layers that no phase moves: their averages stay as they are, too."""
        self.network.train()
        for module in self.network.modules():
            own = list(module.parameters(recurse=False))
            if own and not any(parameter.requires_grad for parameter in own):
                module.eval()

    def step(self, iteration: int, batch: Batch) -> dict[str, float]:
        """Losses by name after one step of every phase; with several phases the names start with the phase's.

        Raises:
            DivergedError: a loss or gradient is not finite; names iteration, losses and the batch's `cases`. The weights of
                this phase, and what norms keep of batches, are as before the step, and the next step may be tried.
        """
        placed = _place(batch, self.device)
        named: dict[str, float] = {}
        for phase, parameters, optimizer in zip(self.phases, self.parameters, self.optimizers, strict=True):
            with _statistics_kept(self.network):
                losses = self._move(phase, parameters, optimizer, iteration, placed)
            named |= {name if len(self.phases) == 1 else f"{phase.name}.{name}": v for name, v in losses.items()}
        if self.average is not None:
            self.average.update(iteration + 1)
        return named

    def tensors(self) -> dict[str, Tensor]:
        """Weights, optimiser states, average and torch's generators by name, for a checkpoint."""
        found = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        for number, optimizer in enumerate(self.optimizers):
            for index, state in optimizer.state_dict()["state"].items():
                found |= {f"optimizer.{number}.{index}.{key}": value
                          for key, value in state.items() if isinstance(value, Tensor)}
        if self.average is not None:
            found |= {f"average.{name}": tensor for name, tensor in self.average.tensors().items()}
        found["generator.cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            found["generator.cuda"] = torch.cuda.get_rng_state(self.device)
        return found

    def load(self, tensors: Mapping[str, Tensor], scaler: dict[str, Any]) -> None:
        """Continue from `tensors()` and the scaler's state of an earlier run of the same plan.

        Raises:
            IncompatibleError: the weights are those of another network.
        """
        weights = _below("network", tensors)
        own = {name: tensor.shape for name, tensor in self.network.state_dict().items()}
        if own != {name: tensor.shape for name, tensor in weights.items()}:
            raise IncompatibleError("the checkpoint holds another network than the plan describes",
                                    hint="move the run's folder away to start anew")
        self.network.load_state_dict(weights)
        for number, parameters in enumerate(self.parameters):
            ordered = [p for group in self.optimizers[number].param_groups for p in group["params"]]
            assert len(ordered) == len(parameters)
            for index, parameter in enumerate(ordered):
                state = _below(f"optimizer.{number}.{index}", tensors)
                if state:
                    self.optimizers[number].state[parameter] = {k: _like(parameter, v) for k, v in state.items()}
        if self.average is not None:
            self.average.load(_below("average", tensors))
        if scaler:
            self.scaler.load_state_dict(scaler)
        torch.set_rng_state(tensors["generator.cpu"])
        if "generator.cuda" in tensors and self.device.type == "cuda":
            torch.cuda.set_rng_state(tensors["generator.cuda"], self.device)

    def is_finite(self) -> bool:
        """Whether all weights, and their average, are finite numbers."""
        tensors = [*self.network.state_dict().values(), *(self.average.tensors().values() if self.average else ())]
        return all(bool(torch.isfinite(tensor).all()) for tensor in tensors if tensor.is_floating_point())

    def _move(
            self, phase: Phase, parameters: list[nn.Parameter], optimizer: Optimizer, iteration: int, batch: Batch,
    ) -> dict[str, float]:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(iteration, self.optimization) * group.get("rate", 1.0)
        optimizer.zero_grad(set_to_none=True)
        with autocast(self.device.type, self.optimization.precision):
            losses = phase.step(self.network, batch)
        values = dict(zip(losses, torch.stack([loss.detach().float() for loss in losses.values()]).tolist(),
                          strict=True))
        if not all(math.isfinite(value) for value in values.values()):
            raise _diverged("loss", phase, iteration, values, batch)
        self.scaler.scale(losses["total"]).backward()
        self.scaler.unscale_(optimizer)
        limit = self.optimization.gradient_clip_norm
        norm = nn.utils.clip_grad_norm_(parameters, math.inf if limit is None else limit)
        if not self._is_usable(norm):
            raise _diverged("gradient", phase, iteration, values, batch)
        self.scaler.step(optimizer)
        self.scaler.update()
        return values

    def _is_usable(self, norm: Tensor) -> bool:
        """Whether the optimiser may see gradients of this norm. A loss scaler skips a step that left the range of fp16 and
        halves its scale; below a scale of 1 that range is not the reason."""
        if not self.scaler.is_enabled():
            return math.isfinite(float(norm))
        if self.scaler.get_scale() >= 1.0 or math.isfinite(float(norm)):
            return True
        self.scaler.update()  # so that the next step may ask it again
        return False


@contextmanager
def _statistics_kept(network: nn.Module) -> Iterator[None]:
    """Where a step diverges inside, its forward pass has moved the running statistics of norms: they are put back."""
    before = [buffer.clone() for buffer in network.buffers()]
    try:
        yield
    except DivergedError:
        for buffer, kept in zip(network.buffers(), before, strict=True):
            buffer.copy_(kept)
        raise


def autocast(device_type: str, precision: Precision, *, keeps_weights: bool = True) -> torch.autocast:
    """Context in which convolutions run in the planned precision.

    Args:
        keeps_weights: weights in that precision are kept until the block ends. In inference mode torch never keeps them.
    """
    enabled = precision != "fp32"
    return torch.autocast(device_type, dtype=_DTYPES[precision] if enabled else None, enabled=enabled,
                          cache_enabled=keeps_weights)


def arrange(network: nn.Module, memory_format: MemoryFormat) -> nn.Module:
    """The network with its kernels in the planned memory format, in place; activations follow the kernels."""
    for parameter in network.parameters():
        layout = _FORMATS.get(parameter.ndim) if memory_format == "channels_last" else torch.contiguous_format
        if layout is not None:
            parameter.data = parameter.data.contiguous(memory_format=layout)
    return network


def _optimizer(parameters: list[nn.Parameter], optimization: Optimization, kernels: set[int]) -> Optimizer:
    """SGD decays every weight, as nnU-Net does; AdamW only kernels: norms and biases have no scale to decay."""
    rate, decay = optimization.learning_rate, optimization.weight_decay
    if optimization.optimizer == "sgd":
        return SGD(parameters, rate, momentum=optimization.momentum, nesterov=optimization.nesterov,
                   weight_decay=decay, fused=True)
    if optimization.optimizer == "muon":
        return Muon([p for p in parameters if id(p) in kernels], [p for p in parameters if id(p) not in kernels], lr=rate,
                    weight_decay=decay, momentum=optimization.momentum, betas=optimization.betas)
    groups = [{"params": [p for p in parameters if p.ndim > 1], "weight_decay": decay},
              {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0}]
    return AdamW([group for group in groups if group["params"]], rate, betas=optimization.betas, fused=True)


def _freeze_others(network: nn.Module, moved: Sequence[Sequence[nn.Parameter]]) -> None:
    """Lets no gradient be computed for parameters that no phase moves."""
    kept = {id(parameter) for parameters in moved for parameter in parameters}
    for parameter in network.parameters():
        parameter.requires_grad_(id(parameter) in kept)


def _split_by_rate(optimizer: Optimizer, parameters: Sequence[nn.Parameter], rates: Sequence[float]) -> None:
    """Divides the groups of an optimiser by the factors of their parameters' learning rate, in place; `rate` holds it."""
    rate_of = {id(parameter): float(rate) for parameter, rate in zip(parameters, rates, strict=True)}
    groups = []
    for group in optimizer.param_groups:
        for rate in dict.fromkeys(rate_of[id(parameter)] for parameter in group["params"]):
            chosen = [parameter for parameter in group["params"] if rate_of[id(parameter)] == rate]
            groups.append({**group, "params": chosen, "rate": rate})
    optimizer.param_groups[:] = groups


def _on_device(network: nn.Module, device: torch.device) -> nn.Module:
    """The network on the device, in place; untouched where it lies there (`to` cannot handle fake tensors)."""
    return network if all(parameter.device == device for parameter in network.parameters()) else network.to(device)


def _place(batch: Batch, device: torch.device) -> dict[str, Any]:
    return {name: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
            for name, value in batch.items()}


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    start = prefix + "."
    return {name[len(start):]: tensor for name, tensor in tensors.items() if name.startswith(start)}


def _like(parameter: Tensor, tensor: Tensor) -> Tensor:
    """A copy beside the parameter; of its strides, which fused optimisers take for granted, where shapes agree."""
    if tensor.shape != parameter.shape:
        return tensor.to(parameter.device).clone()
    return torch.empty_like(parameter, requires_grad=False).copy_(tensor)


def _diverged(what: str, phase: Phase, iteration: int, losses: dict[str, float], batch: Batch) -> DivergedError:
    values = ", ".join(f"{name} = {value:g}" for name, value in losses.items())
    cases: Sequence[str] = tuple(batch.get("cases", ()))
    broken = _not_finite(batch, cases)
    cause = (f"what the batch holds of {', '.join(broken)} is not finite" if broken else
             f"the batch held the cases {', '.join(cases) or 'unknown'}")
    return DivergedError(
        f"iteration {iteration}, phase {phase.name!r}: the {what} is not finite ({values}); {cause}. Look at these images for "
        "broken intensities", cases=broken or cases,
        hint="autoseg check lists what is wrong with images; without a finding, please report this")


def _not_finite(batch: Batch, cases: Sequence[str]) -> list[str]:
    """The cases of a batch of which a tensor holds nan or infinity."""
    found = []
    for place, name in enumerate(cases):
        samples = [value[place] for value in batch.values()
                   if isinstance(value, Tensor) and value.is_floating_point() and value.ndim and len(value) == len(cases)]
        if not all(bool(torch.isfinite(sample).all()) for sample in samples):
            found.append(name)
    return found
