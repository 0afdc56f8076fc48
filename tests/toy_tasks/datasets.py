"""Toy datasets of several tasks: the contract suite runs over all of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from autoseg import pipeline
from autoseg.core.budget import Budget
from autoseg.core.geometry import Geometry
from autoseg.core.image import Image
from autoseg.core.plan import Plan
from autoseg.core.progress import silent
from autoseg.core.task import PlanRequest
from autoseg.io.images import write_label_map, write_volume
from autoseg.workspace import Workspace, open_workspace

CASES = 8

SPECS = {
    "segmentation": """
name: ToyLabels
task: segmentation
inputs: [{role: image, channels: [MRI]}]
layouts: [{name: toy, inputs: {image: ["images/{case}.nii.gz"]}, targets: {label: "labels/{case}.nii.gz"}}]
labels: {bright: 7, dark: 3}
grouping: {pattern: "^(p[0-9]+)_"}
""",
    "regions": """
name: ToyRegions
task: segmentation
inputs: [{role: image, channels: [MRI]}]
layouts: [{name: toy, inputs: {image: ["images/{case}.nii.gz"]}, targets: {label: "labels/{case}.nii.gz"}}]
labels: {bright: 7, rim: 3}
ignore: 5
regions: {whole: [bright, rim], core: [bright]}
grouping: {pattern: "^(p[0-9]+)_"}
options: {lesions: {dilation_voxels: 1, smallest_mm3: 5}}
""",
    "slices": """
name: ToySlices
task: segmentation
inputs: [{role: image, channels: [MRI]}]
layouts: [{name: toy, inputs: {image: ["images/{case}.nii.gz"]}, targets: {label: "labels/{case}.nii.gz"}}]
labels: {bright: 7, dark: 3}
grouping: {pattern: "^(p[0-9]+)_"}
""",
    "classification": """
name: ToyClasses
task: classification
inputs: [{role: image, channels: [MRI]}]
layouts: [{name: toy, inputs: {image: ["images/{case}.nii.gz"]}}]
grouping: {pattern: "^(p[0-9]+)_", table: labels.csv}
options:
  targets:
    - {column: ill}
    - {column: signs, kind: multilabel, fewest: 5, negative: [none]}
    - {column: age}
""",
    "exams": """
name: ToyGrades
task: classification
inputs: [{role: image, channels: [X-ray]}]
layouts: [{name: toy, inputs: {image: ["images/{case}.nii.gz"]}}]
grouping: {pattern: "^(p[0-9]+)_", table: labels.csv}
options:
  exam: {pattern: "^(.+)_scan"}
  targets: [{column: grade}]
""",
    "joint": """
name: ToyJoint
task: joint
inputs: [{role: image, channels: [MRI]}]
layouts: [{name: toy, inputs: {image: ["images/{case}.nii.gz"]}, targets: {label: "labels/{case}.nii.gz"}}]
labels: {square: 7}
grouping: {pattern: "^(p[0-9]+)_", table: labels.csv}
options:
  surface_tolerance_mm: 2.0
  targets: [{column: ill}]
""",
    "registration": """
name: ToyPairs
task: registration
inputs: [{role: image, channels: [MRI]}]
layouts: [{name: toy, inputs: {image: ["images/{case}.nii.gz"]}, targets: {label: "labels/{case}.nii.gz"}}]
labels: {bright: 7, dark: 3}
grouping: {pattern: "^(p[0-9]+)_"}
options: {pairs: within_patient, method: network, refine_iterations: 3}
""",
    "toy_tasks.intensity": """
name: ToyIntensity
task: toy_tasks.intensity
inputs: [{role: image, channels: [MRI]}]
layouts: [{name: toy, inputs: {image: ["images/{case}.nii.gz"]}, targets: {intensity: "targets/{case}.nii.gz"}}]
""",
    "toy_tasks.exams": """
name: ToyExams
task: toy_tasks.exams
inputs: [{role: image, channels: [MRI]}]
layouts: [{name: toy, inputs: {image: ["images/{case}.nii.gz"]}, targets: {value: "targets/{case}.nii.gz"}}]
grouping: {pattern: "^(p[0-9]+)_"}
""",
}


@dataclass(frozen=True)
class Toy:
    """A toy dataset, planned and preprocessed."""

    task_name: str
    folder: Path
    workspace: Workspace
    plan: Plan

    @property
    def task(self):
        return self.workspace.task

    @property
    def configuration(self):
        return next(iter(self.plan.configurations.values()))

    @property
    def references(self) -> Path:
        """What predictions of all units are evaluated against."""
        if all((self.folder / name).exists() for name in ("labels", "labels.csv")):
            return self.folder
        return next(path for name in ("targets", "labels", "labels.csv") if (path := self.folder / name).exists())

    @property
    def store(self):
        from autoseg.io.store import Store

        return Store(self.workspace.store(self.plan, self.configuration))


def write_cases(folder: Path, task_name: str) -> None:
    """Blobs on noise; shape and spacing differ on every axis and between cases."""
    for number in range(CASES):
        rng = np.random.default_rng(number)
        slices = 1 if task_name == "slices" else 14 + number % 3
        geometry = Geometry((slices, 18, 21), (1.0, 1.0, 1.0), (5.0, -4.0, 3.0 * number))
        blobs = gaussian_filter(rng.normal(size=geometry.shape), 2.5)
        blobs /= blobs.std()
        image = Image.canonical((blobs + rng.normal(0, 0.2, geometry.shape) + 5)[None].astype(np.float32), geometry)
        case_id = f"p{number // 2}_scan{number}"
        write_volume(folder / "images" / f"{case_id}.nii.gz", image.voxels, image)
        if not task_name.startswith("toy_tasks."):
            label = _regions(blobs, number) if task_name == "regions" else np.where(blobs > 1, 7, np.where(blobs < -1, 3, 0))
            write_label_map(folder / "labels" / f"{case_id}.nii.gz", label, image)
        else:
            write_volume(folder / "targets" / f"{case_id}.nii.gz", np.maximum(blobs, 0)[None].astype(np.float32), image)


def write_pair_cases(folder: Path) -> None:
    """One pattern, moved and stretched differently in every case; shape and spacing differ on every axis."""
    pattern = gaussian_filter(np.random.default_rng(0).normal(size=(24, 26, 28)), 3.0)
    pattern /= pattern.std()
    for number in range(CASES):
        rng = np.random.default_rng(number)
        geometry = Geometry((14 + number % 3, 18, 21), (1.0, 1.2, 0.9), (5.0, -4.0, 40.0 * number))
        grid = np.stack(np.meshgrid(*map(np.arange, geometry.shape), indexing="ij")).astype(float)
        moves = np.stack([gaussian_filter(rng.normal(size=geometry.shape), 5.0) for _ in range(3)])
        places = grid + 4.0 + moves * 1.5 / moves.std() + rng.uniform(-1, 1, 3)[:, None, None, None]
        blobs = map_coordinates(pattern, places, order=1, mode="nearest")
        image = Image.canonical((blobs + rng.normal(0, 0.03, geometry.shape) + 5)[None].astype(np.float32), geometry)
        case_id = f"p{number // 2}_scan{number}"
        write_volume(folder / "images" / f"{case_id}.nii.gz", image.voxels, image)
        write_label_map(folder / "labels" / f"{case_id}.nii.gz", np.where(blobs > 0.8, 7, np.where(blobs < -0.8, 3, 0)), image)


def write_table_cases(folder: Path, task_name: str) -> None:
    """Noise with a square that is brighter the higher the class, with a table: twenty volumes, or thirty exams of one or two
    slices.

    Every patient has two units of different classes, so that each fold has several.
    """
    is_exam = task_name == "exams"
    rows = ["case,grade" if is_exam else "case,ill,signs,age"]
    for number in range(30 if is_exam else 20):
        rng = np.random.default_rng(number)
        grade = number % 3 if is_exam else number % 2
        for scan in range(1 + number % 2 if is_exam else 1):
            shape = (1, 26, 22) if is_exam else (5 + number % 2, 18, 21)
            voxels = gaussian_filter(rng.normal(5, 1, shape), (0, 1, 1))
            voxels[:, 6:14, 5:12] += 2 * grade
            case_id = f"p{number // 2}_e{number}_scan{scan}" if is_exam else f"p{number // 2}_scan{number}"
            image = Image.canonical(voxels[None].astype(np.float32), Geometry(shape, (4.0, 1.0, 1.0)))
            write_volume(folder / "images" / f"{case_id}.nii.gz", image.voxels, image)
            if task_name == "joint":
                label = np.zeros(shape, np.uint8)
                label[1:, 6:14, 5:12] = 7
                write_label_map(folder / "labels" / f"{case_id}.nii.gz", label, image)
            signs = ("none", "bright", "late", "bright|late")[number % 2 + 2 * (number % 4 in (0, 3))]
            rows.append(f"{case_id},{grade}" if is_exam else f"{case_id},{grade},{signs},{40 + 1.5 * number + 10 * grade}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")


def _regions(blobs: np.ndarray, number: int) -> np.ndarray:
    """Bright blobs with a rim; of every second case only the middle slices are annotated."""
    label = np.where(blobs > 1.2, 7, np.where(blobs > 0.7, 3, 0))
    if number % 2:
        label[:4] = label[-4:] = 5
    return label


def open_toy(task_name: str, folder: Path, root: Path) -> Workspace:
    """The workspace of a toy dataset in `folder`, writing below `root`."""
    return open_workspace(root, str(folder / "spec.yaml"), folder, silent)


def plan_toy(workspace: Workspace, seed: int = 0) -> Plan:
    """A plan of twenty steps (the floor of a tiny time budget), preprocessed."""
    budget = Budget("cpu", 4 * 2**30, minutes=0.001, threads=1, device="test")
    plan = pipeline.plan(workspace, budget, PlanRequest("toy", "default", seed=seed), executor=None)
    pipeline.preprocess(workspace, plan, (), executor=None)
    return plan


def make_toy(task_name: str, folder: Path) -> Toy:
    """A toy dataset written into `folder`, planned and preprocessed."""
    folder.joinpath("spec.yaml").write_text(SPECS[task_name])
    if task_name == "registration":
        write_pair_cases(folder)
    else:
        (write_table_cases if "labels.csv" in SPECS[task_name] else write_cases)(folder, task_name)
    workspace = open_toy(task_name, folder, folder / "home")
    return Toy(task_name, folder, workspace, plan_toy(workspace))
