from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from autoseg.stages.plan import one_batch_of_windows


@pytest.mark.parametrize(("dims", "count"), [(3, 1), (3, 3), (2, 5)])
def test_one_full_batch_of_windows_is_timed(toy, dims, count):
    """Also where the case has too few voxels for so many windows."""
    seen = []

    class Note(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, windows):
            seen.append(tuple(windows.shape))
            return windows.repeat(1, 3, *(1,) * dims)

    patch = toy.configuration.patch_size if dims == 3 else (1, *toy.configuration.patch_size[1:])
    configuration = replace(toy.configuration, patch_size=patch, network=replace(toy.configuration.network, dims=dims),
                            inference=replace(toy.configuration.inference, tiles_per_batch=count))
    task = replace(toy.task, build_network=lambda configuration: Note())
    windows, predict = one_batch_of_windows(task, toy.plan, configuration, toy.store, toy.workspace.units[0])
    predict()
    assert (windows, seen) == (count, [(count, 1, *patch[-dims:])])
