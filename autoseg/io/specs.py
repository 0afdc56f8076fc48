"""Dataset specifications: the ones shipped with the package, YAML files written by people, and foreign dataset folders."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from autoseg.core.errors import DatasetError, IncompatibleError, unknown_name
from autoseg.core.spec import DatasetSpec
from autoseg.core.text import printable
from autoseg.io.atomic import write_text
from autoseg.io.documents import read_document, require_plain
from autoseg.io.foreign import DATASET_JSON, read_dataset_json
from autoseg.io.plain import to_plain
from autoseg.io.values import from_plain

YAML_ENDINGS = (".yaml", ".yml")
# Specifications are written by hand; the largest shipped one is below 4 kB.
_MAX_BYTES = 2**20
# The deepest key that a specification knows is at level 5; options of a task may nest further.
_MAX_DEPTH = 20
# Mappings by name that people write, and the key that the name has in the value types.
_NAMED = {"labels": "name", "regions": "name", "layouts": "name", "inputs": "role"}
# A name is taken for a misspelling above this similarity (difflib ratio): one wrong letter in six.
_MISSPELT = 0.8


def load_spec(reference: str, *, data_folder: Path | None = None) -> DatasetSpec:
    """The specification that a user means by `reference`.

    Args:
        reference: name of a shipped specification (letter case does not matter), path of a YAML file, or a dataset folder
            in nnU-Net v2 raw layout or Medical Segmentation Decathlon layout.
        data_folder: where the images are. If no specification is called `reference` and this folder has a `dataset.json`,
            that describes the dataset, under the name `reference`.
    Raises:
        DatasetError: nothing is called that; the known names are listed, with the nearest.
        IncompatibleError: the file does not say a specification; file, key and nearest valid name are stated.
    """
    shipped = known_specs()
    path = Path(reference).expanduser()
    if path.suffix.lower() in YAML_ENDINGS:
        return read_spec(path)
    found = next((file for name, file in shipped.items() if name.lower() == reference.lower()), None)
    if found is not None:
        return read_spec(found)
    if path.is_dir():
        return read_dataset_json(path)
    misspelt = difflib.get_close_matches(reference.lower(), [name.lower() for name in shipped], 1, _MISSPELT)
    if data_folder is not None and (data_folder / DATASET_JSON).is_file() and not misspelt:
        return read_dataset_json(data_folder, name=reference)
    raise DatasetError(unknown_name(reference, list(shipped), "dataset") + " Give one of these names, the path of a "
                       f"specification (.yaml), or a folder with a {DATASET_JSON}.",
                       code="E_UNKNOWN_DATASET", hint="autoseg datasets")


def known_specs() -> dict[str, Path]:
    """The specifications shipped with the package: name -> file, sorted by name.

    They lie beside the package in a checkout, and below `share/autoseg` of the environment (or of the target folder of
    the installation) where it is installed.
    """
    beside = Path(__file__).resolve().parents[2]
    places = [beside / "dataset_specs", beside / "share" / "autoseg" / "dataset_specs",
              Path(sys.prefix) / "share" / "autoseg" / "dataset_specs"]
    files: dict[str, Path] = {}
    for place in places:
        for file in sorted(place.glob("*.yaml")):
            files.setdefault(file.stem, file)
    return dict(sorted(files.items()))


def read_spec(path: Path) -> DatasetSpec:
    """The specification in a YAML file.

    Raises:
        DatasetError: the file is missing, too large or not YAML; keys that occur twice and aliases are refused.
        IncompatibleError: a key or value is not understood; file, key path and nearest valid name are stated.
    """
    document = read_yaml(path)
    if not isinstance(document, dict):
        raise IncompatibleError(f"{path}: a specification is a mapping of keys such as name, task and layouts")
    try:
        plain = _plain_form(document)
    except ValueError as error:
        raise IncompatibleError(f"{path}: {error}") from error
    spec = from_plain(plain, DatasetSpec, source=str(path))
    _require_files(spec, path)
    return spec


def _require_files(spec: DatasetSpec, path: Path) -> None:
    """Raises an IncompatibleError where a specification does not say what there is to read, and where."""
    if not spec.inputs:
        raise IncompatibleError(f"{path}: inputs is empty; leave it out for one image of one channel")
    if not spec.layouts:
        raise IncompatibleError(f"{path}: layouts is empty; say where the files lie, see dataset_specs/README.md")
    for entry in spec.inputs:
        if entry.kind == "image" and not entry.channels:
            raise IncompatibleError(f"{path}: inputs.{entry.role} has no channels; name at least one")
    for layout in spec.layouts:
        if not layout.inputs:
            raise IncompatibleError(f"{path}: layouts.{layout.name}.inputs is empty; say where the images lie")


def write_spec(path: Path, spec: DatasetSpec) -> None:
    """Replace `path` by the YAML form of `spec`, atomically; `read_spec` gives an equal value back."""
    document = yaml.safe_dump(written_form(spec), sort_keys=False, allow_unicode=True, width=120)
    write_text(path, document)


class _Loader(yaml.SafeLoader):
    """Plain data only; aliases (which can grow without bound), tags, deep nesting and keys that occur twice are refused."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            self._refuse("aliases (*name) are not allowed; write the value again")
        tag = getattr(self.peek_event(), "tag", None)
        if tag not in (None, "!"):
            self._refuse(f"the tag {printable(tag[:60])} is not allowed; write plain texts, numbers, lists and mappings")
        if self.depth >= _MAX_DEPTH:
            self._refuse(f"nested deeper than {_MAX_DEPTH} levels")
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if isinstance(key_node, yaml.ScalarNode) and key_node.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key_node.value!r} occurs twice; remove one",
                                                        key_node.start_mark)
            if isinstance(key_node, yaml.ScalarNode):
                seen.add(key_node.value)
        return super().construct_mapping(node, deep)

    def _refuse(self, problem: str) -> None:
        raise yaml.constructor.ConstructorError(None, None, problem, self.peek_event().start_mark)


def read_yaml(path: Path) -> Any:
    """The plain document in a small YAML file; aliases, deep nesting and keys that occur twice are refused."""
    if not path.exists():
        raise DatasetError(f"{path} does not exist; give the path of a specification (.yaml) or a known name",
                           code="E_UNKNOWN_DATASET", hint="autoseg datasets")
    text = read_document(path, _MAX_BYTES)
    try:
        document = yaml.load(text, Loader=_Loader)  # noqa: S506 (a SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise DatasetError(f"{path} is not valid YAML: {where}{getattr(error, 'problem', None) or error}",
                           code="E_YAML") from error
    except ValueError as error:  # a date that does not exist, a number of thousands of digits
        raise DatasetError(f"{path} is not valid YAML: a value cannot be read ({error}); put texts in quotes",
                           code="E_YAML") from error
    require_plain(document, str(path))
    return document


def _plain_form(document: dict[str, Any]) -> dict[str, Any]:
    """What people write, in the shape of the value types: mappings by name become lists, single texts lists of one."""
    plain = dict(document)
    for key, name_key in _NAMED.items():
        if isinstance(plain.get(key), Mapping):
            plain[key] = [_named_entry(key, name_key, name, entry) for name, entry in plain[key].items()]
    for entry in _mappings(plain.get("inputs")):
        channels = entry.get("channels")
        if isinstance(channels, list):
            entry["channels"] = [{"name": channel} if isinstance(channel, str) else channel for channel in channels]
    for entry in _mappings(plain.get("layouts")):
        inputs = entry.get("inputs")
        if isinstance(inputs, dict):
            entry["inputs"] = {role: [files] if isinstance(files, str) else files for role, files in inputs.items()}
    return plain


def _named_entry(key: str, name_key: str, name: Any, entry: Any) -> dict[str, Any]:
    if not isinstance(name, str):
        raise ValueError(f"name {name!r} in {key} is read as {type(name).__name__}, not as text; put it in quotes")
    if key == "labels" and not isinstance(entry, Mapping):
        entry = {"value": entry}
    if key == "regions" and not isinstance(entry, Mapping):
        entry = {"labels": entry}
    if not isinstance(entry, Mapping):
        raise ValueError(f"{key}.{name} is {entry!r}; a mapping is expected")
    return {name_key: name, **entry}


def _mappings(entries: Any) -> list[dict[str, Any]]:
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def written_form(spec: DatasetSpec) -> dict[str, Any]:
    """A specification in the shape that people write, without what is empty or a default."""
    plain = to_plain(spec)
    document = {"format": plain.pop("format")}
    document |= {key: plain.pop(key) for key in ("name", "task")}
    document |= {key: plain.pop(key) for key in ("description", "source", "licence", "reference")}
    for key, name_key in _NAMED.items():
        plain[key] = {entry.pop(name_key): entry for entry in plain[key]}
    plain["inputs"] = {role: _written_input(entry) for role, entry in plain["inputs"].items()}
    plain["labels"] = {name: entry if entry["codes"] else entry["value"] for name, entry in plain["labels"].items()}
    plain["regions"] = {name: entry if entry["paints"] else entry["labels"] for name, entry in plain["regions"].items()}
    plain["layouts"] = {name: _written_layout(entry) for name, entry in plain["layouts"].items()}
    plain["grouping"] = _without_empty(plain["grouping"])
    if plain["grouping"] == {"case_column": "case"}:
        plain["grouping"] = {}
    order = ("inputs", "labels", "ignore", "regions", "layouts", "grouping", "exclude", "options")
    document |= {key: plain[key] for key in order}
    return _without_empty(document)


def _written_layout(entry: dict[str, Any]) -> dict[str, Any]:
    return _without_empty(entry | {"case_id": "" if entry["case_id"] == "{case}" else entry["case_id"]})


def _without_empty(document: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in document.items() if value not in (None, "", {}, [])}


def _written_input(entry: dict[str, Any]) -> dict[str, Any]:
    channels = [channel["name"] if channel["normalization"] == "auto" else channel for channel in entry["channels"]]
    defaults = {"kind": "image", "lossy": False, "colour": "refuse"}
    return {key: entry[key] for key, default in defaults.items() if entry[key] != default} | {"channels": channels}
