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


OASIS = ("OASIS_OAS1_0001_MR1", "OASIS_OAS1_0061_MR1", "OASIS_OAS1_0061_MR2")
PATIENTS = ("OASIS_OAS1_0001", "OASIS_OAS1_0061", "OASIS_OAS1_0061")
FETAL = ("fetal_SB_atlas_GA21_notoperated", "fetal_SB_atlas_GA23_notoperated")

PAIR_TREES = (
    PairTree("OASIS", "as downloaded", tuple(labelled(case, f"{case}/aligned_norm.nii.gz", f"{case}/aligned_seg35.nii.gz", group)
                                             for case, group in zip(OASIS, PATIENTS, strict=True)), 6,
             "OASIS_OAS1_0061_MR1_to_OASIS_OAS1_0001_MR1",
             ("OASIS_OAS1_0001_MR1/orig.nii.gz", "OASIS_OAS1_0001_MR1/seg4.nii.gz", "subjects.txt", "seg35_labels.txt")),
    nnunet("OASIS", OASIS, PATIENTS),
    PairTree("LPBA40", "delineation space", tuple(
        labelled(case, f"{case}/{case}.delineation.skullstripped.nii.gz", f"{case}/{case}.delineation.structure.label.nii.gz")
        for case in ("S01", "S40")), 2, "S40_to_S01", ("S01/S01.delineation.brain.mask.nii.gz",)),
    nnunet("LPBA40", ("S01", "S02")),
    PairTree("IXI", "as downloaded", tuple(PairFiles(case, f"IXI-T1/{case}.nii.gz", {}, case[:6])
                                           for case in ("IXI002-Guys-0828-T1", "IXI012-HH-1211-T1")), 2,
             "IXI012-HH-1211-T1_to_IXI002-Guys-0828-T1", ("IXI-T2/IXI002-Guys-0828-T2.nii.gz",)),
    PairTree("DIRLab4DCT", "converted", tuple(PairFiles(f"{case}_{phase}", f"{case}/{phase}.nii.gz",
                                                        {"landmarks": f"{case}/{phase}.txt"}, case)
                                              for case in ("case1", "case2") for phase in ("T00", "T50")), 2,
             "case2_T50_to_case2_T00"),
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
