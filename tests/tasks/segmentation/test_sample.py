from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from autoseg.core.plan import Augmentation
from autoseg.tasks.segmentation.sample import draw_batch


@pytest.fixture(scope="module")
def small(toy):
    """The toy with patches smaller than its images and nothing augmented."""
    configuration = replace(toy.configuration, patch_size=(4, 6, 5), batch_size=6, oversample_foreground=0.5,
                            augmentation=Augmentation())
    return toy, configuration


def test_the_last_half_of_a_batch_is_centred_on_a_label(small):
    toy, configuration = small
    for seed in range(10):
        batch = draw_batch(toy.workspace.units, toy.store, configuration, np.random.default_rng(seed))
        assert all((label > 0).any() for label in batch["label"][3:])
        assert batch["image"].shape == (6, 1, 4, 6, 5) and len(batch["cases"]) == 6


def test_both_labels_are_drawn_although_one_is_rarer(small):
    toy, configuration = small
    always = replace(configuration, oversample_foreground=1.0, patch_size=(1, 1, 1))
    drawn = [int(label) for seed in range(20)
             for label in draw_batch(toy.workspace.units, toy.store, always, np.random.default_rng(seed))["label"].ravel()]
    assert 0 not in drawn and 0.3 < np.mean(np.array(drawn) == 1) < 0.7


def test_patch_and_label_are_cut_from_the_same_place(small):
    toy, configuration = small
    batch = draw_batch(toy.workspace.units, toy.store, configuration, np.random.default_rng(3))
    for image, label, case in zip(batch["image"].numpy(), batch["label"].numpy(), batch["cases"], strict=True):
        whole, labels = toy.store.array(case, "image")[0], toy.store.array(case, "label")
        windows = np.lib.stride_tricks.sliding_window_view(whole, (4, 6, 5))
        place = np.argwhere((windows == image[0]).all(axis=(3, 4, 5)))
        assert len(place) == 1
        z, y, x = place[0]
        assert np.array_equal(labels[z:z + 4, y:y + 6, x:x + 5], label)
