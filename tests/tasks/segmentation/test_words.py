"""What people are told of a segmentation."""

from __future__ import annotations

import numpy as np
import pytest

from autoseg.core.geometry import Geometry
from autoseg.core.image import Image
from autoseg.core.spec import DatasetSpec, LabelSpec, LayoutSpec, RegionSpec
from autoseg.tasks.segmentation.target import Segmentation
from autoseg.tasks.segmentation.words import facts, row

SPEC = DatasetSpec("Toy", "segmentation", (LayoutSpec("toy", {"image": ("{case}.nii.gz",)}),),
                   labels=(LabelSpec("edema", 2), LabelSpec("core", 1)), ignore=9,
                   regions=(RegionSpec("whole", ("edema", "core")), RegionSpec("core", ("core",))))


def test_volumes_are_voxels_times_their_size():
    label = np.zeros((4, 5, 6), np.uint8)
    label[0, 0, :3], label[2:, 1, 1] = 1, 2
    image = Image.canonical(np.zeros((1, 4, 5, 6), np.float32), Geometry((4, 5, 6), (2.5, 1.0, 2.0)))
    assert row(Segmentation(label), SPEC, image) == pytest.approx(
        {"edema.volume_ml": 3 * 5 / 1000, "core.volume_ml": 2 * 5 / 1000, "whole.volume_ml": 5 * 5 / 1000})
    assert set(row(Segmentation(np.zeros_like(label)), SPEC, image).values()) == {0.0}


def test_facts_name_labels_values_and_regions():
    assert facts(SPEC, ()) == {"labels": "0 background, 2 edema, 1 core", "ignored": "9: voxels that nobody annotated",
                               "regions": "whole: edema + core; core: core"}
