"""How an output was made: who asked with which versions, from which inputs, by which plan and bundle."""

from __future__ import annotations

from dataclasses import dataclass, field

MANIFEST_FORMAT = 1


@dataclass(frozen=True)
class Origin:
    """The command and the software.

    Attributes:
        command: as typed, with every path replaced by `PATH`: a path may hold a patient's name.
        versions: of Python, autoseg and what decides its numbers.
    """

    command: str = ""
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """`manifest.json` of an output folder. It holds no time, so that the same run twice writes the same file.

    Attributes:
        stage: what wrote the folder.
        plan, bundle: digests (of the plan's values; of `bundle.json`, which names the digest of every other file of the
            bundle); empty where none took part.
        seed: of everything random; None where nothing is.
        settings: what else decided the outputs, such as device, engine and tile step.
        inputs, outputs: SHA-256 of files, by their name relative to the folder that was given, or to the output folder.
    """

    stage: str
    origin: Origin
    plan: str = ""
    bundle: str = ""
    seed: int | None = None
    settings: dict[str, str] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    format: int = MANIFEST_FORMAT
