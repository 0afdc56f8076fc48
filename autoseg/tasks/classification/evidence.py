"""Heat maps of what was said of a unit, on the grids of its images, and whether they can be believed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from autoseg.core.errors import UsageError, choose
from autoseg.core.geometry import GridRecord
from autoseg.core.image import Image
from autoseg.core.plan import Configuration
from autoseg.core.task import Inputs
from autoseg.core.verb import Opened
from autoseg.ops.crop import crop
from autoseg.ops.resample import resample
from autoseg.tasks.classification.explained import Said, probabilities_for
from autoseg.tasks.classification.output import images_of
from autoseg.tasks.classification.refine import REPLACED
from autoseg.tasks.classification.sample import is_flat

if TYPE_CHECKING:
    from torch import Tensor, nn

    from autoseg.inference.explain import Explain
    from autoseg.inference.faithfulness import Faithfulness

Method = Literal["auto", "activation_map", "grad_cam", "integrated_gradients", "occlusion"]
METHODS: dict[str, Method] = {name: name for name in ("auto", "activation_map", "grad_cam", "integrated_gradients",
                                                      "occlusion")}
NAMES = {"activation_map": "class activation map", "grad_cam": "Grad-CAM", "integrated_gradients": "integrated gradients",
         "occlusion": "occlusion"}
# The window that occlusion hides, as a part of each side: 32 of 224 pixels, our choice, a fifth to a tenth being usual.
WINDOWS_PER_SIDE = 7
# Of the random networks that maps are compared with: the same folder gives the same verdict twice.
SEED = 0


@dataclass(frozen=True)
class Evidence:
    """A heat map of something that was said, on the canonical grid of an image.

    Attributes:
        heat: (Z, Y, X) float32; above 0 where something speaks for it.
        method: what made the map.
        check: how far it can be trusted; None: not asked for.
    """

    said: Said
    heat: NDArray[np.float32]
    method: str
    check: Faithfulness | None


def require_deciding_networks(opened: Opened) -> None:
    """Raises a UsageError where a bundle's networks decide nothing, so that their maps would explain something else."""
    if REPLACED in opened.refinements:
        raise UsageError("this bundle predicts with the cheap model alone, which was better than the network on "
                         "cross-validation; a heat map of the network would not explain its answers",
                         hint="train longer, or with more cases, until the network is chosen")


def chosen_method(method: str, opened: Opened) -> str:
    """The method to use: by construction where the network has such maps, else Grad-CAM; or the one that was asked for.

    Raises:
        UsageError: no such method, or the network has no maps by construction.
    """
    choose(METHODS, method, "method")
    has_maps = all(bool(getattr(network, "has_maps", False)) for network in opened.networks)
    if method == "auto":
        return "activation_map" if has_maps else "grad_cam"
    if method == "activation_map" and not has_maps:
        raise UsageError("this network has no class activation maps: with a recurrent pooling what a place says depends on the "
                         "slices before it", hint="--method grad_cam, integrated_gradients or occlusion")
    return method


def explain_of(method: str, configuration: Configuration, *, against: bool) -> Explain:
    """The explanation of an ensemble: the mean of its members' maps, of an output or of its opposite."""
    from autoseg.inference import explain

    if method == "occlusion":
        sides = configuration.patch_size[1:] if is_flat(configuration) else configuration.patch_size
        window = [max(1, round(side / WINDOWS_PER_SIDE)) for side in sides]
        # Windows of a volume do not overlap: eight times as many would take eight times as long.
        single: Explain = partial(explain.occlusion, window=window, stride=None if is_flat(configuration) else window)
    else:
        single = explain.METHODS[method]
    return explain.of_members(explain.opposite(single) if against else single)


def images_with_tensors(inputs: Inputs, opened: Opened) -> Iterator[tuple[int, Image, Tensor, GridRecord]]:
    """Place, first input, tensor (1, C, *spatial) on the device, and way back of every image of a unit."""
    import torch

    for place in range(1 + max(int(role.partition("@")[2] or 0) for role in inputs)):
        own = {role.partition("@")[0]: image for role, image in inputs.items() if (role.partition("@")[2] or "0") == str(place)}
        arrays, record = opened.prepare(own)
        voxels = next(images_of(arrays))
        tensor = torch.from_numpy(np.ascontiguousarray(voxels[None], dtype=np.float32)).to(opened.device)
        yield place, next(iter(own.values())), tensor.squeeze(2) if is_flat(opened.configuration) else tensor, record


def evidence_for(said: Said, image: Tensor, record: GridRecord, opened: Opened, ensemble: nn.Module, *, method: str,
                 check: Literal["none", "similarity", "all"]) -> Evidence:
    """The heat map of something that was said, from one image.

    Args:
        ensemble: `inference.explain.Ensemble` of the opened networks.
        check: compare with random networks; and measure what the probability owes to what the map points at.
    """
    from autoseg.inference.faithfulness import check as check_faithfulness

    explain = explain_of(method, opened.configuration, against=said.against)
    found = explain(ensemble, image, said.output)
    checked = None
    if check != "none":
        checked = check_faithfulness(explain, ensemble, image, said.output, np.random.default_rng(SEED),
                                     probabilities=probabilities_for(said) if check == "all" else None)
    return Evidence(said, on_case_grid(found, record), method, checked)


def on_case_grid(found: NDArray[np.float32], record: GridRecord) -> NDArray[np.float32]:
    """A map on the model's grid, (Y, X) or (Z, Y, X), on the canonical grid of its image; 0 outside of the crop."""
    model = found.reshape(record.model_shape)
    heat = np.zeros(record.canonical.shape, np.float32)
    crop(heat, record.crop_box).transpose(record.transpose)[...] = resample(model[None], record.turned_shape, order=1)[0]
    return heat


def ensemble_of(networks: Sequence[nn.Module]) -> nn.Module:
    """The networks as one."""
    from autoseg.inference.explain import Ensemble

    return Ensemble(networks)
