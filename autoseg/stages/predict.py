"""Predicts cases with a bundle: in memory through `Predictor`, or a folder in and a folder out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import nn

from autoseg.core.bundle import Bundle, Decisions
from autoseg.core.case import Unit
from autoseg.core.errors import IncompatibleError, UsageError, unknown_name
from autoseg.core.geometry import Geometry, GridRecord, Spacing
from autoseg.core.image import Image
from autoseg.core.plan import Configuration
from autoseg.core.progress import Progress
from autoseg.core.report import Failure
from autoseg.core.task import Arrays, Context, Given, Inputs, Refinement, Task
from autoseg.core.verb import Opened
from autoseg.inference.engine import in_use, usable_precision
from autoseg.io.arrays import read_arrays
from autoseg.io.atomic import hash_values, sha256_file
from autoseg.io.bundles import BASELINE
from autoseg.io.images import unchanged, written_ending
from autoseg.io.spreadsheet import cell, write_table
from autoseg.nn.weights import load_weights
from autoseg.stages.fingerprint import unit_files
from autoseg.stages.prepare import prepare_inputs, read_inputs, role_of
from autoseg.stages.units import input_digests, work_through

log = logging.getLogger(__name__)

FINISHED = "predictions.json"
# What a task says of every prediction in numbers, a row each.
TABLE = "predictions.csv"
# The first column of that table.
UNIT_COLUMN = "case"
T = TypeVar("T")


class Predictor:
    """A bundle with its networks in memory, ready to predict any number of cases; see `pipeline.load_predictor`."""

    def __init__(self, bundle: Bundle, networks: Sequence[nn.Module], task: Task, context: Context,
                 baseline: Arrays | None = None) -> None:
        self.bundle = bundle
        self.task = task
        self.context = context
        self._networks = networks
        self._baseline = baseline
        self.configuration = decided(bundle.plan.configuration(bundle.members[0].configuration), bundle.decisions, context)
        self._refinements = kept_refinements(bundle, task)

    @classmethod
    def load(cls, folder: Path, bundle: Bundle, task: Task, context: Context) -> Predictor:
        """A predictor from a bundle and the folder it was read from.

        Raises:
            IncompatibleError: plan and specification are for different tasks.
            UsageError: engine, device and precision that the context asks for do not go together here.
        """
        if bundle.plan.task != bundle.spec.task:
            raise IncompatibleError(f"{folder}: plan is for task {bundle.plan.task!r}, specification for "
                                    f"{bundle.spec.task!r}; the bundle is damaged, copy it again")
        axes = [bundle.plan.configuration(member.configuration).inference.mirror_axes for member in bundle.members]
        if context.mirror and not any(axes):
            log.warning("mirroring was asked for, but this model was not trained with it: predicting without")
        networks = []
        for member in bundle.members:
            configuration = decided(bundle.plan.configuration(member.configuration), bundle.decisions, context)
            network = task.build_network(configuration)
            load_weights(folder / member.weights, network)
            networks.append(in_use(network, configuration.inference, context.device, context.engine))
        needs_baseline = any(refinement.uses_baseline for refinement in kept_refinements(bundle, task))
        return cls(bundle, networks, task, context, read_arrays(folder / BASELINE) if needs_baseline else None)

    def predict(self, inputs: Inputs) -> Any:
        """The task's prediction on the canonical grid of the inputs (images by role)."""
        arrays, record = self.prepare(inputs)
        raw = self.task.infer(self._networks, arrays, self.configuration, self.context)
        prediction = self.task.restore(raw, record, self.configuration, self.context)
        cheap = None
        if self._baseline is not None:  # it was fitted on images of floats
            floats = {role: replace(image, voxels=image.voxels.astype(np.float32)) for role, image in inputs.items()}
            cheap = self.task.apply_baseline(self._baseline, floats, self.bundle.spec)
        for refinement in self._refinements:
            given = Given(self.bundle.decisions.fitted.get(refinement.name, {}), cheap if refinement.uses_baseline else None)
            prediction = refinement.apply(prediction, self.bundle.spec, given)
        return prediction

    def prepare(self, inputs: Inputs) -> tuple[Arrays, GridRecord]:
        """The images on the model grid, and the way back of the first case."""
        return prepare_inputs(inputs, self.bundle.plan, self.configuration)

    def opened(self) -> Opened:
        """What a command of the task works with; the context must ask for torch, which alone has gradients."""
        return Opened(self.bundle.spec, self.configuration, self._networks, self.context.device, self.prepare, self.predict,
                      tuple(refinement.name for refinement in self._refinements))

    def predict_array(self, voxels: NDArray, spacing_mm: Spacing | Geometry,
                      *further: tuple[NDArray, Spacing | Geometry]) -> Any:
        """The task's prediction for one image in memory, or for the images of a unit of several cases.

        Args:
            voxels: (C, Z, Y, X) or (Z, Y, X); axes towards superior, posterior, left.
            spacing_mm: along z, y, x; or the whole grid, which predictions of several images need where these do not begin at
                one place.
            further: the same of the unit's further cases.
        """
        images = enumerate(((voxels, spacing_mm), *further))
        return self.predict({role_of(self.bundle.plan.inputs[0].role, place): _image_of(*image) for place, image in images})


def _image_of(voxels: NDArray, grid: Spacing | Geometry) -> Image:
    voxels = np.asarray(voxels, dtype=np.float32)
    voxels = voxels[None] if voxels.ndim == 3 else voxels
    shape = voxels.shape[1:]
    return Image.canonical(voxels, grid if isinstance(grid, Geometry) else Geometry((shape[0], shape[1], shape[2]), grid))


def kept_refinements(bundle: Bundle, task: Task) -> list[Refinement]:
    """The post-processing steps of a bundle, in order.

    Raises:
        IncompatibleError: the task does not know a step, or what a step works with is not in the bundle.
    """
    known = {refinement.name: refinement for refinement in task.refinements(bundle.spec)}
    for name in bundle.decisions.refinements:
        if name not in known:
            what = unknown_name(name, list(known), "post-processing")
        elif known[name].uses_baseline and not bundle.baseline:
            what = f"post-processing {name!r} needs the cheap model, which is missing."
        elif known[name].fit is not None and name not in bundle.decisions.fitted:
            what = f"post-processing {name!r} needs numbers, which are missing."
        else:
            continue
        raise IncompatibleError(f"{what} The bundle asks for it; update autoseg, or take the bundle again from where it was "
                                "made.")
    return [known[name] for name in bundle.decisions.refinements]


def decided(configuration: Configuration, decisions: Decisions, context: Context) -> Configuration:
    """The configuration with what the user asks for, else what cross-validation decided, else what was planned.

    Raises:
        UsageError: the user asks for a precision that the device does not multiply in hardware.
    """
    if context.precision is not None and usable_precision(context.precision, context.device) != context.precision:
        raise UsageError(f"{context.device} does not multiply {context.precision} in hardware, where it would be slower than "
                         "fp32 by far", hint="leave --precision out")
    planned = configuration.inference
    rules = replace(planned, tile_step=_first(context.tile_step, decisions.tile_step, planned.tile_step),
                    mirror=_first(context.mirror, decisions.mirror, planned.mirror),
                    precision=_first(context.precision, decisions.precision, planned.precision))
    return replace(configuration, inference=rules)


def _first(asked: T | None, found: T | None, planned: T) -> T:
    return asked if asked is not None else found if found is not None else planned


@dataclass(frozen=True)
class PredictedCase:
    """A finished unit: digests of what went in and of what came out, and its cells in the table."""

    inputs: dict[str, str]
    outputs: dict[str, str]
    row: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PredictionManifest:
    """What a folder of predictions was made with, and which units are finished.

    Attributes:
        made_with: digest of the bundle and the options.
    """

    made_with: str
    finished: dict[str, PredictedCase] = field(default_factory=dict)
    failures: tuple[Failure, ...] = ()


def run_predict(predictor: Predictor, units: Sequence[Unit], folder: Path, *, refused: Sequence[Failure],
                progress: Progress) -> PredictionManifest:
    """Predicts every unit into `folder`; finished ones are skipped, an unreadable one does not stop the others.

    The manifest `predictions.json` is written after every unit, or less often where it is long, the table `predictions.csv` when
    the run ends. A unit counts as finished when the same inputs were predicted with the same bundle and options, and its outputs
    are still what was written.

    Args:
        refused: cases that cannot even be tried (a channel is missing); listed with the failures.
    """
    context = predictor.context
    made_with = hash_values([member.sha256 for member in predictor.bundle.members], predictor.bundle.plan,
                            predictor.bundle.decisions, context.mirror, context.probabilities, context.engine,
                            context.tile_step, context.precision)
    return work_through(units, folder / FINISHED, PredictionManifest, lambda unit: predict_into(predictor, unit, folder),
                        stage="predict", made_with=made_with, refused=refused, table=folder / TABLE,
                        write_rows=write_predictions_table, progress=progress)


def write_predictions_table(path: Path, manifest: PredictionManifest) -> None:
    """A row per finished unit, with the columns of all of them."""
    columns = dict.fromkeys(column for found in manifest.finished.values() for column in found.row)
    rows = [{**found.row, UNIT_COLUMN: name} for name, found in manifest.finished.items()]
    write_table(path, [UNIT_COLUMN, *(column for column in columns if column != UNIT_COLUMN)], rows)


def predict_into(predictor: Predictor, unit: Unit, folder: Path) -> PredictedCase:
    """Reads a unit, predicts it and writes the prediction."""
    task, spec = predictor.task, predictor.bundle.spec
    with unchanged(unit_files(unit)):
        inputs = read_inputs(unit, spec, compact=True, varied=True)
        digests = input_digests(unit)
    prediction = task.complete(predictor.predict(inputs), unit, inputs, spec)
    ending = written_ending(next(iter(unit.cases[0].inputs.values()))[0])
    image = next(iter(inputs.values()))
    outputs = task.write(prediction, spec, image, folder / f"{unit.id}{ending}")
    row = {column: cell(value) for column, value in task.row(prediction, spec, image).items()}
    return PredictedCase(digests, {path.name: sha256_file(path) for path in outputs}, row)
