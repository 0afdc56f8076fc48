"""What the pictures of a segmentation show."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from autoseg.core.geometry import Geometry
from autoseg.core.image import Image
from autoseg.core.spec import ChannelSpec, DatasetSpec, InputSpec, LabelSpec, LayoutSpec, RegionSpec
from autoseg.tasks.segmentation.figures import draw_figures, holds_hu, structures
from autoseg.tasks.segmentation.target import Segmentation

SPEC = DatasetSpec("Toy", "segmentation", (LayoutSpec("flat", {"image": ("{case}.nii.gz",)}),),
                   inputs=(InputSpec("image", "image", (ChannelSpec("CT"),)),),
                   labels=(LabelSpec("core", 4), LabelSpec("oedema", 2)),
                   regions=(RegionSpec("whole", ("core", "oedema")), RegionSpec("centre", ("core",))))
GEOMETRY = Geometry((6, 8, 10), (2.0, 1.0, 1.0), (5.0, 5.0, 5.0))


def test_regions_are_drawn_where_the_network_has_outputs_for_them_and_labels_otherwise():
    by_labels = replace(SPEC, options={"train_on": "labels"})
    by_regions = replace(SPEC, options={"train_on": "regions"})
    assert [(s.name, s.indices) for s in structures(by_labels)] == [("core", (1,)), ("oedema", (2,))]
    assert [(s.name, s.indices) for s in structures(by_regions)] == [("whole", (1, 2)), ("centre", (1,))]


def test_ct_is_known_by_its_name_or_by_its_normalisation():
    assert holds_hu(ChannelSpec("CT")) and holds_hu(ChannelSpec("venous", "ct"))
    assert not holds_hu(ChannelSpec("CT", "zscore")) and not holds_hu(ChannelSpec("T1"))


def test_voxels_that_nobody_annotated_are_no_errors():
    image = Image.canonical(np.full((1, *GEOMETRY.shape), 40.0, np.float32), GEOMETRY)
    prediction, reference = np.zeros((2, *GEOMETRY.shape), dtype=np.uint8)
    prediction[2, 3, 4:8] = 1
    reference[2, 3, 4:6] = 3  # behind the two labels: ignored
    spec = replace(SPEC, ignore=255, options={"train_on": "labels"})
    first, *_ = draw_figures(Segmentation(prediction), Segmentation(reference, ignored=3), image, spec)
    assert first.caption == "axial slice 3 of 6; 2 voxels differ; CT, soft-tissue window -150 to 250 HU"
    assert [name for name, _ in first.legend.entries] == ["core", "oedema"]
