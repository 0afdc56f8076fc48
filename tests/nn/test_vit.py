from __future__ import annotations

import math

import numpy as np
import torch
from nn.classifiers import built, image, needs_monai, small

from autoseg.nn.vit import positions


def naive_positions(width, places):
    waves = width // (2 * len(places))
    table = np.zeros((width, *places))
    for index in np.ndindex(*places):
        for axis, place in enumerate(index):
            for wave in range(waves):
                phase = place / 10_000 ** (wave / waves)
                first = 2 * waves * axis + wave
                table[(first, *index)], table[(first + waves, *index)] = math.sin(phase), math.cos(phase)
    return table


def test_positions_are_sines_and_cosines_along_every_axis():
    for places in ((3, 5), (2, 4, 3)):
        assert np.allclose(positions(12, places).numpy(), naive_positions(12, places), atol=1e-6)


def test_no_two_places_have_the_same_position():
    codes = positions(24, (6, 7)).flatten(1).T
    assert torch.pdist(codes).min() > 0.1


def layer_norm(tokens, norm):
    centred = tokens - tokens.mean(1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(1, keepdims=True) + norm.eps)
    return scaled * norm.weight.detach().numpy() + norm.bias.detach().numpy()


def linear(tokens, layer):
    return tokens @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()


def gelu(values):
    return values * np.vectorize(lambda x: 0.5 * (1 + math.erf(x / math.sqrt(2))))(values)


def naive_block(block, tokens, heads):
    """Pre-norm transformer block of Dosovitskiy et al. 2021, eq. 2 and 3, head by head."""
    normed = layer_norm(tokens, block.norm1)
    queries, keys, values = (linear(normed, layer) for layer in (block.attn.to_q, block.attn.to_k, block.attn.to_v))
    size, mixed = tokens.shape[1] // heads, []
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        scores = np.exp(queries[:, part] @ keys[:, part].T / math.sqrt(size))
        mixed.append(scores / scores.sum(1, keepdims=True) @ values[:, part])
    tokens = tokens + linear(np.concatenate(mixed, axis=1), block.attn.out_proj)
    return tokens + linear(gelu(linear(layer_norm(tokens, block.norm2), block.mlp.linear1)), block.mlp.linear2)


@needs_monai
def test_features_are_those_of_the_equations():
    network = built(small("vit", features=(128,))).double().eval()
    batch = image(1, 1, 16, 24).double()
    kernel = network.encoder[0].embed.requires_grad_(False)
    tokens = np.stack([
        [float((batch[0, 0, 8 * y:8 * y + 8, 8 * x:8 * x + 8] * weight[0]).sum() + bias)
         for weight, bias in zip(kernel.weight, kernel.bias, strict=True)] for y in range(2) for x in range(3)])
    tokens += naive_positions(128, (2, 3)).reshape(128, -1).T
    for stage in (network.encoder[1], network.encoder[2]):
        tokens = naive_block(stage.block, tokens, heads=2)
    tokens = layer_norm(tokens, network.encoder[2].norm)
    with torch.no_grad():
        found = network.features(batch)[0].flatten(1).T.numpy()
    assert np.allclose(found, tokens, atol=1e-6)  # positions are float32


@needs_monai
def test_images_of_another_size_are_taken():
    network = built(small("vit", 3)).eval()
    with torch.no_grad():
        assert network(image(1, 1, 8, 16, 24)).shape == network(image(1, 1, 16, 16, 8)).shape == (1, 3)
