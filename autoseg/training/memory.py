"""Memory of a training step and of prediction, predicted without allocating it.

The task's own network, phases and optimiser run on fake tensors (shapes without content). Every tensor that torch makes and
frees is followed, saved ones included, so the peak is that of the real step. What torch does not show is added: copies that
convolutions make inside, and what a process takes once.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from autoseg.core.budget import Target
from autoseg.core.plan import Configuration
from autoseg.core.task import Task
from autoseg.training.device import MAPPED_BYTES
from autoseg.training.step import Stepper, arrange, autocast

_aten = torch.ops.aten
_MAX_POOLS = (_aten.max_pool2d_with_indices.default, _aten.max_pool3d_with_indices.default)
_MAX_POOL_GRADIENTS = (_aten.max_pool2d_with_indices_backward.default, _aten.max_pool3d_with_indices_backward.default)

# Two steps: optimiser states come into being in the first and lie beside all feature maps in the second.
STEPS = 2
# What the first steps of a process take on a CPU whatever the network: modules that torch imports only then, threads, and
# the code and descriptions of oneDNN's kernels. Mean of eight networks with peaks of 0.5 to 0.9 GB (129 to 164 MB; torch 2.13,
# 2026-11-22); none of them is among those that benchmarks/memory.py reports.
PROCESS_BYTES: dict[Target, int] = {"cpu": 145 * 10**6, "cuda": 0}
# The same of a process that loads a network and predicts one case, with torch; and what OpenVINO takes beyond that, whatever
# the network and for each byte of its weights, which it keeps in the layout of its kernels beside torch's. Means over eight
# networks and cases with peaks of 0.2 to 0.8 GB (50 to 135 MB, 82 to 135 MB together; openvino 2026.4.1, 2026-11-22); none of
# them is among those that benchmarks/memory.py reports. In 16 bits the copy of the weights is half as large: eight more, with
# peaks of 0.2 to 0.7 GB, were predicted 0.97 to 1.08 times what they took in bf16 (AVX-512, 2026-11-23).
PREDICTING_BYTES: dict[Target, int] = {"cpu": 80 * 10**6, "cuda": 0}
OPENVINO_BYTES, OPENVINO_WEIGHTS = 37 * 10**6, 1.2
# While weights are loaded their file, what is read from it and the network lie side by side (nn/weights.py).
LOADED_COPIES = 3
# oneDNN computes in blocks of 8 (AVX2) or 16 (AVX-512) channels; images of fewer stay as they are.
_BLOCK = 8


class LiveBytes(TorchDispatchMode):
    """Inside, counts the bytes of all tensors that torch makes and frees.

    Args:
        kept_below: freed blocks smaller than this stay with the process, as its heap, and count on.
        workspace: (operator, arguments, result) -> bytes that it takes for its own while it runs, beyond its result.
    Attributes:
        live: bytes in use now.
        peak: most bytes that were in use at once, heap included, since the start or the last `restart`.
        peak_of_tensors: the same without workspaces.
    """

    def __init__(self, *, kept_below: int = 0, workspace: Callable[[Any, tuple, Any], int] | None = None) -> None:
        super().__init__()
        self._kept_below = kept_below
        self._workspace = workspace
        self._sizes: dict[int, int] = {}
        self._small = self._most_small = 0
        self.live = self.peak = self.peak_of_tensors = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch wraps every call, which doubles the time

    @property
    def held(self) -> int:
        """Bytes that the process holds now: live ones and the unused part of the heap."""
        return self.live - self._small + self._most_small

    def restart(self) -> None:
        """Counts the peak from now on."""
        self.peak = self.peak_of_tensors = self.held

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        if func is _aten._local_scalar_dense.default and type(args[0]) is not Tensor:
            return 1.0  # a fake tensor has no value; any finite number lets the step go on
        before = self.held
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._add(tensor)
        if self._workspace is not None:
            self.peak = max(self.peak, before + self._workspace(func, args, result))
        return result

    def _add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata in self._sizes:
            return
        size = self._sizes[storage._cdata] = storage.nbytes()
        self.live += size
        if size < self._kept_below:
            self._small += size
            self._most_small = max(self._most_small, self._small)
        self.peak_of_tensors = max(self.peak_of_tensors, self.held)
        self.peak = max(self.peak, self.held)
        weakref.finalize(storage, self._drop, storage._cdata)

    def _drop(self, key: int) -> None:
        size = self._sizes.pop(key)
        self.live -= size
        if size < self._kept_below:
            self._small -= size


def predict_peaks(task: Task, configuration: Configuration, *, target: Target, threads: int = 1) -> tuple[int, int]:
    """Predicted peak bytes of a training step, and of loading the network and running one batch of windows.

    On CUDA the workspaces of cuDNN are an estimate: copies of what goes in and out in the layout of its kernels.

    Args:
        threads: of the CPU; each has its own workspace.
    """
    training = _watch(target, threads)
    run_step(task, configuration, training)
    return training.peak + PROCESS_BYTES[target], _forward_bytes(task, configuration, target, threads)


def _forward_bytes(task: Task, configuration: Configuration, target: Target, threads: int) -> int:
    """On a CPU the most of loading, torch and OpenVINO: a bundle is used with and without it.

    torch runs a batch of one, as the last batch of a case may be, by other kernels; OpenVINO runs all windows one by one, with
    weights in the precision of prediction.
    """
    batch = _watch(target, threads)
    weights = run_forward(task, configuration, batch)
    if target == "cuda":
        return batch.peak + PREDICTING_BYTES[target]
    alone = _watch(target, threads)
    run_forward(task, replace(configuration, inference=replace(configuration.inference, tiles_per_batch=1)), alone)
    share = 1.0 if configuration.inference.precision == "fp32" else 0.5
    openvino = alone.peak_of_tensors + int(OPENVINO_WEIGHTS * share * weights) + OPENVINO_BYTES
    return max(LOADED_COPIES * weights, batch.peak, alone.peak, openvino) + PREDICTING_BYTES[target]


def _watch(target: Target, threads: int) -> LiveBytes:
    if target == "cuda":
        return LiveBytes(workspace=cuda_workspace)
    return LiveBytes(kept_below=MAPPED_BYTES, workspace=lambda func, args, result: cpu_workspace(func, args, result, threads))


def run_step(task: Task, configuration: Configuration, watch: LiveBytes) -> None:
    """Real optimisation steps of a configuration on fake tensors, under `watch`.

    Sizes do not depend on the device, so the tensors are those of a CPU; fp16 takes the room of bf16.
    """
    with FakeTensorMode(), watch:
        optimization = configuration.optimization
        if optimization.precision == "fp16":
            optimization = replace(optimization, precision="bf16")
        batch = task.blank_batch(configuration)
        stepper = Stepper(task.build_network(configuration), task.phases(configuration), optimization, device="cpu")
        stepper.train()
        for iteration in range(STEPS):
            stepper.step(iteration, batch)


class _Seen(Exception):  # noqa: N818 - no error: it ends a phase after its first pass through the network
    pass


def run_forward(task: Task, configuration: Configuration, watch: LiveBytes) -> int:
    """Bytes of the weights; runs one batch of windows on fake tensors, and the peak of `watch` is that of the pass.

    Windows are predicted in inference mode. Here it would hide the convolutions from `watch`, behind operators of its own; what
    else it changes is that autocast keeps no weights.
    """
    rules = configuration.inference
    windows = replace(configuration, batch_size=rules.tiles_per_batch)
    precision = "bf16" if rules.precision == "fp16" else rules.precision
    with FakeTensorMode(), watch, torch.no_grad(), autocast("cpu", precision, keeps_weights=False):
        network = arrange(task.build_network(configuration), rules.memory_format).eval()
        batch = task.blank_batch(windows)
        with _first_pass(network, watch):
            task.phases(windows)[0].step(network, batch)
        return sum(_bytes(tensor) for tensor in network.state_dict().values())


@contextmanager
def _first_pass(network: nn.Module, watch: LiveBytes) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise _Seen

    handles = [network.register_forward_pre_hook(lambda *_: watch.restart()), network.register_forward_hook(stop)]
    try:
        yield
    except _Seen:
        pass
    finally:
        for handle in handles:
            handle.remove()


def cpu_workspace(func: Any, args: tuple, result: Any, threads: int) -> int:
    """Bytes that oneDNN takes beside what is live while a convolution runs; 0 for other operators.

    Seen in its verbose log (oneDNN 3.x of torch 2.13, AVX2). A contiguous convolution copies its input, weight and result
    into blocks of channels; the copy of the result is still there when the contiguous result is made. Channels-last ones
    copy the weight only. Gradients of 3-D weights come from matrix products over unfolded planes (im2col), one per thread.
    """
    if func is _aten.convolution.default:
        image, weight = args[0], args[1]
        if _is_unfolded(image, weight):
            return _columns(image, weight, result, transposed=len(args) > 6 and args[6])
        blocked = 0 if _is_channels_last(image) else _blocked(result)
        return max(_copy(image) + _blocked(weight) + blocked, blocked + _bytes(result))
    if func is _aten.convolution_backward.default:
        gradient, image, weight = args[:3]
        of_image, of_weight = result[0], result[1]
        data = 0
        if of_image is not None:
            blocked = 0 if _is_channels_last(gradient) else _blocked(of_image)
            data = max(_copy(gradient) + _blocked(weight) + max(blocked, _bytes(of_image)), blocked + _bytes(of_image))
        kept = 0 if of_image is None else _bytes(of_image)
        unfolded = _unfolded(image, weight, gradient) * threads if image.ndim == 5 else _copy(image) + _copy(gradient)
        return max(data, kept + unfolded + (_bytes(of_weight) if of_weight is not None else 0) * (1 + threads))
    if func in _MAX_POOLS:
        return _pooling(args[0], result)
    if func in _MAX_POOL_GRADIENTS:
        return _pooling(args[0], (result,), args[7])
    return 0


def cuda_workspace(func: Any, args: tuple, result: Any) -> int:
    """Bytes that cuDNN may take beside what is live while a convolution runs: its input, weight and result once more."""
    if func is _aten.convolution.default:
        return 2 * _bytes(result) + _bytes(args[0]) + _bytes(args[1])
    if func is _aten.convolution_backward.default:
        made = sum(_bytes(tensor) for tensor in result if tensor is not None)
        return 2 * made + _bytes(args[0]) + _bytes(args[1])
    return 0


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _blocked(tensor: Tensor) -> int:
    """Bytes of a copy whose channels fill whole blocks."""
    channels = math.ceil(tensor.shape[1] / _BLOCK) * _BLOCK
    return _bytes(tensor) // tensor.shape[1] * channels


def _copy(tensor: Tensor) -> int:
    return 0 if _is_channels_last(tensor) or tensor.shape[1] < _BLOCK else _blocked(tensor)


def _is_unfolded(image: Tensor, weight: Tensor) -> bool:
    """Whether torch unfolds the whole image and multiplies matrices instead of asking oneDNN.

    It does so for one small image and kernels of up to 3. Source: torch 2.13, ATen/native/Convolution.cpp, `use_mkldnn`.
    """
    return image.shape[0] == 1 and math.prod(image.shape[:4]) <= 20480 and max(weight.shape[-2:]) <= 3


def _columns(image: Tensor, weight: Tensor, result: Tensor, *, transposed: bool) -> int:
    """Bytes of the unfolded image, every input channel under every place of the kernel; transposed: of the result."""
    if math.prod(weight.shape[2:]) == 1 and image.shape[2:] == result.shape[2:]:
        return 0
    channels, places = (result.shape[1], image.shape[2:]) if transposed else (image.shape[1], result.shape[2:])
    return channels * math.prod(weight.shape[2:]) * math.prod(places) * image.element_size()


def _unfolded(image: Tensor, weight: Tensor, gradient: Tensor) -> int:
    """Bytes of one plane of the result, unfolded: every input channel under every place of the kernel."""
    return image.shape[1] * math.prod(weight.shape[2:]) * math.prod(gradient.shape[3:]) * image.element_size()


def _pooling(leading: Tensor, made: tuple[Tensor, ...], *read: Tensor) -> int:
    """Bytes of what max-pooling makes, and of copies of all that is not laid out like `leading` (the image, or the gradient of
    the result), among them the places of the maxima, 8 bytes each.

    Source: torch 2.13, ATen/native/cpu/MaxPoolKernel.cpp, which brings everything to that layout and copies results back.
    """
    layout = torch.contiguous_format
    if _is_channels_last(leading):
        layout = torch.channels_last_3d if leading.ndim == 5 else torch.channels_last
    copied = [tensor for tensor in (*made, *read) if not tensor.is_contiguous(memory_format=layout)]
    return sum(map(_bytes, made)) + sum(map(_bytes, copied))


def _is_channels_last(tensor: Tensor) -> bool:
    layout = torch.channels_last_3d if tensor.ndim == 5 else torch.channels_last
    return not tensor.is_contiguous() and tensor.is_contiguous(memory_format=layout)
