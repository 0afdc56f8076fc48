"""All that prediction needs, as one value; its files are the business of `autoseg.io.bundles`."""

from __future__ import annotations

from dataclasses import dataclass, field

from autoseg.core.case import Case
from autoseg.core.fingerprint import Fingerprint
from autoseg.core.plan import Plan, Precision
from autoseg.core.spec import DatasetSpec

# 2: decisions about tile step, mirroring and precision. 3: numbers of fitted steps, the cheap model where a step uses it, and
# plans of format 2. 4: cases that every unit holds. Bundles of earlier formats lack these and are read as they are.
BUNDLE_FORMAT = 4


@dataclass(frozen=True)
class Member:
    """One trained network: where its weights lie, relative to the bundle, and their digest."""

    configuration: str
    fold: str
    weights: str
    sha256: str


@dataclass(frozen=True)
class Decisions:
    """What cross-validation decided.

    Attributes:
        refinements: names of the task's post-processing steps to apply, in order.
        fitted: numbers that were fitted out of fold for a step (`temperature`), by the step's name.
        because: what was compared, in words, for the model card.
        tile_step, mirror, precision: of prediction; None: as planned, because nothing was compared.
    """

    refinements: tuple[str, ...] = ()
    because: tuple[str, ...] = ()
    tile_step: float | None = None
    mirror: bool | None = None
    precision: Precision | None = None
    fitted: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Bundle:
    """Spec, plan, members, decisions, fingerprint and model card.

    Attributes:
        digest: SHA-256 of `bundle.json`, which names the digests of all other files; empty while it is not on disk.
        signed: who signed it, in words; empty while it is not on disk.
        baseline: digest of the cheap model's file; empty where the bundle holds none, or is not on disk.
        cases: that every unit holds beside its own (an atlas), without which nothing could be predicted.
    """

    spec: DatasetSpec
    plan: Plan
    members: tuple[Member, ...]
    decisions: Decisions
    fingerprint: Fingerprint
    card: str
    format: int = BUNDLE_FORMAT
    digest: str = ""
    signed: str = ""
    baseline: str = ""
    cases: tuple[Case, ...] = ()
