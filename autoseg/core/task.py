"""The task contract: one record of functions. Everything that is particular to a task enters the stages through it.

What stands between the slots (targets, raw outputs, predictions) is the task's own; stages hand it on without looking.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from autoseg.core.budget import Budget, CaseTime
from autoseg.core.case import Case, Unit
from autoseg.core.fingerprint import Fingerprint
from autoseg.core.geometry import Box, GridRecord
from autoseg.core.image import Image
from autoseg.core.networks import Classifier, Network, Registrar
from autoseg.core.plan import Configuration, InputPlan, Plan, Precision
from autoseg.core.report import Estimate, Failure, Record, Scores
from autoseg.core.spec import DatasetSpec
from autoseg.core.verb import BundleVerb, Verb

if TYPE_CHECKING:  # torch takes two seconds to import and is needed only where networks run
    from torch import Tensor, nn

Arrays: TypeAlias = dict[str, NDArray]
Inputs: TypeAlias = dict[str, Image]
Engine: TypeAlias = Literal["auto", "torch", "openvino"]


class CaseStore(Protocol):
    """Preprocessed cases on the model grid, as a task sees them."""

    def names(self, case_id: str) -> tuple[str, ...]:
        """Names of the arrays stored with a case: input roles and what `prepare_target` returned."""

    def shape(self, case_id: str, name: str) -> tuple[int, ...]:
        """Shape of one array, without reading it."""

    def array(self, case_id: str, name: str, box: Box | None = None) -> NDArray:
        """One array, or the part of it inside a half-open box over its last three axes."""

    def record(self, case_id: str) -> GridRecord:
        """The way back to the case grid."""


@dataclass(frozen=True)
class Description:
    """What the fingerprint measures of one unit.

    Attributes:
        foreground: bool (Z, Y, X) on the first input's grid; intensities are measured there.
        properties: counts that can be summed.
        marks: what patients are to be counted of, as several cases of one patient say less than those of several.
    """

    foreground: NDArray
    properties: dict[str, int]
    marks: tuple[str, ...] = ()


def no_pilots(plan: Plan, configuration: Configuration) -> Sequence[tuple[Arrays, GridRecord]]:
    """What a probe without a dataset answers.

    Raises:
        RuntimeError: always.
    """
    raise RuntimeError(f"plan {plan.name!r} asks for pilot units, and there is no dataset to take them from")


@dataclass(frozen=True)
class Probe:
    """What a planner may ask of the machine; planning itself imports no torch and reads no file.

    Attributes:
        seconds: (draft plan, candidate) -> median seconds of one optimisation step, its batch included.
        peak_bytes: candidate -> predicted peaks: of a training step, and of one batch of windows through the network.
        case_seconds: (draft plan, configuration) -> what pilot cases took; the name of the candidate is left empty.
        pilots: (draft plan, configuration) -> the pilot units on its grid, each with the images of all its cases and the way
            back, for planners that look at more than the fingerprint can say. What they find belongs into `Budget.findings`.
    """

    seconds: Callable[[Plan, Configuration], float]
    peak_bytes: Callable[[Configuration], tuple[int, int]]
    case_seconds: Callable[[Plan, Configuration], CaseTime]
    pilots: Callable[[Plan, Configuration], Sequence[tuple[Arrays, GridRecord]]] = no_pilots


@dataclass(frozen=True)
class PlanRequest:
    """What the user asked of the planner.

    Attributes:
        name: of the plan.
        rules: the rule book: `default`, or a published one to reproduce exactly (`nnunet`).
        configurations: names to plan; empty: all that the dataset allows.
        seed: of folds' training and of drawing batches.
        start: weights of another model to start from; None: none were given.
    """

    name: str = "default"
    rules: str = "default"
    configurations: tuple[str, ...] = ()
    seed: int = 0
    start: Starting | None = None


@dataclass(frozen=True)
class Phase:
    """One optimisation phase of an iteration; most tasks have one, a GAN has two.

    Attributes:
        parameters: of the network that this phase moves.
        rates: factors of the learning rate, one for each of them; None: one everywhere.
        step: (network, batch) -> losses by name; `total` is differentiated.
    """

    name: str
    parameters: Callable[[nn.Module], Iterable[nn.Parameter]]
    step: Callable[[nn.Module, Mapping[str, Tensor]], dict[str, Tensor]]
    rates: Callable[[nn.Module], Iterable[float]] | None = None


@dataclass(frozen=True)
class Context:
    """How to predict, from the command line.

    Attributes:
        device: `cpu` or `cuda[:n]`.
        mirror: test-time mirroring; None: as the plan says.
        probabilities: keep them with the prediction.
        engine: what runs the networks; see `inference.engine`.
        tile_step, precision: instead of the plan's; None: as decided or planned. The configuration that a task receives
            holds them already.
    """

    device: str = "cpu"
    mirror: bool | None = None
    probabilities: bool = False
    engine: Engine = "auto"
    tile_step: float | None = None
    precision: Precision | None = None


@dataclass(frozen=True)
class Given:
    """What a refinement works with besides the prediction.

    Attributes:
        fitted: numbers from its `fit`.
        baseline: the prediction of the task's baseline for the same unit; None unless the refinement asks for it.
    """

    fitted: Mapping[str, float] = field(default_factory=dict)
    baseline: Any = None


@dataclass(frozen=True)
class Refinement:
    """A post-processing candidate; `select` keeps it where cross-validation says that it helps.

    Attributes:
        apply: (prediction, spec, given) -> prediction.
        judged_by: the score of the summary that has to rise, larger is better; empty: the task's headline.
        fit: (out-of-fold predictions with their targets, spec) -> numbers that `apply` is given. `select` judges it on
            units that it was not fitted on.
        uses_baseline: `apply` is given the baseline's prediction; a bundle that keeps the step holds the baseline.
        parts_may_vary: a part of that score (its value for one label) may fall by as much as chance alone explains: one
            standard error of its paired difference. Else none may fall at all.
    """

    name: str
    apply: Callable[[Any, DatasetSpec, Given], Any]
    because: str
    judged_by: str = ""
    fit: Callable[[Sequence[tuple[Any, Any]], DatasetSpec], dict[str, float]] | None = None
    uses_baseline: bool = False
    parts_may_vary: bool = False


@dataclass(frozen=True)
class Comparison:
    """A reference among those that the user gave, and how its prediction scores.

    Attributes:
        unit, group: the unit and its patient.
        score: reads both and scores them; raises an AutosegError where the prediction is missing or does not fit.
    """

    unit: str
    group: str
    score: Callable[[], Scores]


@dataclass(frozen=True)
class Starting:
    """Weights from another model that a plan may start from, as a planner sees them.

    Attributes:
        weights: their file, relative to the plan's folder.
        sha256: of the file.
        network: what they are the weights of.
        source: the bundle that they come from, in words.
        inputs, spacing_mm: how its images are normalised, and the spacing of its model grid.
    """

    weights: str
    sha256: str
    network: Network | Classifier | Registrar
    source: str
    inputs: tuple[InputPlan, ...] = ()
    spacing_mm: tuple[float | None, ...] = ()


@dataclass(frozen=True)
class Legend:
    """What colours and lines of pictures mean; the report shows equal legends once.

    Attributes:
        entries: names with their colours (red, green, blue, 0 to 255).
        notes: sentences for all pictures.
    """

    entries: tuple[tuple[str, tuple[int, int, int]], ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Picture:
    """A picture for the report: (Y, X, 3) uint8 with a caption."""

    pixels: NDArray[np.uint8]
    caption: str
    legend: Legend = Legend()


def as_predicted(prediction: Any, unit: Unit, inputs: Inputs, spec: DatasetSpec) -> Any:
    """The prediction itself: `complete` of tasks whose predictions say everything."""
    return prediction


@dataclass(frozen=True)
class Task:
    """What is particular to a task. A missing slot is an error at import.

    Attributes:
        name: as written in specifications.
        headline: name of the score of the summary that ranks models; larger is better.
        case_headline: name of the score of one unit that ranks units and is compared pair by pair; larger is better. The
            headline itself where that is a mean over units.
        options: frozen type of the task's own options in a specification; several where a task is made of others, whose keys
            then stand side by side.
        index: (spec, cases) -> units; folds are made on patients, units inherit. Also for cases to predict, which have no
            target.
        examine: (units, spec) -> what is wrong with all of them together (a class with one case, a target that nobody has);
            codes that begin with `W_` are warnings.
        facts: (spec, units) -> what is understood of the targets, by name, for people: labels, classes with their counts.
        read_target: (unit, spec) -> target, or None where the unit has none.
        describe: (unit, inputs, target) -> what the fingerprint measures.
        make_plan: (spec, fingerprint, budget, request, probe) -> plan; probe measures candidates of a draft plan.
        prepare_target: (target, grid record, configuration) -> arrays stored with the case. The store holds cases, each as a
            unit of its own; units refer to them.
        draw_batch: (units, store, configuration, rng) -> one batch of tensors by name, augmented.
        blank_batch: configuration -> zeros with the names, shapes and types of the tensors that `draw_batch` returns; its memory
            is predicted from them.
        build_network: configuration -> network with fresh weights.
        phases: configuration -> optimisation phases.
        infer: (networks, inputs on the model grid, configuration, context) -> raw output, members averaged; may be a stream
            that runs the networks while `restore` draws it. Roles of a unit's k-th further case are called `role@k`.
        restore: (raw, grid record, configuration, context) -> prediction on the case grid, canonical orientation; called
            once per raw output. The record is that of the first case and holds those of a unit's further cases.
        complete: (prediction, unit, inputs, spec) -> the prediction with what only the unit's files can give it (an image warped
            onto another one), before it is handed out by `predict`; `as_predicted` where there is nothing of this kind.
        write: (prediction, spec, image, path without ending) -> files written, in the stored orientation.
        read_prediction: (file or path without ending, spec) -> prediction.
        row: (prediction, spec, image) -> what `predictions.csv` says of a unit, by column.
        compare: (folder of predictions, references, spec) -> every reference with its prediction, for `evaluate`; the
            references are a folder or a file, as the task knows them.
        score: (prediction, target, spec, image) -> scores of one unit.
        summarise: (records, rng) -> metrics with confidence intervals.
        fit_baseline: (training samples, spec, rng) -> a cheap model as arrays, which a bundle can hold. The samples may be gone
            through several times; each time they are read from their files.
        apply_baseline: (arrays, inputs, spec) -> prediction of the cheap model.
        refinements: spec -> post-processing candidates, in the order in which they are tried.
        figures: (prediction, target, image, spec) -> pictures for the report, worst place first.
        charts: (records, records of the baseline, spec) -> charts of all units for the report, as SVG.
        notes: spec -> how scores are to be read, a sentence each.
        verbs: extra commands: of their own, or on images with a bundle.
    """

    name: str
    headline: str
    case_headline: str
    options: type | tuple[type, ...]
    index: Callable[[DatasetSpec, Sequence[Case]], tuple[Unit, ...]]
    examine: Callable[[Sequence[Unit], DatasetSpec], tuple[Failure, ...]]
    facts: Callable[[DatasetSpec, Sequence[Unit]], dict[str, str]]
    read_target: Callable[[Unit, DatasetSpec], Any]
    describe: Callable[[Unit, Inputs, Any], Description]
    make_plan: Callable[[DatasetSpec, Fingerprint, Budget, PlanRequest, Probe], Plan]
    prepare_target: Callable[[Any, GridRecord, Configuration], Arrays]
    draw_batch: Callable[[Sequence[Unit], CaseStore, Configuration, np.random.Generator], dict[str, Tensor]]
    blank_batch: Callable[[Configuration], dict[str, Tensor]]
    build_network: Callable[[Configuration], nn.Module]
    phases: Callable[[Configuration], tuple[Phase, ...]]
    infer: Callable[[Sequence[nn.Module], Arrays, Configuration, Context], Any]
    restore: Callable[[Any, GridRecord, Configuration, Context], Any]
    complete: Callable[[Any, Unit, Inputs, DatasetSpec], Any]
    write: Callable[[Any, DatasetSpec, Image, Path], tuple[Path, ...]]
    read_prediction: Callable[[Path, DatasetSpec], Any]
    row: Callable[[Any, DatasetSpec, Image], dict[str, float | str]]
    compare: Callable[[Path, Path, DatasetSpec], tuple[Comparison, ...]]
    score: Callable[[Any, Any, DatasetSpec, Image], Scores]
    summarise: Callable[[Sequence[Record], np.random.Generator], dict[str, Estimate]]
    fit_baseline: Callable[[Iterable[tuple[Unit, Inputs, Any]], DatasetSpec, np.random.Generator], Arrays]
    apply_baseline: Callable[[Arrays, Inputs, DatasetSpec], Any]
    refinements: Callable[[DatasetSpec], tuple[Refinement, ...]]
    figures: Callable[[Any, Any, Image, DatasetSpec], tuple[Picture, ...]]
    charts: Callable[[Sequence[Record], Sequence[Record], DatasetSpec], tuple[str, ...]]
    notes: Callable[[DatasetSpec], tuple[str, ...]]
    verbs: tuple[Verb | BundleVerb, ...]

    def __post_init__(self) -> None:
        for slot in fields(self):
            value = getattr(self, slot.name)
            entries = self.option_types if slot.name == "options" else (value,)
            is_value = slot.name in ("name", "headline", "case_headline", "verbs")
            if value is None or not entries or not (is_value or all(map(callable, entries))):
                raise TypeError(f"task {self.name!r}: slot {slot.name!r} must be filled, found {value!r}")

    @property
    def option_types(self) -> tuple[type, ...]:
        """The types of all options; no two of them have a key in common."""
        return self.options if isinstance(self.options, tuple) else (self.options,)
