from __future__ import annotations

import numpy as np
import pytest
import torch

from autoseg.inference.averaging import averaged, mean_logits
from autoseg.inference.sliding_window import predict_logits


def test_mean_of_three_members_by_hand():
    members = [torch.tensor([1.0, -3.0]), torch.tensor([2.0, 0.0]), torch.tensor([6.0, 0.0])]
    assert mean_logits(iter(members)).tolist() == [3.0, -1.0]
    assert members[0].tolist() == [1.0, -3.0]


def test_no_member_is_refused():
    with pytest.raises(ValueError, match="at least one member"):
        mean_logits([])


def test_one_member_is_itself():
    def forward(windows: torch.Tensor) -> torch.Tensor:
        return windows

    assert averaged([forward]) is forward


def test_averaging_windows_equals_averaging_images():
    voxels = np.random.default_rng(0).normal(size=(1, 9, 7, 8)).astype(np.float32)
    plan = {"patch_size": (4, 6, 5), "tile_step": 0.5, "gaussian_sigma": 1 / 8, "tiles_per_batch": 2,
            "out_channels": 1, "dims": 3}
    forwards = [lambda windows: windows.roll(1, 2), lambda windows: 3 * windows.roll(2, 4)]
    together = predict_logits(averaged(forwards), voxels, **plan)
    apart = mean_logits(predict_logits(forward, voxels, **plan) for forward in forwards)
    torch.testing.assert_close(together, apart)
