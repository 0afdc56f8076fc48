"""A network in use: what turns a batch of windows into logits, by torch or, on a CPU, by OpenVINO."""

from __future__ import annotations

import logging
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from autoseg.core.errors import IncompatibleError, UsageError
from autoseg.core.plan import Inference, Precision
from autoseg.core.task import Engine
from autoseg.inference.sliding_window import Forward
from autoseg.training.device import supports_precision
from autoseg.training.step import arrange, autocast

log = logging.getLogger(__name__)

# Windows of twice the product of the strides: the smallest whose deepest features have more than one voxel to normalise over.
_DIVISORS_TO_TRACE = 2


def forward_of(network: nn.Module, rules: Inference, device: str) -> Forward:
    """A forward (B, C, *spatial) -> float32 (B, K, *spatial), or (B, K), that runs `network` on `device`.

    In the planned precision where the device multiplies it in hardware, else in float32, which is right everywhere and
    there the fastest.

    Args:
        network: from `in_use`, or any other that is on `device` and in evaluation mode.
        device: `cpu` or `cuda[:n]`.
    """
    device_type = device.partition(":")[0]
    precision = usable_precision(rules.precision, device)

    def forward(windows: Tensor) -> Tensor:
        with autocast(device_type, precision):
            return network(windows).float()

    return forward


def answer_of(network: nn.Module, rules: Inference, device: str) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """The network's `answer_with_maps` on `device`: (B, C, *spatial) -> float32 (B, K) and (B, K, *places), run by torch.

    Args:
        network: from `in_use`.
    """
    device_type, precision = device.partition(":")[0], usable_precision(rules.precision, device)

    def answer(images: Tensor) -> tuple[Tensor, Tensor]:
        with autocast(device_type, precision):
            logits, maps = network.answer_with_maps(images)  # type: ignore[operator]
        return logits.float(), maps.float()

    return answer


def in_use(network: nn.Module, rules: Inference, device: str, engine: Engine = "auto") -> nn.Module:
    """The network ready to predict: on the device, in evaluation mode, run by the engine that was asked for.

    `auto` is torch on a GPU and OpenVINO on a CPU, where it is installed; a network that OpenVINO cannot run goes on with
    torch, and a warning says why.

    Raises:
        UsageError: `openvino` was asked for, and it is not installed or the device is no CPU.
    """
    on_cpu = device == "cpu"
    installed = find_spec("openvino") is not None
    if engine == "openvino" and not on_cpu:
        raise UsageError(f"OpenVINO predicts on the CPU here, and the device is {device}",
                         hint="--engine openvino --device cpu, or --engine auto")
    if engine == "openvino" and not installed:
        raise UsageError("OpenVINO was asked for and is not installed", hint="pip install 'autoseg[cpu]', or --engine torch")
    if engine == "torch" or not on_cpu or not installed:
        return arrange(network.to(device), rules.memory_format).eval()
    return OpenVinoNetwork(network.to(device).eval(), rules, must_convert=engine == "openvino")


def usable_precision(planned: Precision, device: str) -> Precision:
    """The planned precision where the device multiplies it in hardware, else fp32."""
    return planned if supports_precision(planned, device) else "fp32"


class OpenVinoNetwork(nn.Module):
    """A network that OpenVINO runs, one window after the other; compiled for a shape of window when it first comes.

    One window per request: the last, smaller batch of a case needs nothing of its own, and numbers do not depend on the
    batch. Converting and compiling take 0.4 s (32 to 256 features, 1 core of an EPYC with AVX2, openvino 2026.4.1), so no
    file is kept. Where gradients are wanted torch runs the network.

    Args:
        network: on the CPU, in evaluation mode; its weights must not change any more.
        must_convert: a network that cannot be converted is an error instead of torch's business.
    """

    def __init__(self, network: nn.Module, rules: Inference, *, must_convert: bool) -> None:
        super().__init__()
        self.network = network
        self._rules = rules
        self._must_convert = must_convert
        self._runs: dict[tuple[int, ...], Callable[[Tensor], Tensor]] = {}

    def forward(self, windows: Tensor, *more: Tensor) -> Any:
        """(B, C, *spatial) float32 -> (B, K, *spatial) or (B, K) float32. A network of several inputs is torch's.

        Raises:
            IncompatibleError: OpenVINO cannot run this network, and it must.
        """
        if more and self._must_convert:
            raise IncompatibleError("OpenVINO runs networks of one input here, and this one has several",
                                    hint="--engine torch runs every network")
        if more or torch.is_grad_enabled():
            return self.network(windows, *more)
        shape = (1, *windows.shape[1:])
        if shape not in self._runs:
            self._runs[shape] = self._make_run(shape)
        return self._runs[shape](windows)

    def answer_with_maps(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The network's own, run by torch: OpenVINO runs `forward` only."""
        return self.network.answer_with_maps(images)  # type: ignore[operator]

    def _make_run(self, shape: tuple[int, ...]) -> Callable[[Tensor], Tensor]:
        try:
            compiled = _compile(arrange(self.network, "contiguous"), shape, usable_precision(self._rules.precision, "cpu"))
        except Exception as error:  # tracing runs the network's own code, which may raise anything
            reason = _short(error)
            if self._must_convert:
                raise IncompatibleError(f"OpenVINO cannot run this network on windows of {shape[1:]} (channels, voxels): "
                                        f"{reason}", hint="--engine torch runs every network") from error
            log.warning("OpenVINO cannot run this network, torch predicts instead; %s", reason)
            return arrange(self.network, self._rules.memory_format)
        return lambda windows: _run(compiled, windows)


def _compile(network: nn.Module, shape: tuple[int, ...], precision: Precision) -> Any:
    """OpenVINO's request for one window of `shape` (1, C, *spatial).

    The network is traced by torch, without its check, which runs the network three times and imports sympy (1.1 s
    instead of 0.3 s). One that says the `divisor` of its window sizes is convolutional and traced on a small window.

    Raises:
        ValueError: the network does not return one tensor, of the window's size or one vector; others, from torch and OpenVINO.
    """
    openvino = _openvino()
    steps = getattr(network, "divisor", shape[2:])
    small = [min(size, _DIVISORS_TO_TRACE * step) for size, step in zip(shape[2:], steps, strict=True)]
    # A trace made under autocast would hold its casts, which OpenVINO does not know; the precision is a hint to its compiler.
    with warnings.catch_warnings(), torch.no_grad(), autocast("cpu", "fp32"):
        warnings.simplefilter("ignore")  # of Python values that are constant for this shape, as they should be here
        traced = torch.jit.freeze(torch.jit.trace(network, torch.zeros(*shape[:2], *small), check_trace=False))
        with _logging_kept():
            # The type is said too: where the first operator is no convolution, OpenVINO would not find it out.
            model = openvino.convert_model(traced, input=[(openvino.PartialShape(list(shape)), openvino.Type.f32)])
    outputs = [tuple(output.get_partial_shape().to_shape()) for output in model.outputs]
    if len(outputs) != 1 or outputs[0][:1] != shape[:1] or outputs[0][2:] not in (shape[2:], ()):
        raise ValueError(f"it returns {outputs} where one tensor with the sizes of the window, or one vector, was expected")
    hints = {"INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32", "NUM_STREAMS": 1,
             "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    return _core().compile_model(model, "CPU", hints).create_infer_request()


def _run(request: Any, windows: Tensor) -> Tensor:
    """Outputs of all windows, each a request of its own."""
    batch = windows.detach().to(torch.float32).contiguous().numpy()
    results = [request.infer([batch[place:place + 1]], share_inputs=True)[0] for place in range(len(batch))]
    return torch.from_numpy(results[0] if len(results) == 1 else np.concatenate(results))


@contextmanager
def _logging_kept() -> Iterator[None]:
    """OpenVINO's converter silences the root logger up to errors, and where it fails leaves it so."""
    root = logging.getLogger()
    level, filters, handlers = root.level, list(root.filters), list(root.handlers)
    try:
        yield
    finally:
        root.setLevel(level)
        root.filters, root.handlers = filters, handlers


def _short(error: Exception) -> str:
    """Kind and message of an error on one line; of OpenVINO's pages, the summary at their end."""
    return textwrap.shorten(f"{type(error).__name__}: {str(error).rpartition('Summary:')[2]}", 300)


@cache
def _core() -> Any:
    return _openvino().Core()


def _openvino() -> Any:
    """OpenVINO without its telemetry, which would write an id into the home folder and report conversions to the vendor.

    Its converter takes a stub where the package `openvino_telemetry` cannot be imported.
    """
    sys.modules.setdefault("openvino_telemetry", cast(Any, None))
    import openvino

    return openvino
