"""Whether a folder's own `dataset.json` contradicts the specification that the folder is read with."""

from __future__ import annotations

import re
from pathlib import Path

from autoseg.core.errors import AutosegError, DatasetError, ReadError
from autoseg.core.spec import DatasetSpec
from autoseg.io.foreign import DATASET_JSON, read_dataset_json


def require_agreement(spec: DatasetSpec, folder: Path) -> None:
    """Label maps hold numbers; a folder that gives them other names than the specification would be learned wrongly.

    Names are compared without regard to letter case, spaces and the spelling of tumour.

    A specification without labels, whose targets stand in tables or names, contradicts none.

    Raises:
        DatasetError: the `dataset.json` in `folder` gives a label or region of the same name other values, or lists a value
            that the specification does not. A file in a dialect that is not understood says nothing.
        ReadError: the `dataset.json` is damaged, so that nobody knows what it says.
    """
    if not spec.labels:
        return
    try:
        said = read_dataset_json(folder)
    except ReadError as error:
        raise ReadError(f"{error}. Repair the file, or remove it if nothing depends on it", code=error.code) from error
    except AutosegError:
        return
    ours, theirs = _values_by_name(spec), _values_by_name(said)
    problems = [f"{name} is {sorted(theirs[name])} there and {sorted(ours[name])} in the specification"
                for name in theirs if name in ours and ours[name] != theirs[name]]
    unknown = set(said.listed_values) - set(spec.listed_values)
    problems += [f"the specification does not list the values {sorted(unknown)}"] if unknown else []
    if problems:
        raise DatasetError(f"{folder / DATASET_JSON} and the specification {spec.name!r} disagree: {'; '.join(problems)}. If "
                           "this folder is another dataset, or was converted in another way, take what it says of itself, or "
                           "write a specification of another name", code="E_LABELS_DIFFER", hint=f"autoseg check -d {folder}")


def _values_by_name(spec: DatasetSpec) -> dict[str, set[int]]:
    values = {label.name: label.value for label in spec.labels}
    sets = {name: {value} for name, value in values.items()}
    sets |= {region.name: {values[name] for name in region.labels} for region in spec.regions}
    return {_plain_name(name): members for name, members in sets.items()}


def _plain_name(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.casefold()).replace("tumour", "tumor")
