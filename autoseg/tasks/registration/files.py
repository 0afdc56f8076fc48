"""A folder of displacements beside a folder of label maps: which pair is scored by which two of them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from autoseg.core.case import Case, Unit
from autoseg.core.errors import DatasetError, GeometryError
from autoseg.core.image import Image
from autoseg.core.report import Scores
from autoseg.core.spec import DatasetSpec
from autoseg.core.task import Comparison
from autoseg.io.grouping import patient_in_id
from autoseg.io.images import ENDINGS, files_by_case
from autoseg.io.transforms import read_displacement
from autoseg.tasks.registration.output import Registration
from autoseg.tasks.registration.pairs import list_pairs, listed
from autoseg.tasks.registration.score import score
from autoseg.tasks.registration.spec import pair_unit, registration_options
from autoseg.tasks.registration.target import LABEL, read_target


def compare(predictions: Path, references: Path, spec: DatasetSpec) -> tuple[Comparison, ...]:
    """Every pair of label maps in a folder, by the rule of the specification or a table of pairs, with its displacement.

    A table of pairs may lie in either folder.

    Raises:
        DatasetError: there are no label maps, they make no pair, or none of the pairs has a displacement.
    """
    maps = files_by_case(references)
    if not maps:
        raise DatasetError(f"{references} holds no label maps (endings {', '.join(ENDINGS)})")
    cases = [Case(name, patient_in_id(spec, name) or name, {}, {LABEL: path}) for name, path in sorted(maps.items())]
    table = next((folder / registration_options(spec).table for folder in (predictions, references)
                  if (folder / registration_options(spec).table).is_file()), None)
    units = [pair_unit(fixed, moving) for fixed, moving in (list_pairs(spec, cases) if table is None else listed(table, cases))]
    found = files_by_case(predictions)
    if not any(unit.id in found for unit in units):
        raise DatasetError(f"none of the {len(found)} files in {predictions} is called like one of the {len(units)} pairs of "
                           f"{references} (for example {units[0].id!r}: the moving image, then the fixed one)")
    return tuple(Comparison(unit.id, unit.group, partial(_score_pair, spec, unit, found)) for unit in units)


def _score_pair(spec: DatasetSpec, unit: Unit, found: Mapping[str, Path]) -> Scores:
    if unit.id not in found:
        raise DatasetError(f"no displacement for {unit.id} (looked for a file of that name beside the others)",
                           code="E_MISSING_PREDICTION")
    target = read_target(unit, spec)
    assert target is not None and target.fixed.label is not None  # the unit is made of label maps
    displacement, geometry = read_displacement(found[unit.id])
    if not geometry.agrees_with(target.fixed.geometry):
        raise GeometryError(f"displacement {found[unit.id]} lies on {geometry} and the label map of the fixed image on "
                            f"{target.fixed.geometry}; a displacement lies on the grid of its fixed image")
    return score(Registration(displacement), target, spec, Image.canonical(target.fixed.label[None], target.fixed.geometry))
