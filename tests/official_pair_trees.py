"""Tiny folders in the layouts of public datasets for registration, and what must be understood of them.

Names are written by hand after what the publishers say, not taken from the specifications that are tested with them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class PairFiles:
    """One case: its image, its targets by role, and its patient."""

    id: str
    image: str
    targets: dict[str, str]
    group: str


@dataclass(frozen=True)
class PairTree:
    """A folder.

    Attributes:
        left_out: files that the layout knows and leaves out.
        pairs: how many pairs its cases make, and the id of one of them.
    """

    spec: str
    layout: str
    cases: tuple[PairFiles, ...]
    pairs: int
    pair: str
    left_out: tuple[str, ...] = ()

    def write(self, folder: Path) -> None:
        for name in [*self.left_out, *(path for case in self.cases for path in (case.image, *case.targets.values()))]:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()


def labelled(case: str, image: str, label: str, group: str = "") -> PairFiles:
    return PairFiles(case, image, {"label": label}, group or case)


def nnunet(spec: str, ids: tuple[str, ...], groups: tuple[str, ...] = (), **more: str) -> PairTree:
    """nnU-Net's raw folder, with further targets in folders of their own."""
    cases = tuple(PairFiles(case, f"imagesTr/{case}_0000.nii.gz", {"label": f"labelsTr/{case}.nii.gz"} | {
        role: f"{folder}/{case}.nii.gz" for role, folder in more.items()}, group)
        for case, group in zip(ids, groups or ids, strict=True))
    return PairTree(spec, "nnunet", cases, len(ids) * (len(ids) - 1), f"{ids[1]}_to_{ids[0]}", ("imagesTs/other_0000.nii.gz",))


def dir_lab(folder: str, image: str, landmarks: str) -> tuple[PairFiles, PairFiles]:
    """Breath in and out of a patient; `image` and `landmarks` have `{}` in place of the phase."""
    return tuple(PairFiles(f"{folder}_{phase}", f"{folder}/Images/{image.format(phase)}.nii.gz",
                           {"landmarks": f"{folder}/{landmarks.format(phase)}_xyz.txt"}, folder) for phase in ("T00", "T50"))


NEURITE = ("OASIS_OAS1_0001_MR1", "OASIS_OAS1_0457_MR1")
VISITS = ("OASIS_OAS1_0061_MR1", "OASIS_OAS1_0061_MR2", "OASIS_OAS1_0457_MR1")
LPBA40 = "LPBA40/delineation_space/{0}/{0}.delineation."
FETAL = ("fetal_SB_atlas_GA21_notoperated", "fetal_SB_atlas_GA23_notoperated")

PAIR_TREES = (
    PairTree("OASIS", "as downloaded", tuple(
        labelled(case, f"{case}/aligned_norm.nii.gz", f"{case}/aligned_seg35.nii.gz", case[:15]) for case in NEURITE), 2,
             "OASIS_OAS1_0457_MR1_to_OASIS_OAS1_0001_MR1",
             (*(f"{NEURITE[0]}/{name}.nii.gz" for name in (
                 "aligned_orig", "aligned_seg4", "norm", "orig", "seg35", "seg4", "slice_norm", "slice_orig", "slice_seg24",
                 "slice_seg4")), "seg24_labels.txt", "seg35_labels.txt", "seg4_labels.txt", "subjects.txt")),
    PairTree("OASIS", "learn2reg", tuple(labelled(case, f"imagesTr/{case}_0000.nii.gz", f"labelsTr/{case}_0000.nii.gz")
                                         for case in ("OASIS_0001", "OASIS_0395", "OASIS_0414")), 6, "OASIS_0414_to_OASIS_0395",
             ("OASIS_dataset.json", "README.txt", "changelog.txt", "imagesTs/OASIS_0415_0000.nii.gz",
              "masksTr/OASIS_0001_0000.nii.gz", "masksTs/OASIS_0415_0000.nii.gz")),
    nnunet("OASIS", VISITS, tuple(case[:15] for case in VISITS)),
    PairTree("LPBA40", "delineation space", tuple(
        labelled(case, f"{LPBA40.format(case)}skullstripped.nii.gz", f"{LPBA40.format(case)}structure.label.nii.gz")
        for case in ("S01", "S40")), 2, "S40_to_S01",
             (*(f"{LPBA40.format('S01')}{name}" for name in ("skullstripped.hdr", "skullstripped.img.gz", "structure.label.hdr",
                                                            "structure.label.img.gz")),
              "LPBA40/delineation_space/lpba40.label.xml", "LPBA40/native_space/S01/S01.native.brain.bfc.hdr",
              "LPBA40/native_space/S01/S01.native.brain.mask.nii.gz")),
    nnunet("LPBA40", ("S01", "S02")),
    PairTree("IXI", "as downloaded", tuple(PairFiles(case, f"{folder}{case}.nii.gz", {}, case[:6]) for folder, case in (
        ("IXI-T1/", "IXI002-Guys-0828-T1"), ("IXI-T1/", "IXI012-HH-1211-T1"), ("", "IXI013-IOP-0839-T1"))), 6,
             "IXI012-HH-1211-T1_to_IXI002-Guys-0828-T1",
             ("IXI-T2/IXI002-Guys-0828-T2.nii.gz", "IXI-DTI/IXI002-Guys-0828-DTI-00.nii.gz", "IXI.xls")),
    PairTree("DIRLab4DCT", "converted", (
        *dir_lab("Case10Pack", "case10_{}", "extremePhases/case10_dirLab300_{}"),
        *dir_lab("Case1Pack", "case1_{}_s", "ExtremePhases/Case1_300_{}"),
        *dir_lab("Case2Pack", "case2_{}-ssm", "ExtremePhases/Case2_300_{}"),
        *dir_lab("Case8Deploy", "case8_{}", "extremePhases/case8_dirLab300_{}")), 4, "Case8Deploy_T50_to_Case8Deploy_T00",
             ("Case1Pack/Images/case1_T00_s.img", "Case1Pack/Images/case1_T10_s.img",
              "Case1Pack/Sampled4D/case1_4D-75_T00.txt", "Case8Deploy/Images/case8_T50.img")),
    PairTree("FetalBrainPairs", "as downloaded", tuple(
        PairFiles(case, f"atlas/{case}/srr.nii.gz", {"label": f"atlas/{case}/parcellation.nii.gz",
                                                    "landmarks": f"atlas/{case}/lmks.nii.gz"}, case) for case in FETAL), 2,
             f"{FETAL[1]}_to_{FETAL[0]}", (f"atlas/{FETAL[0]}/mask.nii.gz", "atlas/LICENSE.txt")),
    nnunet("FetalBrainPairs", ("fetalSB_GA21_notoperated", "fetalSB_GA25_operated"), landmarks="landmarks"),
    PairTree("HippocampusPairs", "msd", tuple(labelled(case, f"imagesTr/{case}.nii.gz", f"labelsTr/{case}.nii.gz")
                                              for case in ("hippocampus_001", "hippocampus_394")), 2,
             "hippocampus_394_to_hippocampus_001", ("imagesTs/hippocampus_002.nii.gz",)),
    nnunet("HippocampusPairs", ("hippocampus_001", "hippocampus_003")),
    PairTree("OasisTrt2D", "slices", tuple(labelled(case, f"images/{case}.nii.gz", f"labels/{case}.nii.gz")
                                           for case in ("oasis_trt_01", "oasis_trt_20")), 2, "oasis_trt_20_to_oasis_trt_01",
             ("template.nii.gz", "template_mask.nii.gz", "README.md")),
)
