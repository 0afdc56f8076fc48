"""Vision transformer: an image as tokens that attend to each other (Dosovitskiy et al. 2021, arXiv 2010.11929).

Blocks are MONAI's. Its whole network is not used: it fixes the size of images when it is built, and its class token leaves no
features at places. Here positions are sines and the head pools the tokens, both as good or better (Beyer et al. 2022,
arXiv 2205.01580).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from autoseg.core.errors import UsageError
from autoseg.core.networks import Classifier
from autoseg.nn.blocks import Stages, embedding

# Table 1 of the paper: heads of 64 features (12 for 768), and 4 times the features between the two layers of a block.
HEAD_FEATURES = 64
MLP_FACTOR = 4
# Longest wave / 2 pi of the position sines, in tokens (Vaswani et al. 2017, section 3.5).
TEMPERATURE = 10_000.0


class Tokens(nn.Module):
    """One token per box of the image, plus sines and cosines of its place."""

    def __init__(self, network: Classifier) -> None:
        super().__init__()
        self.embed = embedding(network.in_channels, network.features[0], network.strides[0])

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, *spatial) to (B, F, *places)."""
        tokens = self.embed(image)
        return tokens + positions(tokens.shape[1], tuple(tokens.shape[2:])).to(tokens)


class Attending(nn.Module):
    """A transformer block on features at places; the last one ends with a norm of each token."""

    def __init__(self, block: nn.Module, norm: nn.Module) -> None:
        super().__init__()
        self.block = block
        self.norm = norm

    def forward(self, features: Tensor) -> Tensor:
        """(B, F, *places) to the same shape."""
        tokens = self.norm(self.block(features.flatten(2).transpose(1, 2)))
        return tokens.transpose(1, 2).reshape(features.shape)


def vit_stages(network: Classifier) -> Stages:
    """Tokens, and each block as a stage of its own."""
    width, depth = network.features[0], network.blocks[0]
    stages: Stages = [(Tokens(network), width)]
    for index in range(depth):
        norm = nn.LayerNorm(width) if index == depth - 1 else nn.Identity()
        stages.append((Attending(_block(width), norm), width))
    return stages


def positions(width: int, places: tuple[int, ...]) -> Tensor:
    """Sines and cosines of each place along each axis (F, *places), equally many features for every axis.

    Source: Vaswani et al. 2017 (arXiv 1706.03762), section 3.5, for each axis (Chen et al. 2021, arXiv 2104.02057).
    """
    waves = width // (2 * len(places))
    rates = TEMPERATURE ** (-torch.arange(waves, dtype=torch.float32) / waves)
    parts = []
    for axis, size in enumerate(places):
        phases = rates[:, None] * torch.arange(size, dtype=torch.float32)
        shape = [1] * len(places)
        shape[axis] = size
        parts += [wave(phases).reshape(waves, *shape).expand(waves, *places) for wave in (torch.sin, torch.cos)]
    return torch.cat(parts)


def _block(width: int) -> nn.Module:
    """Norm, attention, norm, two layers. Queries, keys and values have matrices of their own, as Muon orthogonalises each."""
    try:
        from monai.networks.blocks.transformerblock import TransformerBlock
    except ImportError as error:
        raise UsageError(f"a vision transformer needs MONAI, which is not installed ({error})",
                         hint="pip install 'autoseg[classification]'") from error
    heads = max(count for count in range(1, max(1, width // HEAD_FEATURES) + 1) if width % count == 0)
    block = TransformerBlock(width, MLP_FACTOR * width, heads, qkv_bias=True, use_flash_attention=True,
                             use_combined_linear=False)
    # MONAI's norm before an attention that is not there would be weights that nothing moves.
    block.add_module("norm_cross_attn", nn.Identity())
    for module in block.modules():
        if isinstance(module, nn.Linear):  # as in the paper's code
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    return block
