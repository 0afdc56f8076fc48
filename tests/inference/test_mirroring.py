from __future__ import annotations

from itertools import product

import pytest
import torch
from torch.nn import functional

from autoseg.inference.mirroring import mirrored


def windows(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(4))


def shift(batch: torch.Tensor) -> torch.Tensor:
    """A network that depends on the direction of every axis."""
    return sum(batch.roll(1, dim) * (dim + 1) for dim in range(2, batch.ndim))


def test_network_that_does_not_mind_flips_gives_the_same():
    def blur(batch: torch.Tensor) -> torch.Tensor:
        return functional.avg_pool3d(batch, 3, stride=1, padding=1)

    batch = windows(2, 1, 4, 6, 5)
    torch.testing.assert_close(mirrored(blur, (0, 1, 2))(batch), blur(batch))


@pytest.mark.parametrize("axes", [(0,), (2,), (0, 2), (0, 1, 2)])
def test_mean_over_all_combinations_of_flips(axes):
    batch = windows(2, 1, 4, 6, 5)
    outputs = []
    for chosen in product((False, True), repeat=len(axes)):
        dims = [axis + 2 for axis, flip in zip(axes, chosen, strict=True) if flip]
        outputs.append(shift(batch.flip(dims)).flip(dims))
    torch.testing.assert_close(mirrored(shift, axes)(batch), torch.stack(outputs).mean(dim=0))


def test_result_flips_with_the_input():
    batch = windows(1, 1, 4, 6, 5)
    forward = mirrored(shift, (1, 2))
    torch.testing.assert_close(forward(batch.flip(3)), forward(batch).flip(3))


def test_axes_of_slices_are_the_last_two_of_the_model():
    batch = windows(2, 1, 6, 5)
    expected = (shift(batch) + shift(batch.flip(3)).flip(3)) / 2
    torch.testing.assert_close(mirrored(shift, (2,))(batch), expected)


def test_first_axis_of_slices_is_refused():
    with pytest.raises(ValueError, match="cannot be flipped"):
        mirrored(shift, (0,))(windows(2, 1, 6, 5))


def test_without_axes_the_network_itself_is_returned():
    assert mirrored(shift, ()) is shift


def test_half_precision_outputs_are_averaged_in_float32():
    forward = mirrored(lambda batch: shift(batch).bfloat16(), (0, 1, 2))
    assert forward(windows(1, 1, 4, 6, 5)).dtype == torch.float32


def sides(batch: torch.Tensor) -> torch.Tensor:
    """A network that knows left from right by position alone: background, right half, left half, and a third label."""
    place = torch.linspace(0, 1, batch.shape[-1]).expand(batch[:, 0].shape)
    return torch.stack([torch.zeros_like(place), 1 - place, place, batch[:, 0]], dim=1)


@pytest.mark.parametrize("axes", [(2,), (0, 2), (0, 1, 2)])
def test_a_network_that_goes_by_position_is_right_only_when_the_sides_are_swapped_back(axes):
    batch = windows(2, 1, 4, 6, 5)
    swapped = mirrored(sides, axes, left_right_axis=2, pairs=((1, 2),))(batch)
    torch.testing.assert_close(swapped, sides(batch))
    assert (mirrored(sides, axes)(batch)[:, 1] - mirrored(sides, axes)(batch)[:, 2]).abs().max() < 1e-6


def test_nothing_is_swapped_where_the_left_right_axis_is_not_mirrored():
    batch = windows(1, 1, 4, 6, 5)
    torch.testing.assert_close(mirrored(sides, (0, 1), left_right_axis=2, pairs=((1, 2),))(batch), mirrored(sides, (0, 1))(batch))


def test_sides_of_slices_are_swapped_on_their_last_axis():
    batch = windows(2, 1, 6, 5)
    torch.testing.assert_close(mirrored(sides, (1, 2), left_right_axis=2, pairs=((1, 2),))(batch), sides(batch))
