"""Where in an image a network found what speaks for one of its outputs.

Every explanation takes (network, image, output): a network from an image (1, C, *spatial) to outputs (1, K), one image, and the
index of an output. It returns a float32 map (*spatial) on the image's grid: above 0 where something speaks for the output, more
where more does. The network is put into evaluation meanwhile; its weights and their gradients stay as they are. Whether a map can
be trusted at all: `faithfulness`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from types import ModuleType
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from autoseg.core.errors import ResourceError, UsageError
from autoseg.inference.averaging import mean_logits

Map: TypeAlias = NDArray[np.float32]
Explain: TypeAlias = Callable[[nn.Module, Tensor, int], Map]

# Steps of the integral; Sundararajan et al. 2017, section 5: 20 to 300 come within 5 % of the difference of outputs.
STEPS = 50
# Images through the network at once, for integrated gradients and occlusion. These take 50 and 169 passes (windows of 32 by 32)
# where Grad-CAM takes one: 27 s and 52 s, and 0.4 s, measured with DenseNet-121 at 224 by 224 on one busy core.
BATCH = 8


def activation_map(network: nn.Module, image: Tensor, output: int) -> Map:
    """Class activation map by construction: what each place adds to the output before pooling; in logits, of both signs.

    The network's `maps(image)` gives (1, K, *places), where its last layer is linear and stands behind a pooling over places.

    Raises:
        UsageError: the network has no such maps.
    Source: Zhou et al. 2016 (mean); Wang et al. 2017 (log-sum-exp).
    """
    maps = getattr(network, "maps", None)
    if not callable(maps):
        raise UsageError("this network has no class activation maps: they need a pooling over places before a linear last "
                         "layer; use 'grad_cam', 'integrated_gradients' or 'occlusion'")
    with evaluated(network), torch.no_grad():
        return _on_grid(maps(image)[:, output:output + 1], image)


def grad_cam(network: nn.Module, image: Tensor, output: int, *, layer: str = "", against: bool = False) -> Map:
    """Grad-CAM: features weighted by the mean gradient of the output, negative sums set to 0; values from 0 up, without unit.

    Args:
        against: what speaks against the output, as for the first of two classes that share one.
        layer: name of a module with output (1, F, *places); empty: the output of the network's `features`.
    Raises:
        UsageError: no such layer, or its output has no places, or the output does not depend on it.
    Source: Selvaraju et al. 2017, equations 1 and 2.
    """
    name = repr(layer or "features")
    with evaluated(network), _gradients(network), _watched(network, layer) as seen:
        outputs = network(image.clone().detach().requires_grad_())
        if len(seen) != 1 or seen[0].ndim != image.ndim or len(seen[0]) != 1:
            shapes = [tuple(found.shape) for found in seen]
            raise UsageError(f"Grad-CAM needs one output of (1, features, places ...) from {name} for an image of "
                             f"{tuple(image.shape)}; found {shapes or 'none'}; name another layer")
        (gradient,) = torch.autograd.grad(outputs[0, output], seen[0], allow_unused=True)
        if gradient is None:
            raise UsageError(f"output {output} does not depend on {name}; name another layer")
        weights = gradient.flatten(2).mean(dim=2).view(*gradient.shape[:2], *[1] * (gradient.ndim - 2))
        weights = -weights if against else weights
        return _on_grid((weights * seen[0]).sum(dim=1, keepdim=True).relu().detach(), image)


def integrated_gradients(network: nn.Module, image: Tensor, output: int, *, baseline: float | Sequence[float] = 0.0,
                         steps: int = STEPS) -> Map:
    """Integrated gradients, summed over channels: the map's sum is the output minus that of the baseline; of both signs.

    Args:
        baseline: the value of an image that says nothing, one or one per channel; 0 is the mean of a standardised image.
        steps: of the integral.
    Raises:
        ResourceError: captum is not installed.
    Source: Sundararajan et al. 2017, by captum.
    """
    method = captum().IntegratedGradients(network)
    with evaluated(network), _gradients(network):
        found = method.attribute(image.clone().detach(), baselines=filled(image, baseline), target=output, n_steps=steps,
                                 internal_batch_size=BATCH)
    return _on_grid(found.detach().sum(dim=1, keepdim=True), image)


def occlusion(network: nn.Module, image: Tensor, output: int, *, window: Sequence[int], stride: Sequence[int] | None = None,
              baseline: float | Sequence[float] = 0.0) -> Map:
    """How far the output falls where a window hides the image: mean over the windows that hide a voxel, in logits, of both signs.

    Args:
        window: size per spatial axis; that of the lesions that are looked for. All channels are hidden at once.
        stride: distance of windows; None: half of the window.
        baseline: as in `integrated_gradients`.
    Raises:
        ResourceError: captum is not installed. UsageError: the window has not one size per axis, or is larger than the image.
    Source: Zeiler & Fergus 2014, by captum.
    """
    sizes = tuple(image.shape[2:])
    if len(window) != len(sizes) or any(not 1 <= side <= size for side, size in zip(window, sizes, strict=True)):
        raise UsageError(f"the window {tuple(window)} must have one size for each axis of the image {sizes}, none larger")
    steps = tuple(stride) if stride else tuple(max(1, side // 2) for side in window)
    channels = image.shape[1]
    method = captum().Occlusion(network)
    with evaluated(network), torch.no_grad():
        found = method.attribute(image, sliding_window_shapes=(channels, *window), strides=(channels, *steps), target=output,
                                 baselines=filled(image, baseline), perturbations_per_eval=BATCH)
    return _on_grid(found[:, :1], image)


# Explanations that need no more than the network, the image and the output.
METHODS: dict[str, Explain] = {
    "activation_map": activation_map, "grad_cam": grad_cam, "integrated_gradients": integrated_gradients,
}


def opposite(explain: Explain) -> Explain:
    """What speaks against an output: the same map with its sign turned, and Grad-CAM, which drops one of them, anew."""
    if explain is grad_cam:
        return partial(grad_cam, against=True)
    return lambda network, image, output: -explain(network, image, output)


class Ensemble(nn.Module):
    """Several networks as one: the mean of their outputs, which is what a bundle predicts."""

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, *spatial) to (B, K)."""
        return mean_logits(member(image) for member in self.members)


def of_members(explain: Explain) -> Explain:
    """The explanation of an `Ensemble`: the mean of its members' maps.

    For maps that are linear in the outputs (all but Grad-CAM) this is the map of the mean output.
    """
    def explained(network: nn.Module, image: Tensor, output: int) -> Map:
        if not isinstance(network, Ensemble):
            raise ValueError("maps of members are asked for, and the network is no ensemble")
        return np.mean([explain(member, image, output) for member in network.members], axis=0, dtype=np.float32)

    return explained


def filled(image: Tensor, baseline: float | Sequence[float]) -> Tensor:
    """An image of the baseline's values, of the shape of `image` (1, C, *spatial)."""
    values = torch.as_tensor(baseline, dtype=image.dtype, device=image.device)
    return values.view(1, -1, *[1] * (image.ndim - 2)).expand(image.shape).contiguous()


def captum() -> ModuleType:
    """The library's attribution methods; imported here, as it takes a second.

    Raises:
        ResourceError: it is not installed.
    """
    try:
        import captum.attr
    except ModuleNotFoundError as error:
        raise ResourceError(f"integrated gradients and occlusion need the library 'captum' ({error})", code="E_NO_CAPTUM",
                            hint="pip install 'autoseg[explain]'") from error
    return captum.attr


@contextmanager
def evaluated(network: nn.Module) -> Iterator[None]:
    """The network in evaluation, every part back in its mode afterwards, without gradients for its weights."""
    modes = [(module, module.training) for module in network.modules()]
    wanted = [(parameter, parameter.requires_grad) for parameter in network.parameters()]
    network.eval()
    for parameter, _ in wanted:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, is_wanted in wanted:
            parameter.requires_grad_(is_wanted)


@contextmanager
def _gradients(network: nn.Module) -> Iterator[None]:
    """Gradients, whatever was switched off around this.

    cuDNN's recurrent networks have gradients in training only; torch's own have them in evaluation too.
    """
    is_recurrent = any(isinstance(module, nn.RNNBase) for module in network.modules())
    with (torch.inference_mode(False), torch.enable_grad(),
          torch.backends.cudnn.flags(enabled=False) if is_recurrent else nullcontext()):
        yield


@contextmanager
def _watched(network: nn.Module, layer: str) -> Iterator[list[Tensor]]:
    """What a layer, or the method `features`, returns while this lasts.

    The network goes on with a copy, as an activation in place would change what was seen.
    """
    seen: list[Tensor] = []

    def keep(found: Tensor) -> Tensor:
        seen.append(found)
        return found.clone()

    module = _module(network, layer)
    if module is not None:
        handle = module.register_forward_hook(lambda _module, _inputs, found: keep(found))
        try:
            yield seen
        finally:
            handle.remove()
        return
    features = network.features
    network.features = lambda image: keep(features(image))  # type: ignore[assignment,operator]
    try:
        yield seen
    finally:
        del network.features  # the class's own method is there again


def _module(network: nn.Module, layer: str) -> nn.Module | None:
    """The layer as a module; None for a method `features`."""
    modules = dict(network.named_modules())
    name = layer or "features"
    if name in modules:
        return modules[name]
    if not layer and callable(getattr(network, "features", None)):
        return None
    known = ", ".join(found for found in modules if found) or "none"
    raise UsageError(f"the network has no layer {name!r}; it has {known}")


def _on_grid(found: Tensor, image: Tensor) -> Map:
    """A map (1, 1, *places), linearly interpolated to the image's grid."""
    size = tuple(image.shape[2:])
    if tuple(found.shape[2:]) != size:
        mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(size)]
        found = functional.interpolate(found.float(), size=size, mode=mode, align_corners=False)
    return found[0, 0].float().cpu().numpy()
