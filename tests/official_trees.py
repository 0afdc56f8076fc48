"""Tiny folders in the layouts of public datasets, and what must be understood of them.

Every name and value is written by hand after what the publishers and nnU-Net's conversion scripts say, not taken from the
specifications that are tested with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoseg.core.geometry import Geometry
from autoseg.core.image import Image
from autoseg.io.images import write_label_map, write_volume

SHAPE = (3, 5, 7)


@dataclass(frozen=True)
class Files:
    """One case: image files in the order of channels (one file: 4-D or colour), and its label file or mask files."""

    id: str
    images: tuple[str, ...]
    labels: tuple[str, ...]
    group: str
    stratum: str | None = None


@dataclass(frozen=True)
class Tree:
    """A folder.

    Attributes:
        values: label -> value in the files.
        left_out: files that the layout knows and leaves out.
    """

    spec: str
    layout: str
    channels: tuple[str, ...]
    values: dict[str, int]
    cases: tuple[Files, ...]
    left_out: tuple[str, ...] = ()

    @property
    def is_png(self) -> bool:
        return self.cases[0].images[0].endswith(".png")

    def write(self, folder: Path) -> None:
        """Channel i holds the value i + 1, and one more in its first voxel.

        The label map holds every value once, mask files of one case one voxel each.
        """
        for case in self.cases:
            count = len(self.channels) if len(case.images) == 1 else 1
            for place, name in enumerate(case.images):
                self._write_image(folder / name, [place + index + 1 for index in range(count)])
            values = list(self.values.values()) if len(case.labels) == 1 else [255]
            for place, name in enumerate(case.labels):
                write_label(folder / name, [0] * place + values)
        for name in self.left_out:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text("{}" if name.endswith(".json") else "not opened")

    def _write_image(self, path: Path, values: Sequence[int]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not self.is_png:
            voxels = np.ones((len(values), *SHAPE), np.float32) * np.array(values, np.float32)[:, None, None, None]
            voxels[:, 0, 0, 0] += 1  # an image of one value would be warned of
            write_volume(path, voxels, Image.canonical(voxels, Geometry(SHAPE, (2.5, 0.7, 1.3))))
            return
        colours = values if len(values) == 1 else [*values, 255]  # Kaggle's files have an opaque alpha channel
        pixels = np.ones((*SHAPE[1:], len(colours)), np.uint8) * np.array(colours, np.uint8)
        pixels[0, 0, :len(values)] += 1
        write_png(path, pixels)


def write_label(path: Path, values: Sequence[int]) -> None:
    """A label map that holds `values` in its first voxels and 0 elsewhere."""
    path.parent.mkdir(parents=True, exist_ok=True)
    label = np.zeros(SHAPE, np.uint8)
    label[0].flat[:len(values)] = values
    if path.suffix == ".png":
        write_png(path, label[0, :, :, None])
    else:
        write_label_map(path, label, Image.canonical(label[None], Geometry(SHAPE, (2.5, 0.7, 1.3))))


def write_png(path: Path, pixels: np.ndarray) -> None:
    """`pixels`: uint8 (Y, X, C)."""
    from PIL import Image as PillowImage

    PillowImage.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(path)


def decathlon(spec: str, ids: tuple[str, str], channels: tuple[str, ...], values: dict[str, int]) -> tuple[Tree, Tree]:
    """Both layouts of a Decathlon task: 4-D files as downloaded, one file per channel in nnU-Net's folder."""
    msd = tuple(Files(case, (f"imagesTr/{case}.nii.gz",), (f"labelsTr/{case}.nii.gz",), case) for case in ids)
    return (Tree(spec, "msd", channels, values, msd, ("imagesTs/other_9.nii.gz", "dataset.json")),
            nnunet(spec, ids, channels, values, ids))


def nnunet(spec: str, ids: Sequence[str], channels: tuple[str, ...], values: dict[str, int], groups: Sequence[str],
           strata: Sequence[str | None] = (None, None), ending: str = ".nii.gz", files: int | None = None) -> Tree:
    """nnU-Net's raw folder; a colour PNG is one file (`files=1`) of several channels."""
    cases = tuple(Files(case, tuple(f"imagesTr/{case}_{index:04d}{ending}" for index in range(files or len(channels))),
                        (f"labelsTr/{case}{ending}",), group, stratum)
                  for case, group, stratum in zip(ids, groups, strata, strict=True))
    return Tree(spec, "nnunet", channels, values, cases, (f"imagesTs/other_0000{ending}", "dataset.json"))


BRATS_CHANNELS = ("T1", "T1ce", "T2", "FLAIR")
BRATS_2021, BRATS_2023 = ("BraTS2021_00000", "BraTS2021_00002"), ("BraTS-GLI-00008-000", "BraTS-GLI-00008-001")
PARTS_2021, PARTS_2023 = ("t1", "t1ce", "t2", "flair"), ("t1n", "t1c", "t2w", "t2f")
ACDC = {"right_ventricle": 1, "myocardium": 2, "left_ventricle": 3}
ACDC_IDS = ("patient001_frame01", "patient001_frame12")
AMOS = {"spleen": 1, "right_kidney": 2, "left_kidney": 3, "gallbladder": 4, "esophagus": 5, "liver": 6, "stomach": 7, "aorta": 8,
        "inferior_vena_cava": 9, "pancreas": 10, "right_adrenal_gland": 11, "left_adrenal_gland": 12, "duodenum": 13,
        "bladder": 14, "prostate_or_uterus": 15}
BTCV = {"spleen": 1, "right_kidney": 2, "left_kidney": 3, "gallbladder": 4, "esophagus": 5, "liver": 6, "stomach": 7, "aorta": 8,
        "inferior_vena_cava": 9, "portal_and_splenic_vein": 10, "pancreas": 11, "right_adrenal_gland": 12,
        "left_adrenal_gland": 13}
KITS, LITS = {"kidney": 1, "tumour": 2, "cyst": 3}, {"liver": 1, "tumour": 2}
FETAL = {"white_matter": 1, "intra_axial_csf": 2, "cerebellum": 3, "extra_axial_csf": 4, "cortical_grey_matter": 5,
         "deep_grey_matter": 6, "brainstem": 7, "corpus_callosum": 8}
SUNNYBROOK_IDS = ("SC-HF-I-01-IM-0001-0048", "SC-HF-I-01-IM-0001-0059", "SC-HF-NI-03-IM-0001-0100", "SC-HYP-08-IM-0001-0020",
                  "SC-N-02-IM-0001-0030")
NUCLEI = "00071198d059ba7f5914a526d124d28e6d010c92466da21d4a04cd5413362552"


def acdc(top: str) -> tuple[Files, ...]:
    return tuple(Files(case, (f"{top}patient001/{case}.nii.gz",), (f"{top}patient001/{case}_gt.nii.gz",), "patient001")
                 for case in ACDC_IDS)


def nuclei(top: str) -> tuple[Files, ...]:
    masks = tuple(f"{top}{NUCLEI}/masks/{name}.png" for name in ("07a9bf1d", "0e548d0a", "0ea4052b"))
    return (Files(NUCLEI, (f"{top}{NUCLEI}/images/{NUCLEI}.png",), masks, NUCLEI),)


TREES = (
    Tree("BraTS", "as downloaded", BRATS_CHANNELS, {"necrotic_core": 1, "edema": 2, "enhancing": 4}, tuple(
        Files(case, tuple(f"TrainingData/{case}/{case}_{part}.nii.gz" for part in PARTS_2021),
              (f"TrainingData/{case}/{case}_seg.nii.gz",), case) for case in BRATS_2021),
         ("RSNA_ASNR_MICCAI_BraTS2021_ValidationData/BraTS2021_00001/BraTS2021_00001_flair.nii.gz",)),
    nnunet("BraTS", BRATS_2021, BRATS_CHANNELS, {"necrotic_core": 2, "edema": 1, "enhancing": 3}, BRATS_2021),
    Tree("BraTS2023", "as downloaded", BRATS_CHANNELS, {"necrotic_core": 1, "edema": 2, "enhancing": 3}, tuple(
        Files(case, tuple(f"{case}/{case}-{part}.nii.gz" for part in PARTS_2023), (f"{case}/{case}-seg.nii.gz",),
              "BraTS-GLI-00008") for case in BRATS_2023),
         ("ASNR-MICCAI-BraTS2023-GLI-Challenge-ValidationData/BraTS-GLI-00001-000/BraTS-GLI-00001-000-t1c.nii.gz",)),
    nnunet("BraTS2023", BRATS_2023, BRATS_CHANNELS, {"necrotic_core": 1, "edema": 2, "enhancing": 3}, ["BraTS-GLI-00008"] * 2),
    *decathlon("BrainTumour", ("BRATS_001", "BRATS_002"), ("FLAIR", "T1", "T1ce", "T2"),
               {"edema": 1, "non_enhancing": 2, "enhancing": 3}),
    *decathlon("Heart", ("la_003", "la_004"), ("MRI",), {"left_atrium": 1}),
    *decathlon("Liver", ("liver_0", "liver_10"), ("CT",), {"liver": 1, "cancer": 2}),
    *decathlon("Hippocampus", ("hippocampus_001", "hippocampus_003"), ("MRI",), {"Anterior": 1, "Posterior": 2}),
    *decathlon("Prostate", ("prostate_00", "prostate_01"), ("T2", "ADC"), {"PZ": 1, "TZ": 2}),
    *decathlon("Lung", ("lung_001", "lung_003"), ("CT",), {"cancer": 1}),
    *decathlon("Pancreas", ("pancreas_001", "pancreas_004"), ("CT",), {"pancreas": 1, "cancer": 2}),
    *decathlon("HepaticVessel", ("hepaticvessel_001", "hepaticvessel_002"), ("CT",), {"vessel": 1, "tumour": 2}),
    *decathlon("Spleen", ("spleen_10", "spleen_2"), ("CT",), {"spleen": 1}),
    *decathlon("Colon", ("colon_001", "colon_005"), ("CT",), {"colon_cancer": 1}),
    Tree("ACDC", "as downloaded", ("MRI",), ACDC, acdc("database/training/"), (
        "database/training/patient001/patient001_4d.nii.gz", "database/training/patient001/Info.cfg",
        "database/MANDATORY_CITATION.md", "database/testing/patient101/patient101_frame01.nii.gz",
        "database/testing/patient101/patient101_frame01_gt.nii.gz", "database/testing/patient101/patient101_4d.nii.gz")),
    Tree("ACDC", "as downloaded", ("MRI",), ACDC, acdc("training/"), ("training/patient001/patient001_4d.nii.gz",)),
    Tree("ACDC", "patient folders", ("MRI",), ACDC, acdc(""), ("patient001/patient001_4d.nii.gz", "patient001/Info.cfg")),
    nnunet("ACDC", ACDC_IDS, ("MRI",), ACDC, ["patient001"] * 2),
    Tree("AMOS22", "as downloaded", ("CT or MRI",), AMOS, (
        Files("amos_0001", ("imagesTr/amos_0001.nii.gz",), ("labelsTr/amos_0001.nii.gz",), "amos_0001", "CT"),
        Files("amos_0008", ("imagesVa/amos_0008.nii.gz",), ("labelsVa/amos_0008.nii.gz",), "amos_0008", "CT"),
        Files("amos_0507", ("imagesTr/amos_0507.nii.gz",), ("labelsTr/amos_0507.nii.gz",), "amos_0507", "MRI"),
        Files("amos_0600", ("imagesVa/amos_0600.nii.gz",), ("labelsVa/amos_0600.nii.gz",), "amos_0600", "MRI")),
         ("imagesTs/amos_0002.nii.gz", "readme.md", "dataset.json")),
    nnunet("AMOS22", ("amos_0001", "amos_0507"), ("CT or MRI",), AMOS, ("amos_0001", "amos_0507"), ("CT", "MRI")),
    Tree("AMOS22-CT", "as downloaded", ("CT",), AMOS, (
        Files("amos_0001", ("imagesTr/amos_0001.nii.gz",), ("labelsTr/amos_0001.nii.gz",), "amos_0001"),
        Files("amos_0408", ("imagesVa/amos_0408.nii.gz",), ("labelsVa/amos_0408.nii.gz",), "amos_0408")),
         ("imagesTr/amos_0507.nii.gz", "labelsTr/amos_0507.nii.gz", "imagesVa/amos_0600.nii.gz", "labelsVa/amos_0600.nii.gz",
          "imagesTs/amos_0002.nii.gz")),
    nnunet("AMOS22-CT", ("amos_0001", "amos_0004"), ("CT",), AMOS, ("amos_0001", "amos_0004")),
    Tree("BTCV", "as downloaded", ("CT",), BTCV, tuple(
        Files(case, (f"RawData/Training/img/img{case}.nii.gz",), (f"RawData/Training/label/label{case}.nii.gz",), case)
        for case in ("0001", "0040")), ("RawData/Testing/img/img0061.nii.gz",)),
    Tree("BTCV", "averaged folders", ("CT",), BTCV, (
        Files("DET0000101", ("averaged-training-images/DET0000101_avg.nii.gz",),
              ("averaged-training-labels/DET0000101_avg_seg.nii.gz",), "DET0000101"),),
         ("averaged-testing-images/DET0000301_avg.nii.gz",)),
    nnunet("BTCV", ("img0001", "img0002"), ("CT",), BTCV, ("img0001", "img0002")),
    Tree("KiTS23", "as downloaded", ("CT",), KITS, tuple(
        Files(case, (f"dataset/{case}/imaging.nii.gz",), (f"dataset/{case}/segmentation.nii.gz",), case)
        for case in ("case_00000", "case_00588")), ("dataset/case_00000/instances/tumor_instance-1_annotation-2.nii.gz",)),
    nnunet("KiTS23", ("case_00000", "case_00001"), ("CT",), KITS, ("case_00000", "case_00001")),
    Tree("LiTS", "as downloaded", ("CT",), LITS, (
        Files("0", ("Training Batch 1/volume-0.nii",), ("Training Batch 1/segmentation-0.nii",), "0"),
        Files("130", ("Training Batch 2/volume-130.nii",), ("Training Batch 2/segmentation-130.nii",), "130")),
         ("test-volume-0.nii",)),
    nnunet("LiTS", ("liver_0", "liver_1"), ("CT",), LITS, ("liver_0", "liver_1")),
    Tree("FetalBrain", "as downloaded", ("MRI",), FETAL, tuple(
        Files(f"fetal_SB_atlas_{name}", (f"SpinaBifida_Fidon2021/fetal_SB_atlas_{name}/srr.nii.gz",),
              (f"SpinaBifida_Fidon2021/fetal_SB_atlas_{name}/parcellation.nii.gz",), f"fetal_SB_atlas_{name}", stratum)
        for name, stratum in (("GA21_notoperated", "not operated"), ("GA32_operated", "operated"))),
         ("SpinaBifida_Fidon2021/LICENSE.txt", *(f"SpinaBifida_Fidon2021/fetal_SB_atlas_GA32_operated/{name}" for name in (
             "mask.nii.gz", "lmks.nii.gz", "cgm.nii.gz", "wm.nii.gz", "wm.vtk", "pial.vtk")))),
    nnunet("FetalBrain", ("fetalSB_GA21_notoperated", "fetalSB_GA25_operated"), ("MRI",), FETAL,
           ("fetalSB_GA21_notoperated", "fetalSB_GA25_operated"), ("not operated", "operated")),
    nnunet("SunnybrookLV", SUNNYBROOK_IDS, ("MRI",), {"left_ventricle": 1},
           ("SC-HF-I-01", "SC-HF-I-01", "SC-HF-NI-03", "SC-HYP-08", "SC-N-02"), ("HF-I", "HF-I", "HF-NI", "HYP", "N"), ".png"),
    nnunet("SunnybrookGroupLV", SUNNYBROOK_IDS, ("MRI",), {"left_ventricle": 1},
           ("SC-HF-I-01", "SC-HF-I-01", "SC-HF-NI-03", "SC-HYP-08", "SC-N-02"), ("HF-I", "HF-I", "HF-NI", "HYP", "N"), ".png"),
    Tree("DSB2018", "as downloaded", ("red", "green", "blue"), {"nucleus": 1}, nuclei("stage1_train/"), (
        "stage1_test/0114f484/images/0114f484.png", "stage1_train_labels.csv")),
    Tree("DSB2018", "image folders", ("red", "green", "blue"), {"nucleus": 1}, nuclei("")),
    nnunet("DSB2018", ("a", "b"), ("red", "green", "blue"), {"nucleus": 1}, ("a", "b"), ending=".png", files=1),
    nnunet("DSB2018Fluorescence", ("dsb_00071198d059ba7f", "dsb_03398329ced0c23b"), ("fluorescence",), {"nucleus": 1},
           ("dsb_00071198d059ba7f", "dsb_03398329ced0c23b"), ending=".png"),
)
