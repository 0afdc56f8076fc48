"""Options of segmentation in a dataset's specification, and its units: every case is one."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic.dataclasses import dataclass

from autoseg.core.case import Case, Unit
from autoseg.core.spec import STRICT, DatasetSpec


@dataclass(frozen=True, config=STRICT)
class SegmentationOptions:
    """What a specification may say under `options`.

    Attributes:
        surface_tolerance_mm: distance within which two surfaces count as equal in the surface Dice. Medical
            Segmentation Decathlon: 1 mm for hippocampus and brain tumours (Antonelli et al. 2022, supplement).
    """

    surface_tolerance_mm: float = 1.0


def segmentation_options(spec: DatasetSpec) -> SegmentationOptions:
    """The options of a specification, checked."""
    return SegmentationOptions(**spec.options)


def index_units(spec: DatasetSpec, cases: Sequence[Case]) -> tuple[Unit, ...]:
    """One unit per case, in the order of the cases."""
    return tuple(Unit(case.id, (case,), case.group, case.stratum) for case in cases)
