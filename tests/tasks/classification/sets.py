"""Small classification datasets without files: cases with cells, units, answers."""

from __future__ import annotations

from autoseg.core.case import Case
from autoseg.core.spec import DatasetSpec, LayoutSpec
from autoseg.tasks.classification.kinds import Kind
from autoseg.tasks.classification.spec import index_units
from autoseg.tasks.classification.target import Answer, Reading


def make_spec(*targets, **options) -> DatasetSpec:
    """A specification with these targets (column names or options)."""
    listed = [{"column": target} if isinstance(target, str) else target for target in targets]
    return DatasetSpec("Toy", "classification", (LayoutSpec("toy", {"image": ("{case}.png",)}),),
                       options={"targets": listed, **options})


def make_cases(**columns) -> list[Case]:
    """Cases c0, c1, ... of patients of their own, with a cell per column."""
    rows = zip(*columns.values(), strict=True)
    return [Case(f"c{place}", f"c{place}", {"image": ()}, values=dict(zip(columns, map(str, row), strict=True)))
            for place, row in enumerate(rows)]


def make_units(spec, **columns):
    return index_units(spec, make_cases(**columns))


def binary(probability, name="ill", **more) -> Answer:
    """An answer to one question with the classes no and yes."""
    return Answer((Reading(name, Kind.BINARY, ("no", "yes"), (1 - probability, probability), **more),))
