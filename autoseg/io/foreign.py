"""Specifications made from a `dataset.json`: nnU-Net v2 raw folders and Medical Segmentation Decathlon folders."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from autoseg.core.errors import DatasetError, IncompatibleError
from autoseg.core.spec import DatasetSpec
from autoseg.io.images.endings import ENDINGS, PICTURE_ENDINGS, format_advice
from autoseg.io.values import from_plain, read_json

DATASET_JSON = "dataset.json"
# The Decathlon's file lists every case, in some 80 bytes: room for 200,000.
MAX_BYTES = 2**24
_BACKGROUND = "background"
# nnU-Net's name for voxels that nobody annotated.
_IGNORE = "ignore"
# nnU-Net's name for a channel that is not to be normalised.
_NO_NORMALIZATION = "nonorm"


def read_dataset_json(folder: Path, *, name: str | None = None) -> DatasetSpec:
    """The specification that a folder's `dataset.json` says; the folder is read as it is, nothing is converted.

    `channel_names`, or label values by name, mark nnU-Net v2's raw layout (`imagesTr/<case>_0000.<ending>`); `modality`
    with label names by value marks the Medical Segmentation Decathlon (`imagesTr/<case>.nii.gz`).

    Args:
        name: of the dataset; None: as the file or the folder says.
    Raises:
        DatasetError: no `dataset.json`, or it uses something that is not supported; what to do is stated.
        IncompatibleError: it does not say a consistent dataset.
    """
    path = folder / DATASET_JSON
    if not path.is_file():
        raise DatasetError(f"{folder} has no {DATASET_JSON}; give a folder in nnU-Net or Decathlon layout, or write a "
                           "specification (see dataset_specs/README.md)", code="E_UNKNOWN_DATASET", hint="autoseg datasets")
    document = read_json(path, most_bytes=MAX_BYTES)
    if not isinstance(document, dict):
        raise IncompatibleError(f"{path}: a mapping of keys such as labels and channel_names is expected")
    _refuse_unsupported(path, document)
    channels = _channels(path, document)
    labels, regions, ignore = _labels(path, document)
    plain = {
        "name": name or dataset_name(folder, document),
        "task": "segmentation",
        "inputs": [{"role": "image", "channels": channels}],
        "labels": labels,
        "regions": regions,
        "ignore": ignore,
        "layouts": [_nnunet_layout(path, document, len(channels)) if _is_nnunet(document) else _decathlon_layout()],
        **{key: str(document[key]) for key in ("description", "licence", "reference") if document.get(key)},
        "source": str(document.get("source", folder.name)),
    }
    return from_plain(plain, DatasetSpec, source=str(path))


def _is_nnunet(document: dict[str, Any]) -> bool:
    labels = document.get("labels")
    values_by_name = isinstance(labels, dict) and not all(map(_is_number, labels))
    return "channel_names" in document or values_by_name


def _refuse_unsupported(path: Path, document: dict[str, Any]) -> None:
    if document.get("dataset"):
        raise DatasetError(f"{path} lists its files under 'dataset', which is not read; place the files as imagesTr/"
                           "<case>_0000.<ending> and labelsTr/<case>.<ending> (links will do), or write a specification "
                           "with a layout", code="E_UNSUPPORTED")


def _channels(path: Path, document: dict[str, Any]) -> list[dict[str, str]]:
    names = document.get("channel_names", document.get("modality"))
    if not isinstance(names, dict) or sorted(names) != sorted(str(index) for index in range(len(names))) or not names:
        raise IncompatibleError(f"{path}: channel_names (or modality) must name the channels by index, for example "
                                f'{{"0": "T1", "1": "FLAIR"}}; found {names!r}')
    ordered = [str(names[str(index)]) for index in range(len(names))]
    return [{"name": text, "normalization": "none"} if text.casefold() == _NO_NORMALIZATION else {"name": text}
            for text in ordered]


def _labels(path: Path, document: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]], int | None]:
    """Labels, regions and the ignored value; values that occur only inside regions become labels called `label_<value>`.

    Where nnU-Net trains regions (some name has several values), every name is a region, in the order of the file.
    """
    written = document.get("labels")
    if not isinstance(written, dict) or not written:
        raise IncompatibleError(f"{path}: labels must map names to values, found {written!r}")
    values = _values_by_name(path, written)
    ignored = {name: members for name, members in values.items() if name.casefold() == _IGNORE}
    if any(len(members) != 1 for members in ignored.values()) or len(ignored) > 1:
        raise IncompatibleError(f"{path}: 'ignore' must be one integer, found {written}")
    values = {name: members for name, members in values.items() if name not in ignored}
    names: dict[int, str] = {}
    for name, members in values.items():
        if len(members) == 1 and names.setdefault(members[0], name) != name:
            raise IncompatibleError(f"{path}: labels {names[members[0]]!r} and {name!r} have the same value {members[0]}; "
                                    "keep one of them")
    unnamed = sorted({value for members in values.values() for value in members} - set(names))
    names |= {value: f"label_{value}" for value in unnamed}
    labels = [{"name": name, "value": value} for value, name in sorted(names.items())]
    return labels, _regions(path, document, values, names), next((members[0] for members in ignored.values()), None)


def _regions(path: Path, document: dict[str, Any], values: dict[str, list[int]],
             names: dict[int, str]) -> list[dict[str, Any]]:
    """Regions in the order of the file, with the label that each paints where `regions_class_order` says it."""
    if all(len(members) == 1 for members in values.values()):
        return []
    order = document.get("regions_class_order")
    if order is not None and not (isinstance(order, list) and len(order) == len(values)
                                  and all(isinstance(v, int) and v in names for v in order)):
        raise IncompatibleError(f"{path}: regions_class_order must give one label value for each of {', '.join(values)}, in "
                                f"their order, out of {sorted(names)}; found {order!r}")
    painted = [None] * len(values) if order is None else [names[value] for value in order]
    return [{"name": name, "labels": [names[value] for value in members], "paints": paints}
            for (name, members), paints in zip(values.items(), painted, strict=True)]


def _values_by_name(path: Path, written: dict[str, Any]) -> dict[str, list[int]]:
    """Foreground values by name, from both spellings: name -> value or values (nnU-Net), value -> name (Decathlon)."""
    if all(map(_is_number, written)):
        if len(set(map(str, written.values()))) < len(written):
            raise IncompatibleError(f"{path}: two label values have the same name; found {written}")
        written = {str(name): int(value) for value, name in written.items()}
    if written.get(_BACKGROUND, 0) != 0:
        raise IncompatibleError(f"{path}: the background must have value 0, found {written[_BACKGROUND]!r}")
    values = {}
    for name, entry in written.items():
        members = entry if isinstance(entry, list) else [entry]
        if not members or not all(isinstance(value, int) and not isinstance(value, bool) for value in members):
            raise IncompatibleError(f"{path}: label {name!r} must be an integer or a list of integers, found {entry!r}")
        if members != [0]:
            values[name] = list(dict.fromkeys(members))
    return values


def _is_number(key: str) -> bool:
    return key.isascii() and key.isdigit()


def _nnunet_layout(path: Path, document: dict[str, Any], channels: int) -> dict[str, Any]:
    ending = document.get("file_ending", ".nii.gz")
    if ending not in ENDINGS:
        raise DatasetError(f"{path}: files end in {ending!r}; {format_advice(str(ending))}", code="E_FORMAT")
    if channels in (3, 4) and ending in PICTURE_ENDINGS and not any((path.parent / "imagesTr").glob(f"*_0001{ending}")):
        channels = 1  # one colour file, red, green, blue and perhaps alpha, as nnU-Net's NaturalImage2DIO reads it
    return {"name": "nnunet", "inputs": {"image": [f"imagesTr/{{case}}_{index:04d}{ending}" for index in range(channels)]},
            "targets": {"label": f"labelsTr/{{case}}{ending}"}}


def _decathlon_layout() -> dict[str, Any]:
    return {"name": "msd", "inputs": {"image": ["imagesTr/{case}.nii.gz"]},
            "targets": {"label": "labelsTr/{case}.nii.gz"}}


def dataset_name(folder: Path, document: dict[str, Any]) -> str:
    """The dataset's own name, or the folder's without nnU-Net's number, with every other character replaced by `_`."""
    written = str(document.get("name") or re.sub(r"^Dataset\d{3}_", "", folder.resolve().name))
    return re.sub(r"[^A-Za-z0-9._-]+", "_", written).strip("._-") or "dataset"
