from __future__ import annotations

import nibabel
import numpy as np
import pytest

from autoseg.core.modality import intensity_kind, name_warning


def chest(air: float = -1000.0) -> np.ndarray:
    """Air around soft tissue with fat and a bone."""
    rng = np.random.default_rng(0)
    voxels = rng.normal(air, 10, (6, 20, 20))
    voxels[1:5, 4:16, 4:16] = rng.normal(40, 20, (4, 12, 12))
    voxels[2, 6, 6:10] = 900
    voxels[1:5, 4, 4:16] = -100
    return voxels.astype(np.float32)


def test_air_and_soft_tissue_make_a_ct_also_with_fillers_below_air():
    filled = chest()
    filled[:, :2] = -3024
    assert intensity_kind(chest()) == intensity_kind(filled) == intensity_kind(chest().astype(np.int16)) == "hounsfield"


@pytest.mark.parametrize("voxels", [chest() + 1024, chest() / 1000, (chest() - chest().mean()) / chest().std(), chest() * 100])
def test_shifted_scaled_and_normalised_ct_is_not_in_hounsfield_units(voxels):
    assert intensity_kind(voxels) == "not_hounsfield"


def test_a_ct_cropped_to_soft_tissue_says_nothing():
    assert intensity_kind(np.clip(chest(), -160, 240)) == "other"


@pytest.mark.parametrize(("values", "kind"), [
    ((0, 1), "mask"), ((1,), "mask"), ((0,), "constant"), ((7,), "constant"), ((0, 255), "two_values"), ((-1, 1), "two_values"),
    ((0, 1, 2), "not_hounsfield"),
])
def test_few_values(values, kind):
    assert intensity_kind(np.resize(np.array(values, np.float32), (3, 4, 5))) == kind


@pytest.mark.parametrize(("name", "kind", "warns"), [
    ("CT", "hounsfield", False), ("CT", "other", False), ("CT", "not_hounsfield", True), ("ct", "not_hounsfield", True),
    ("T1", "hounsfield", True), ("T1", "not_hounsfield", False), ("noNorm", "hounsfield", False), ("CT", "constant", False),
])
def test_only_contradictions_warn(name, kind, warns):
    assert (name_warning(name, kind) is not None) == warns


@pytest.mark.parametrize(("file", "kind"), [
    ("Dataset107_LungGTV/imagesTr/lung_001_0000.nii.gz", "hounsfield"),
    ("Dataset107_LungGTV/imagesTr/lung_002_0000.nii.gz", "hounsfield"),
    ("Dataset107_LungGTV/imagesTr/lung_003_0000.nii.gz", "hounsfield"),
    ("Dataset109_BrainAniso/imagesTr/brain_001_0000.nii.gz", "not_hounsfield"),
    ("Dataset106_BraTS15Sub/imagesTr/brats_2013_pat0001_1_0001.nii.gz", "not_hounsfield"),
    ("Dataset105_FetalBrainSB/imagesTr/fetalSB_GA24_notoperated_0000.nii.gz", "not_hounsfield"),
])
def test_real_scans(real_data, file, kind):
    assert intensity_kind(np.asarray(nibabel.load(real_data / file).dataobj)) == kind
