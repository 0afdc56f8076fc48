"""Commands of a task beyond those that all tasks share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoseg.core.case import Unit
from autoseg.core.geometry import GridRecord
from autoseg.core.plan import Configuration
from autoseg.core.report import Record
from autoseg.core.spec import DatasetSpec

if TYPE_CHECKING:  # the contract holds verbs, and torch takes two seconds to import
    from torch import nn

    from autoseg.core.task import Arrays, Inputs, Picture


@dataclass(frozen=True)
class Verb:
    """An extra command of a task, `autoseg task NAME VERB`; the text that `run` returns is printed.

    Attributes:
        run: its parameters, with their types, become the command's options and arguments.
    """

    name: str
    help: str
    run: Callable[..., Any]


@dataclass(frozen=True)
class Opened:
    """Networks in use, of a bundle or of one fold's run, as a task's own command sees them. Torch runs them, so that they have
    gradients.

    Attributes:
        networks: of all members, on the device, in evaluation mode.
        prepare: images of a case by role -> arrays on the model grid by role, and the way back.
        predict: images of a unit by role -> the task's prediction; with a bundle's post-processing, where one was opened.
        refinements: names of the post-processing steps that `predict` applies.
    """

    spec: DatasetSpec
    configuration: Configuration
    networks: Sequence[nn.Module]
    device: str
    prepare: Callable[[Inputs], tuple[Arrays, GridRecord]]
    predict: Callable[[Inputs], Any]
    refinements: tuple[str, ...] = ()


@dataclass(frozen=True)
class Made:
    """What a command made of a unit: files, inside the folder that it was given, and rows for its table, by column."""

    files: tuple[Path, ...]
    rows: tuple[dict[str, float | str], ...] = ()


@dataclass(frozen=True)
class Illustration:
    """Pictures for the report that need the networks of the folds.

    Attributes:
        choose: records of all validation units -> ids of those to show, in order.
        draw: (networks of the fold that did not see the unit, unit, its images) -> pictures.
    """

    choose: Callable[[Sequence[Record]], Sequence[str]]
    draw: Callable[[Opened, Unit, Inputs], tuple[Picture, ...]]


@dataclass(frozen=True)
class BundleVerb:
    """A command of a task that works on images with a bundle, `autoseg task NAME VERB -b BUNDLE -i IMAGES -o FOLDER`.

    Which bundle, images, folder and device are options of every such command, and a stage does for it what it does for
    predictions: reads images, skips finished units, goes on after a unit that fails, keeps a table and a manifest.

    Attributes:
        begin: its parameters become further options, a text in `Annotated` is their help; returns what is done with opened
            networks, once: a function of every unit, its images and its folder.
        tell: rows of all finished units -> what is printed.
        illustration: what the report shows of the same; None: nothing.
    """

    name: str
    help: str
    begin: Callable[..., Callable[[Opened], Callable[[Unit, Inputs, Path], Made]]]
    tell: Callable[[Sequence[Mapping[str, str]]], str]
    illustration: Illustration | None = None
