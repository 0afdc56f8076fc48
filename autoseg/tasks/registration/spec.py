"""Options of registration in a dataset's specification, and its units: pairs of a fixed and a moving case."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from autoseg.core.case import Case, Unit
from autoseg.core.spec import STRICT, DatasetSpec
from autoseg.io.patterns import compiled

PairSource = Literal["cohort", "within_patient", "atlas", "table"]
Method = Literal["network", "supervised", "pair", "implicit"]
SimilarityName = Literal["mse", "lncc", "mind", "mutual_information", "patches", "features"]


@dataclass(frozen=True, config=STRICT)
class RegistrationOptions:
    """What a specification may say under `options`.

    Attributes:
        pairs: `cohort`: any two cases; `within_patient`: cases of one patient; `atlas`: one case with every other one; `table`:
            as a table lists them. Where images to predict have a table of that name beside them, it decides there, too.
        table: of pairs, with the columns `fixed` and `moving` (case ids), relative to the folder of the dataset.
        atlas: id of that case.
        atlas_is: the role that the atlas has in every pair.
        fixed: regular expression that is found in the ids of fixed cases, within patients; None: the first id of each patient.
        pair_count: pairs of a cohort that are listed for validation. In training any two training cases meet.
        use_labels: labels take part in the loss where there are some; scores use them always.
        method: as asked for; `auto`: a network where there are pairs enough, else every pair by itself.
        similarity: as asked for; `auto`: what measured pairs ask for, or `features` where there are weights to start from.
            `patches` is learned from pairs that lie on each other, `features` are those of another model.
        refine_iterations: steps by which what a network answered is improved on the pair itself; None: as planned.
    """

    pairs: PairSource = "cohort"
    table: str = "pairs.csv"
    atlas: str | None = None
    atlas_is: Literal["moving", "fixed"] = "moving"
    fixed: str | None = None
    pair_count: int = Field(default=1000, ge=1)
    use_labels: bool = True
    method: Literal["auto", "network", "supervised", "pair", "implicit"] = "auto"
    similarity: Literal["auto", "mse", "lncc", "mind", "mutual_information", "patches", "features"] = "auto"
    refine_iterations: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _parts_fit(self) -> RegistrationOptions:
        if (self.pairs == "atlas") != (self.atlas is not None):
            raise ValueError("an atlas is the id of a case and goes with `pairs: atlas`; give both or neither")
        if self.fixed is not None:
            if self.pairs != "within_patient":
                raise ValueError("fixed says which of a patient's images is the fixed one; it goes with `pairs: within_patient`")
            compiled(self.fixed)
        return self


def registration_options(spec: DatasetSpec) -> RegistrationOptions:
    """The options of a specification, checked."""
    return RegistrationOptions(**spec.options)


def index_units(spec: DatasetSpec, cases: Sequence[Case]) -> tuple[Unit, ...]:
    """The pairs of a dataset or of images to predict, see `pairs.list_pairs`; their ids say moving, then fixed case.

    The patient of a pair is that of its case that is not the atlas: of the fixed one where both are its own.

    Raises:
        DatasetError: there is no pair, a listed case does not exist, or two pairs would have one id.
    """
    from autoseg.tasks.registration.pairs import list_pairs  # which itself reads the options above

    options = registration_options(spec)
    return tuple(pair_unit(fixed, moving, options) for fixed, moving in list_pairs(spec, cases))


def pair_unit(fixed: Case, moving: Case, options: RegistrationOptions | None = None) -> Unit:
    """The unit of two cases."""
    own = moving if options is not None and options.pairs == "atlas" and options.atlas == fixed.id else fixed
    return Unit(pair_id(fixed.id, moving.id), (fixed, moving), own.group, own.stratum)


def pair_id(fixed: str, moving: str) -> str:
    """The id of a pair, safe as a file name where both ids are."""
    return f"{moving}_to_{fixed}"
