"""Options of segmentation in a dataset's specification, and its units: every case is one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from autoseg.core.case import Case, Unit
from autoseg.core.spec import STRICT, DatasetSpec


@dataclass(frozen=True, config=STRICT)
class LesionOptions:
    """Lesion-wise scores; the defaults are those of the BraTS 2023 glioma challenge.

    Attributes:
        dilation_voxels: parts of the reference that meet when each grows by so many voxels are one lesion.
        smallest_mm3: lesions of the reference up to this volume do not count.
    """

    dilation_voxels: int = Field(default=3, ge=0)
    smallest_mm3: float = Field(default=50.0, ge=0)


@dataclass(frozen=True, config=STRICT)
class SegmentationOptions:
    """What a specification may say under `options`.

    Attributes:
        surface_tolerance_mm: distance within which two surfaces count as equal in the surface Dice. Medical
            Segmentation Decathlon: 1 mm for hippocampus and brain tumours (Antonelli et al. 2022, supplement).
        train_on: where the specification has regions, the network has one output for each of them, or one per label and
            regions are scored only.
        lesions: lesion-wise scores beside the others: off, on with BraTS' numbers, or on with own numbers.
    """

    surface_tolerance_mm: float = 1.0
    train_on: Literal["regions", "labels"] = "regions"
    lesions: bool | LesionOptions = False


def segmentation_options(spec: DatasetSpec) -> SegmentationOptions:
    """The options of a specification, checked."""
    return SegmentationOptions(**spec.options)


def lesion_options(spec: DatasetSpec) -> LesionOptions | None:
    """How lesions are scored; None where they are not."""
    lesions = segmentation_options(spec).lesions
    if isinstance(lesions, LesionOptions):
        return lesions
    return LesionOptions() if lesions else None


def index_units(spec: DatasetSpec, cases: Sequence[Case]) -> tuple[Unit, ...]:
    """One unit per case, in the order of the cases.

    Raises:
        DatasetError: the regions cannot be outputs as they are written.
    """
    from autoseg.tasks.segmentation.regions import plan_painting  # which itself reads the options above

    plan_painting(spec)
    return tuple(Unit(case.id, (case,), case.group, case.stratum) for case in cases)
