"""Headers of NRRD and MHA files, looked at before a native parser sees them.

The parsers of NRRD (NrrdIO) and MHA (MetaIO) in SimpleITK 2.5.7 write messages and fields into buffers of fixed size. With
headers that say absurd things they overwrite their stack (a line of 994 bytes in NRRD), other fields (an `ObjectSubType` of
400 bytes becomes the origin), never end (`NDims = -1`, a list of 2^31 - 1 data files) or wait for ever (a pipe as data file):
all measured. So no header reaches them that is not of the ordinary kind.

References: NRRD format definition (teem.sourceforge.net/nrrd/format.html), sections 2 and 5; MetaIO documentation
(itk.org/Wiki/ITK/MetaIO).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from autoseg.core.errors import ReadError

# A header is some hundred bytes of text; key-value pairs of NRRD (gradients, notes) make some thousand.
_HEADER_BYTES = 2**20
# NrrdIO compares every key with every other one and MetaIO keeps 9 kB per line: 60,000 took minutes, this many a second.
_MOST_LINES = 10_000
# NrrdIO formats its messages, which repeat the line, into 1024 bytes on the stack.
_LONGEST_FIELD = 900
# MetaIO copies texts of fields that it knows into 255 bytes, and names of fields into 500.
_LONGEST_TEXT, _LONGEST_NAME = 254, 254
_META_TEXTS = frozenset({"objecttype", "objectsubtype", "name", "comment", "distanceunits", "anatomicalorientation", "modality",
                         "acquisitiondate", "transformtype", "elementtype", "elementdatafile"})
# Of what ITK can hold in one image; MetaIO's arrays hold ten.
_MOST_DIMENSIONS = 10
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]|\r(?!\n)")


@dataclass(frozen=True)
class Header:
    """What the text of a header says.

    Attributes:
        fields: value of every field, by its name in lower case.
        start: the byte after the header, where the voxels begin.
    """

    fields: dict[str, str]
    start: int


def read_header(path: Path) -> Header:
    """The header of a .nrrd or .mha.

    Raises:
        ReadError: it is none, its voxels are in another file, or it says what native parsers cannot be trusted with.
    """
    with path.open("rb") as file:
        head = file.read(_HEADER_BYTES)
    return _nrrd(path, head) if path.name.lower().endswith(".nrrd") else _mha(path, head)


def _nrrd(path: Path, head: bytes) -> Header:
    if not re.match(rb"NRRD000[1-5]\r?\n", head):
        raise ReadError(f"{path} is no NRRD file: it begins with {head[:8]!r}, and NRRD0004, say, is expected; copy or download "
                        "it again, or correct its ending", code="E_FORMAT")
    end = re.search(rb"\r?\n\r?\n", head)
    if end is None:
        raise _detached(path, None)
    lines = _lines(path, head[:end.start()])[1:]
    fields: dict[str, str] = {}
    for line in lines:
        name, separator, value = line.partition(":")
        is_pair = ":=" in line and not (": " in line and line.index(": ") < line.index(":="))
        if line.startswith("#") or is_pair:  # notes, of any length
            continue
        if len(line.encode("latin-1")) > _LONGEST_FIELD:
            raise _unusual(path, f"a line of {len(line)} bytes, {line[:40]!r}...; fields have up to {_LONGEST_FIELD}")
        if separator:
            fields[name.strip().lower()] = value.strip()
    named = fields.get("data file", fields.get("datafile"))
    if named is not None:
        raise _detached(path, named)
    return Header(fields, end.end())


def _mha(path: Path, head: bytes) -> Header:
    """`ElementDataFile` is the last field of a header."""
    if not re.search(rb"^[ \t]*NDims[ \t]*[=:]", head, re.MULTILINE):
        raise ReadError(f"{path} is no MHA file: its header does not say the number of dimensions, NDims; copy or download it "
                        "again, or correct its ending", code="E_FORMAT")
    end = re.search(rb"^[ \t]*ElementDataFile[ \t]*[=:][ \t]*([^\r\n]*?)[ \t]*\r?\n", head, re.MULTILINE)
    named = None if end is None else end[1].decode("latin-1")
    if end is None or named is None or named.upper() != "LOCAL":
        raise _detached(path, named)
    fields: dict[str, str] = {}
    for line in _lines(path, head[:end.start()]):
        name, separator, value = re.sub("[=:]", "=", line, count=1).partition("=")
        name, value = name.strip().lower(), value.strip()
        if name and not separator:  # MetaIO would give it the value of the next line
            raise _unusual(path, f"the line {line[:40]!r}, which says nothing of a field")
        if len(name) > _LONGEST_NAME or (name in _META_TEXTS and len(value) > _LONGEST_TEXT):
            raise _unusual(path, f"{name[:40]!r} with {max(len(name), len(value))} bytes; texts have up to {_LONGEST_TEXT}")
        if name == "ndims" and not (value.isdecimal() and 1 <= int(value) <= _MOST_DIMENSIONS):
            raise _unusual(path, f"NDims = {value[:40]}; 2 to 4 are expected")
        if name == "headersize" and value not in ("0", "-1"):  # MetaIO would take bytes of the header for voxels
            raise _unusual(path, f"HeaderSize = {value[:40]}; in a file that holds its voxels it is 0")
        fields[name] = value
    return Header(fields, end.end())


def _lines(path: Path, text: bytes) -> list[str]:
    if found := _CONTROL.search(text):
        raise _unusual(path, f"the control character {found[0]!r} at byte {found.start()}")
    lines = text.decode("latin-1").replace("\r\n", "\n").split("\n")
    if len(lines) > _MOST_LINES:
        raise _unusual(path, f"{len(lines):,} lines; up to {_MOST_LINES:,} are read")
    return lines


def _unusual(path: Path, what: str) -> ReadError:
    return ReadError(f"{path} has a header that cannot be trusted: it holds {what}. Save the image again, or export the original "
                     "as .nii.gz", code="E_HEADER")


def _detached(path: Path, named: str | None) -> ReadError:
    where = "does not say where its voxels are" if named is None else f"says that its voxels are in another file, {named[:80]!r}"
    return ReadError(f"{path} {where}; save the image as one file", code="E_DETACHED")
