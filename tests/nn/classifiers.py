"""Small classifiers of every kind, and those of the field in full."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch

from autoseg.core.networks import Classifier
from autoseg.nn.build import build_network


def per_axis(dims, *sizes):
    """One entry per stage, the same along every axis."""
    return tuple((size,) * dims for size in sizes)


def published(kind, dims, in_channels, out_channels, blocks, **rest):
    """A network of the field as it is published, but for the padding of Inception and the head of ViT."""
    features = {"densenet": (64,) * 5, "resnet": (64, 64, 128, 256, 512), "inception": (32,) * 5, "vit": (768,)}[kind]
    strides = (16,) if kind == "vit" else (2,) * 5
    kernels = {"vit": (1,), "inception": (3, 3, 5, 7, 3)}.get(kind, (7, 3, 3, 3, 3))
    if rest.get("bottleneck"):
        features = (64, 256, 512, 1024, 2048)
    return Classifier(kind, dims, in_channels, out_channels, features, per_axis(dims, *strides), per_axis(dims, *kernels), blocks,
                      growth=32 if kind == "densenet" else 0, **rest)


def small(kind, dims=2, **rest):
    """One channel, three outputs; sizes must be multiples of 8, and leave 2 places or more from 16 on."""
    described = {
        "densenet": ((16,) * 4, (2, 2, 1, 2), (3, 3, 3, 3), (1, 2, 1, 2), {"growth": 8}),
        "resnet": ((8, 8, 16), (1, 2, 2), (3, 3, 3), (1, 1, 2), {}),
        "bottleneck": ((8, 16, 32), (1, 2, 2), (3, 3, 3), (1, 1, 2), {"bottleneck": True}),
        "inception": ((8,) * 5, (1, 1, 2, 2, 1), (3, 3, 5, 7, 3), (1, 1, 2, 2, 1), {}),
        "vit": ((48,), (8,), (1,), (2,), {}),
        "plain_encoder": ((8, 12, 16), (1, 2, 2), (3, 3, 3), (2, 1, 2), {}),
        "residual_encoder": ((8, 12, 16), (1, 2, 2), (3, 3, 3), (1, 1, 2), {}),
    }
    features, strides, kernels, blocks, more = described[kind]
    options = {"in_channels": 1, "out_channels": 3, "features": features} | more | rest
    return Classifier("resnet" if kind == "bottleneck" else kind, dims, strides=per_axis(dims, *strides),
                      kernel_sizes=per_axis(dims, *kernels), blocks=blocks, **options)


needs_monai = pytest.mark.skipif(find_spec("monai") is None or find_spec("einops") is None,
                                 reason="MONAI is not installed: pip install 'autoseg[classification]'")
KINDS = ("densenet", "resnet", "bottleneck", "inception", pytest.param("vit", marks=needs_monai), "plain_encoder",
         "residual_encoder")


def built(described, seed=0):
    """With weights from a seed; the global generator is as before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_network(described)


def image(*shape, seed=7):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
