"""Tiny folders of public classification datasets as they are downloaded, and what must be understood of them.

Names, columns and values are written by hand after what the publishers say, not taken from the specifications that are tested
with them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image as PillowImage

RNG = np.random.default_rng(11)


@dataclass(frozen=True)
class Labelled:
    """One case: id, patient, and the cells of its targets by column."""

    id: str
    group: str
    cells: dict[str, str]


@dataclass(frozen=True)
class ClassTree:
    """A folder.

    Attributes:
        fill: writes it.
        left_out: files that the layout knows and leaves out.
        warnings: codes, of rows without a file.
    """

    spec: str
    layout: str
    channels: tuple[str, ...]
    cases: tuple[Labelled, ...]
    fill: Callable[[Path], None] = field(repr=False)
    left_out: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def write(self, folder: Path) -> None:
        self.fill(folder)
        for name in self.left_out:
            write_text(folder / name, "not opened")


def write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def picture(path: Path, *, colours: int = 1, alpha: bool = False) -> None:
    """A picture of noise; several colours differ."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = RNG.integers(0, 255, (9, 11, colours), np.uint8)
    pixels = np.repeat(pixels, 3, axis=2) if alpha else pixels
    pixels = np.dstack([pixels, np.full((9, 11), 255, np.uint8)]) if alpha else pixels
    PillowImage.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(path)


# Number of classes and of channels (medmnist.INFO of version 2.1.0).
MEDMNIST = {
    "PathMNIST": (9, 3), "DermaMNIST": (7, 3), "OCTMNIST": (4, 1), "PneumoniaMNIST": (2, 1), "RetinaMNIST": (5, 3),
    "BreastMNIST": (2, 1), "BloodMNIST": (8, 3), "TissueMNIST": (8, 1), "OrganAMNIST": (11, 1), "OrganCMNIST": (11, 1),
    "OrganSMNIST": (11, 1), "ChestMNIST": (14, 1), "OrganMNIST3D": (11, 1), "NoduleMNIST3D": (2, 1), "AdrenalMNIST3D": (2, 1),
    "FractureMNIST3D": (3, 1), "VesselMNIST3D": (2, 1), "SynapseMNIST3D": (2, 1),
}
GREY_NAMES = {"OCTMNIST": "OCT", "BreastMNIST": "ultrasound", "TissueMNIST": "fluorescence", "AdrenalMNIST3D": "shape",
              "VesselMNIST3D": "shape", "SynapseMNIST3D": "electron microscopy", "PneumoniaMNIST": "X-ray", "ChestMNIST": "X-ray"}
RGB = ("red", "green", "blue")


def medmnist(name: str, size: int) -> ClassTree:
    """An archive with three training, one validation and one test image; the first two labels are the lowest and highest."""
    classes, colours = MEDMNIST[name]
    is_volume, is_multilabel = name.endswith("3D"), name == "ChestMNIST"
    shape = (size,) * (3 if is_volume else 2) + ((3,) if colours == 3 else ())
    file = f"{name.lower()}{'' if size == 28 else f'_{size}'}.npz"
    numbers = {"train": [0, classes - 1, 1], "val": [1], "test": [0]}

    def fill(folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        arrays = {}
        for split, labels in numbers.items():
            images = np.zeros((len(labels), *shape), np.uint8)
            images[:, :2] = RNG.integers(0, 255, images[:, :2].shape)
            arrays[f"{split}_images"] = images
            rows = np.eye(classes, dtype=np.uint8)[labels] if is_multilabel else np.array(labels, np.uint8)[:, None]
            arrays[f"{split}_labels"] = rows
        np.savez_compressed(folder / file, **arrays)

    def cells(split: str, label: int) -> dict[str, str]:
        if is_multilabel:
            return {"split": split, **{f"label.{place}": str(int(place == label)) for place in range(classes)}}
        return {"split": split, "label": str(label)}

    ids = [(f"{split}_{place:06d}", cells(split, label)) for split in ("test", "train", "val")
           for place, label in enumerate(numbers[split])]
    return ClassTree(name, f"{size} {'voxels' if is_volume else 'pixels'}",
                     RGB if colours == 3 else (GREY_NAMES.get(name, "windowed CT"),),
                     tuple(Labelled(case, case, found) for case, found in ids), fill)


NIH_HEADER = ("Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,OriginalImage[Width,"
              "Height],OriginalImagePixelSpacing[x,y]")
NIH_ROWS = ("00000001_000.png,Cardiomegaly,0,1,57,M,PA,2682,2749,0.143,0.143",
            "00000001_001.png,Cardiomegaly|Emphysema,1,1,58,M,PA,2894,2729,0.143,0.143",
            "00000002_000.png,No Finding,0,2,80,M,PA,2500,2048,0.171,0.171",
            "00000003_000.png,Hernia,0,3,74,F,PA,2500,2048,0.168,0.168")


def chestxray14(layout: str, folders: tuple[str, str], table: str, comma: str) -> ClassTree:
    """Images in two folders; the last row's image is not downloaded."""
    def fill(folder: Path) -> None:
        picture(folder / folders[0] / "00000001_000.png")
        picture(folder / folders[0] / "00000001_001.png", alpha=True)
        picture(folder / folders[1] / "00000002_000.png")
        write_text(folder / table, "".join(f"{line}{comma}\n" for line in (NIH_HEADER, *NIH_ROWS)))
        write_text(folder / "train_val_list.txt", "00000001_000.png\n00000001_001.png\n")
        write_text(folder / "test_list.txt", "00000002_000.png\n00000003_000.png")

    return ClassTree("ChestXray14", layout, ("X-ray",), (
        Labelled("00000001_000", "1", {"Finding Labels": "Cardiomegaly", "split": "train_val"}),
        Labelled("00000001_001", "1", {"Finding Labels": "Cardiomegaly|Emphysema", "split": "train_val"}),
        Labelled("00000002_000", "2", {"Finding Labels": "No Finding", "split": "test"}),
    ), fill, ("BBox_List_2017.csv", "FAQ_CHESTXRAY.pdf", "README_CHESTXRAY.pdf"), ("W_NO_FILE",))


OBSERVATIONS = ("No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema",
                "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture",
                "Support Devices")
CHEXPERT_CELLS = {"patient00001_study1_view1_frontal": "1.0,,,,,,,,,0.0,,,,1.0",
                  "patient00002_study1_view1_frontal": ",,-1.0,1.0,,-1.0,-1.0,,-1.0,,-1.0,,1.0,",
                  "patient00002_study1_view2_lateral": ",,-1.0,1.0,,-1.0,-1.0,,-1.0,,-1.0,,1.0,"}


def fill_chexpert(folder: Path) -> None:
    lines = ["Path,Sex,Age,Frontal/Lateral,AP/PA," + ",".join(OBSERVATIONS)]
    for case, cells in CHEXPERT_CELLS.items():
        path = "{}/{}/{}_{}.jpg".format(*case.split("_"))
        picture(folder / "train" / path)
        lines.append(f"CheXpert-v1.0-small/train/{path},Female,68,Frontal,AP,{cells}")
    write_text(folder / "train.csv", "\n".join(lines) + "\n")


DX = ("bkl", "bkl", "nv")
HAM_ROWS = "".join(f"HAM_000{lesion},ISIC_002741{place},{dx},histo,80.0,male,scalp\n"
                   for place, (lesion, dx) in enumerate(zip((1, 1, 2), DX, strict=True)))


def fill_ham(folder: Path) -> None:
    for place, part in enumerate((1, 2, 2)):
        picture(folder / f"HAM10000_images_part_{part}" / f"ISIC_002741{place}.jpg", colours=3)
    write_text(folder / "HAM10000_metadata", "lesion_id,image_id,dx,dx_type,age,sex,localization\n" + HAM_ROWS)


def fill_isic(folder: Path) -> None:
    for place in range(3):
        picture(folder / "ISIC2018_Task3_Training_Input" / f"ISIC_002741{place}.jpg", colours=3)
    truth = "ISIC2018_Task3_Training_GroundTruth"
    write_text(folder / truth / f"{truth}.csv", "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC\n"
               + "".join(f"ISIC_002741{place},0.0,{float(dx == 'nv')},0.0,0.0,{float(dx == 'bkl')},0.0,0.0\n"
                         for place, dx in enumerate(DX)))
    write_text(folder / "ISIC2018_Task3_Training_LesionGroupings.csv", "image,lesion_id,diagnosis_confirm_type\n"
               + "".join(f"ISIC_002741{place},HAM_000{lesion},histopathology\n" for place, lesion in enumerate((1, 1, 2))))


def fill_covid(folder: Path) -> None:
    for name, colours in (("000001-1.jpg", 3), ("16745_2_1.PNG", 1), ("day-0.jpeg", 1), ("ARDS.png", 3)):
        picture(folder / "images" / name, colours=colours)
    lines = ["filename,patientid,sex,age,finding,view,offset,license,doi,url,clinical_notes,other_notes",
             '000001-1.jpg,2,M,65,"COVID-19, ARDS",PA,0,CC BY,,https://x.org,"Fever,\nno cough",',
             "16745_2_1.PNG,2,M,65,COVID-19,PA,3,CC BY,,,,", "day-0.jpeg,7,F,,No Finding,AP,,,,,,", "ARDS.png,9,,,ARDS,L,,,,,,"]
    write_text(folder / "metadata.csv", "\n".join(lines) + "\n")


SUNNYBROOK = {"SC-HF-I-01-IM-0001-0048": "HF-I", "SC-HF-NI-03-IM-0001-0100": "HF-NI", "SC-HYP-08-IM-0001-0020": "HYP",
              "SC-N-02-IM-0001-0030": "N"}


def fill_sunnybrook(folder: Path) -> None:
    for case in SUNNYBROOK:
        picture(folder / "imagesTr" / f"{case}_0000.png")
    write_text(folder / "dataset.json", '{"channel_names": {"0": "MRI"}, "labels": {"background": 0, "LV": 1}, '
               '"file_ending": ".png"}')


def isic(case: int, group: str, **cells: str) -> Labelled:
    return Labelled(f"ISIC_002741{case}", group, cells)


CLASS_TREES = (
    *(medmnist(name, size) for name in MEDMNIST for size in ((28, 64) if name.endswith("3D") else (28, 64, 128, 224))),
    chestxray14("as downloaded", ("images", "images"), "Data_Entry_2017_v2020.csv", ""),
    chestxray14("kaggle", ("images_001/images", "images_012/images"), "Data_Entry_2017.csv", ","),
    ClassTree("CheXpert", "as downloaded", ("X-ray",), tuple(
        Labelled(case, case.partition("_")[0], dict(zip(OBSERVATIONS, cells.split(","), strict=True)))
        for case, cells in CHEXPERT_CELLS.items()), fill_chexpert,
        ("valid.csv", "valid/patient64541/study1/view1_frontal.jpg")),
    ClassTree("HAM10000", "as downloaded", RGB, (isic(0, "HAM_0001", dx="bkl"), isic(1, "HAM_0001", dx="bkl"),
                                                 isic(2, "HAM_0002", dx="nv")), fill_ham, ("hmnist_28_28_L.csv",)),
    ClassTree("ISIC2018", "as downloaded", RGB, (isic(0, "HAM_0001", diagnosis="BKL"), isic(1, "HAM_0001", diagnosis="BKL"),
                                                 isic(2, "HAM_0002", diagnosis="NV")), fill_isic,
              ("ISIC2018_Task3_Training_Input/LICENSE.txt", "ISIC2018_Task3_Test_Input/ISIC_0034524.jpg")),
    ClassTree("CovidCXR", "as downloaded", ("X-ray",), (
        Labelled("000001-1", "2", {"finding": "COVID-19, ARDS"}), Labelled("16745_2_1", "2", {"finding": "COVID-19"}),
        Labelled("ARDS", "9", {"finding": "ARDS"}), Labelled("day-0", "7", {"finding": "No Finding"})), fill_covid),
    ClassTree("SunnybrookGroups", "nnunet", ("MRI",), tuple(
        Labelled(case, case.partition("-IM-")[0], {"diagnosis": group}) for case, group in SUNNYBROOK.items()), fill_sunnybrook,
        ("labelsTr/SC-N-02-IM-0001-0030.png",)),
)
