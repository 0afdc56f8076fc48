"""What a dataset is, as written by people in YAML: the frozen `DatasetSpec`.

Parsing files is the business of `autoseg.io.specs`; here stand only the values and their own consistency.
"""

from __future__ import annotations

import re
from typing import Any, Literal

import regex
from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from autoseg.core.text import has_control_characters

SPEC_FORMAT = 1
STRICT = ConfigDict(extra="forbid")

NormalizationName = Literal["auto", "ct", "zscore", "rescale_to_0_1", "rgb_to_0_1", "none"]


@dataclass(frozen=True, config=STRICT)
class ChannelSpec:
    """One channel of an image input.

    Attributes:
        name: as the field calls it (T1, FLAIR, CT); decides the normalisation when that is `auto`.
        normalization: a scheme, or `auto`: nnU-Net's table of channel names.
    """

    name: str
    normalization: NormalizationName = "auto"


@dataclass(frozen=True, config=STRICT)
class InputSpec:
    """One input role of a case; `kind` says which generic reader reads it.

    Attributes:
        lossy: JPEG files are read too. Their compression changed the values; many public datasets exist in no other form.
        colour: what becomes of a picture with colours where one channel is expected: refused, or its luminance.
    """

    role: str = "image"
    kind: Literal["image", "row", "text"] = "image"
    channels: tuple[ChannelSpec, ...] = (ChannelSpec("image"),)
    lossy: bool = False
    colour: Literal["refuse", "luminance"] = "refuse"


@dataclass(frozen=True, config=STRICT)
class LayoutSpec:
    """Where the files of a case lie, relative to the dataset folder.

    Patterns use `{case}` for the case id (the same text wherever it stands in one path), `{group}` for the patient,
    `{any_name}` for another part of the id, `{case:a*_??}` for a name of that shape, `*` for anything within one path
    part and `**` for any number of parts. `set.npz/{split}_images/{index}` are the entries of arrays in an archive. Parts
    other than `{case}` become values of the case (`Case.values`).

    Attributes:
        name: shown to the user when this layout is recognised (`msd`, `nnunet`, `as downloaded`).
        inputs: role -> one pattern per channel, or a single pattern of 4-D files that hold all channels.
        targets: role -> pattern; one that ends in `/` means a folder of masks, whose union is the target.
        case_id: how the case id is put together from the parts of the path.
        values: label -> value in the files of this layout, where it is not that of the specification.
        leave_out: pattern -> why files that match it belong to no case.
        arrays: value of a case -> array of the same archive that holds it, one row per entry: `{split}_labels`.
    """

    name: str
    inputs: dict[str, tuple[str, ...]]
    targets: dict[str, str] = Field(default_factory=dict)
    case_id: str = "{case}"
    values: dict[str, int] = Field(default_factory=dict)
    leave_out: dict[str, str] = Field(default_factory=dict)
    arrays: dict[str, str] = Field(default_factory=dict)

    @property
    def patterns(self) -> tuple[str, ...]:
        """Of all inputs, then of the targets."""
        return (*(pattern for written in self.inputs.values() for pattern in written), *self.targets.values())

    @property
    def parts(self) -> frozenset[str]:
        """Names of the parts of the patterns other than the case."""
        return frozenset(name for pattern in self.patterns for name in _named_parts(pattern)) - {"case"}

    @model_validator(mode="after")
    def _ids_can_be_made(self) -> LayoutSpec:
        parts = set() if self.case_id == "{case}" else _named_parts(self.case_id)
        for pattern in self.patterns:
            missing = parts - _named_parts(pattern)
            if missing:
                raise ValueError(f"case_id {self.case_id!r} needs {sorted(missing)}, which the pattern {pattern!r} lacks")
        return self

    @model_validator(mode="after")
    def _arrays_can_be_found(self) -> LayoutSpec:
        if self.arrays and not any(".npz/" in pattern for pattern in self.patterns):
            raise ValueError(f"arrays {self.arrays} need a pattern of entries in an archive, such as set.npz/{{split}}_images/"
                             "{index}")
        unknown = {part for array in self.arrays.values() for part in _named_parts(array)} - self.parts
        if unknown:
            raise ValueError(f"arrays {self.arrays} use {sorted(unknown)}, which no pattern has")
        return self


def _named_parts(pattern: str) -> set[str]:
    return set(re.findall(r"\{([a-z_]+)[:}]", pattern))


@dataclass(frozen=True, config=STRICT)
class LabelSpec:
    """One label of a label map: its name, its value in the files, and its codes in terminologies (e.g. SNOMED)."""

    name: str
    value: int
    codes: dict[str, str] = Field(default_factory=dict)


@dataclass(frozen=True, config=STRICT)
class RegionSpec:
    """A union of labels (whole tumour, tumour core); the order of regions is the order in which they are painted.

    Attributes:
        paints: the label that a voxel gets where this region is predicted and no later one is; None: what the region has
            and no later one, where that is a single label.
    """

    name: str
    labels: tuple[str, ...]
    paints: str | None = None


@dataclass(frozen=True, config=STRICT)
class GroupingSpec:
    """How a case's patient, site, date and stratum are known: from its id, from parts of its path, or from a table.

    Wherever a column is named, a named part of the paths will do too.

    Attributes:
        pattern: regular expression searched in the case id; its first group is the patient.
        strata: stratum -> regular expression searched in the case id; the first that is found counts.
        table: text file relative to the dataset folder, a row per case; its columns become values of the cases. `*` in its
            name stands for any text, where releases differ in it.
        more_tables: further ones, with the same `case_column`.
        case_column: the case: its id, its file name, or the path of its file.
        splits: split that was given with the data -> text file with a case per line, as for `case_column`; becomes the value
            `split` of the cases.
        one_of: value -> columns of which exactly one is 1 in every row; its name becomes the value.
        leave_out: column -> cell -> why such cases are not used for training and validation.
    """

    pattern: str | None = None
    strata: dict[str, str] = Field(default_factory=dict)
    table: str | None = None
    case_column: str = "case"
    group_column: str | None = None
    site_column: str | None = None
    date_column: str | None = None
    stratify_column: str | None = None
    more_tables: tuple[str, ...] = ()
    splits: dict[str, str] = Field(default_factory=dict)
    one_of: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    leave_out: dict[str, dict[str, str]] = Field(default_factory=dict)

    @property
    def files(self) -> tuple[str, ...]:
        """Tables and lists, relative to the dataset folder."""
        return (*([] if self.table is None else [self.table]), *self.more_tables, *self.splits.values())

    @model_validator(mode="after")
    def _tables_are_consistent(self) -> GroupingSpec:
        if self.table is None and (self.more_tables or self.one_of):
            raise ValueError("more_tables and one_of need a table")
        for name, columns in self.one_of.items():
            if len(set(columns)) < max(2, len(columns)):
                raise ValueError(f"one_of {name!r} needs two columns at least, each once; found {list(columns)}")
        return self

    @model_validator(mode="after")
    def _patterns_compile(self) -> GroupingSpec:
        if self.pattern is not None and _compiled(self.pattern).groups < 1:
            raise ValueError(f"grouping pattern {self.pattern!r} needs one group in parentheses: the patient")
        for expression in self.strata.values():
            _compiled(expression)
        if self.strata and self.stratify_column:
            raise ValueError("strata come from the case id (strata) or from the table (stratify_column), not from both")
        return self


def _compiled(expression: str) -> regex.Pattern[str]:
    try:
        return regex.compile(expression)
    except regex.error as error:
        raise ValueError(f"{expression!r} is not a regular expression: {error}") from error


# Names appear on screens, in pages, in logs and in tables.
_LONGEST_NAME = 200
# Label maps hold at most 32 bits with a sign (`io.images.labels`).
_LABEL_VALUES = range(-2**31, 2**31)


def _require_ordinary_names(spec: DatasetSpec) -> None:
    """Names without control characters, roles that can be part of a file name, values that a label map can hold."""
    for what, names in (("input", [entry.role for entry in spec.inputs]), ("layout", [entry.name for entry in spec.layouts])):
        if len(set(names)) < len(names):
            raise ValueError(f"{what} names must be unique, found {names}")
    for role in [*(entry.role for entry in spec.inputs), *(role for layout in spec.layouts for role in layout.targets)]:
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,63}", role):
            raise ValueError(f"role {role!r} must be a word of letters, digits, '_' and '-'")
    channels = [channel for entry in spec.inputs for channel in entry.channels]
    named: dict[str, Any] = {"label": spec.labels, "region": spec.regions, "channel": channels}
    for what, entries in named.items():
        for entry in entries:
            if not entry.name.strip() or len(entry.name) > _LONGEST_NAME or has_control_characters(entry.name):
                raise ValueError(f"{what} name {entry.name[:_LONGEST_NAME]!r} must have 1 to {_LONGEST_NAME} characters, none of "
                                 "them a control character")
    beyond = [value for value in (*(label.value for label in spec.labels), spec.ignore or 0) if value not in _LABEL_VALUES]
    if beyond:
        raise ValueError(f"label values {beyond} do not fit into 32 bits")


def _require_lossless(spec: DatasetSpec) -> None:
    """JPEG changes values: nothing reads it unawares, and no label map consists of it."""
    lossy = {entry.role for entry in spec.inputs if entry.lossy}
    for layout in spec.layouts:
        named = [(role, pattern) for role, patterns in layout.inputs.items() if role not in lossy for pattern in patterns]
        for role, pattern in (*named, *layout.targets.items()):
            if re.search(r"\.(jpe?g|jpe|jfif)$", pattern, re.IGNORECASE):
                raise ValueError(f"layout {layout.name!r} names JPEG files for {role!r}, {pattern!r}: their compression changed "
                                 + ("label values; give lossless files" if role in layout.targets else
                                    f"intensities; where there are no other files, write `lossy: true` at inputs.{role}"))


@dataclass(frozen=True, config=STRICT)
class DatasetSpec:
    """A dataset: name, task, inputs, labels, grouping, licence and source, and the options of its task.

    Attributes:
        format: version of this file format.
        ignore: value of voxels that nobody annotated: they count in no loss and no score; None: all are annotated.
        options: options of the task itself; validated against the type that the task declares.
        exclude: case ids to leave out, each for a reason the author knows.
    """

    name: str
    task: str
    layouts: tuple[LayoutSpec, ...]
    inputs: tuple[InputSpec, ...] = (InputSpec(),)
    labels: tuple[LabelSpec, ...] = ()
    regions: tuple[RegionSpec, ...] = ()
    grouping: GroupingSpec = GroupingSpec()
    description: str = ""
    source: str = ""
    licence: str = ""
    reference: str = ""
    exclude: tuple[str, ...] = ()
    options: dict[str, Any] = Field(default_factory=dict)
    format: int = SPEC_FORMAT
    ignore: int | None = None

    @model_validator(mode="after")
    def _is_consistent(self) -> DatasetSpec:
        if self.format < 1:
            raise ValueError(f"format {self.format} does not exist; this autoseg writes format {SPEC_FORMAT}")
        if self.format > SPEC_FORMAT:
            raise ValueError(f"format {self.format} is newer than this autoseg understands ({SPEC_FORMAT}); update autoseg")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name):
            raise ValueError(f"name {self.name!r} must be usable as a folder name: letters, digits, '.', '_' and '-'")
        _require_ordinary_names(self)
        _require_lossless(self)
        values = [label.value for label in self.labels]
        names = [label.name for label in self.labels]
        if len(set(values)) != len(values) or len(set(names)) != len(names):
            raise ValueError(f"label names and values must each be unique, found {dict(zip(names, values, strict=True))}")
        if 0 in values:
            raise ValueError("label value 0 is the background and is not listed")
        if self.ignore is not None and self.ignore in (0, *values):
            raise ValueError(f"ignore is the value {self.ignore}, which is the background or a label; give the value of the "
                             "voxels that nobody annotated")
        self._check_regions(names)
        for layout in self.layouts:
            for entry in self.inputs:
                count = len(layout.inputs.get(entry.role, ()))
                if entry.kind == "image" and count not in (1, len(entry.channels)):
                    raise ValueError(f"layout {layout.name!r} gives {count} patterns for input {entry.role!r}, expected "
                                     f"{len(entry.channels)} (one per channel) or 1 (4-D files)")
        return self

    @model_validator(mode="after")
    def _values_of_layouts_are_consistent(self) -> DatasetSpec:
        written = {label.name: label.value for label in self.labels}
        for layout in self.layouts:
            unknown = set(layout.values) - set(written)
            if unknown:
                raise ValueError(f"layout {layout.name!r} gives values to labels that do not exist: {sorted(unknown)}; known: "
                                 f"{list(written)}")
            values = list((written | layout.values).values())
            if len(set(values)) != len(values) or 0 in values or self.ignore in values:
                raise ValueError(f"layout {layout.name!r}: label values must each be unique, and neither 0 nor the ignored "
                                 f"value, found {written | layout.values}")
        return self

    def _check_regions(self, names: list[str]) -> None:
        if len({region.name for region in self.regions}) < len(self.regions):
            raise ValueError(f"region names must be unique, found {[region.name for region in self.regions]}")
        for region in self.regions:
            unknown = {*region.labels, *([region.paints] if region.paints else [])} - set(names)
            if unknown:
                raise ValueError(f"region {region.name!r} names labels that do not exist: {sorted(unknown)}; known: {names}")
            if not region.labels:
                raise ValueError(f"region {region.name!r} has no labels")
            if region.name in names and region.labels != (region.name,):
                raise ValueError(f"region {region.name!r} is called like a label but is the union of {list(region.labels)}; "
                                 "give it another name")

    @property
    def listed_values(self) -> tuple[int, ...]:
        """Values that files may hold beside 0: of the labels, and of voxels that nobody annotated."""
        return (*(label.value for label in self.labels), *(() if self.ignore is None else (self.ignore,)))

    def input(self, role: str) -> InputSpec:
        """The input called `role`."""
        return next(entry for entry in self.inputs if entry.role == role)
