from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from nn.classifiers import KINDS, small
from torch import nn

from autoseg.nn.build import build_network
from autoseg.training.muon import NEWTON_SCHULZ, UPDATE_RMS, Muon, kernels_of, orthogonalise


@pytest.mark.parametrize("shape", [(8, 30), (30, 8), (12, 12)])
def test_singular_values_come_near_one_and_singular_vectors_stay(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    result = orthogonalise(matrix)
    rotated = left.T @ result @ right.T
    assert torch.allclose(rotated, torch.diag(torch.diagonal(rotated)), atol=1e-8)
    assert torch.diagonal(rotated).min() > 0.6 and torch.diagonal(rotated).max() < 1.3


def test_the_quintic_applied_to_singular_values_one_by_one_gives_the_same():
    matrix = torch.randn(5, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    values = np.linalg.svd(matrix.numpy(), compute_uv=False) / (np.linalg.norm(matrix.numpy()) + 1e-7)
    a, b, c = NEWTON_SCHULZ
    for _ in range(5):
        values = a * values + b * values**3 + c * values**5
    assert np.sort(np.linalg.svd(orthogonalise(matrix).numpy(), compute_uv=False)) == pytest.approx(np.sort(values), abs=1e-6)


def naive_steps(matrix):
    """Newton-Schulz as it is published, in double precision."""
    a, b, c = NEWTON_SCHULZ
    current = matrix.double() / (matrix.double().norm() + 1e-7)
    for _ in range(5):
        gram = current @ current.T
        current = a * current + (b * gram + c * gram @ gram) @ current
    return current


@pytest.mark.parametrize("rank", [40, 3, 1])
@pytest.mark.parametrize("shape", [(40, 40), (40, 79), (40, 80), (40, 1080)])
def test_wide_and_square_matrices_take_the_published_steps_also_where_they_have_few_ranks(shape, rank):
    generator = torch.Generator().manual_seed(3)
    matrix = torch.randn(shape[0], rank, generator=generator) @ torch.randn(rank, shape[1], generator=generator)
    matrix += 1e-4 * torch.randn(shape, generator=generator)
    expected = naive_steps(matrix)
    assert (orthogonalise(matrix) - expected).norm() < 3e-4 * expected.norm()
    assert (orthogonalise(matrix.T.contiguous()) - naive_steps(matrix).T).norm() < 3e-4 * expected.norm()


def test_everything_but_kernels_moves_as_torchs_adamw():
    torch.manual_seed(0)
    ours = [nn.Parameter(torch.randn(4, 3)), nn.Parameter(torch.randn(5))]
    theirs = [nn.Parameter(p.detach().clone()) for p in ours]
    options = {"lr": 3e-3, "betas": (0.9, 0.95)}
    muon = Muon([], ours, weight_decay=0.1, momentum=0.95, **options)
    groups = [{"params": theirs[:1], "weight_decay": 0.1}, {"params": theirs[1:], "weight_decay": 0.0}]
    adamw = torch.optim.AdamW(groups, **options)
    for step in range(6):
        for mine, other in zip(ours, theirs, strict=True):
            mine.grad = torch.full_like(mine, 0.3 * step - 1) * mine.detach().sign()
            other.grad = torch.full_like(other, 0.3 * step - 1) * other.detach().sign()
        muon.step()
        adamw.step()
    assert all(torch.allclose(mine, other, atol=1e-6) for mine, other in zip(ours, theirs, strict=True))


def test_the_first_step_of_a_kernel_is_its_orthogonalised_gradient_of_adams_size():
    kernel = nn.Parameter(torch.zeros(6, 2, 3, 3))
    kernel.grad = torch.randn(kernel.shape, generator=torch.Generator().manual_seed(2))
    Muon([kernel], [], lr=0.01, weight_decay=0.0, momentum=0.95, betas=(0.9, 0.95)).step()
    expected = -0.01 * UPDATE_RMS * math.sqrt(18) * orthogonalise(kernel.grad.reshape(6, 18))
    assert torch.allclose(kernel.detach().reshape(6, 18), expected, atol=1e-6)
    assert kernel.detach().square().mean().sqrt() == pytest.approx(0.01 * UPDATE_RMS, rel=0.2)


def test_kernels_are_convolutions_and_not_upsampling_or_norms():
    network = nn.Sequential(nn.Conv3d(1, 2, 3), nn.ConvTranspose3d(2, 2, 2), nn.InstanceNorm3d(2, affine=True))
    assert kernels_of(network) == {id(network[0].weight)}


@pytest.mark.parametrize("kind", KINDS)
def test_kernels_of_classifiers_are_convolutions_and_hidden_layers_and_not_their_outputs_or_recurrent_networks(kind):
    network = build_network(small(kind, slices=True, pooling="recurrent", attention="squeeze_excitation"))
    kernels = kernels_of(network)
    left = {name for name, parameter in network.named_parameters() if id(parameter) not in kernels and parameter.ndim > 1}
    assert {name for name in left if not name.startswith("pooling.reader.")} == {"head.weight"} | {
        name for name in left if kind == "residual_encoder" and ".shortcut." in name}


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_moves_every_kernel_by_the_size_of_adams(kind):
    """Kernels of DenseNet are wide, those of ViT square, and those of squeezing tall."""
    torch.manual_seed(0)
    network = build_network(small(kind, attention="squeeze_excitation"))
    kernels = [p for p in network.parameters() if id(p) in kernels_of(network)]
    before = [p.detach().clone() for p in kernels]
    network(torch.randn(4, 1, 16, 16)).square().sum().backward()
    Muon(kernels, [], lr=0.01, weight_decay=0.0, momentum=0.95, betas=(0.9, 0.95)).step()
    sizes = torch.stack([(p.detach() - old).square().mean().sqrt() / 0.01 for p, old in zip(kernels, before, strict=True)])
    assert sizes.min() > 0.2 * UPDATE_RMS and sizes.max() < 1.3 * UPDATE_RMS
