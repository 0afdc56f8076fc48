"""The verb for a single pair of images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autoseg.cli import show
from autoseg.cli.audit import origin
from autoseg.cli.bundles import named_bundle, policies
from autoseg.cli.options import AsJson, DeviceName, Memory
from autoseg.cli.run import make_budget, root_folder, start
from autoseg.cli.screen import versions

MANIFEST = "manifest.json"


def register(fixed: Annotated[Path, typer.Option("--fixed", help="The image whose grid and anatomy are kept.")],
             moving: Annotated[Path, typer.Option("--moving", help="The image that is warped onto it.")],
             output: Annotated[Path, typer.Option(
                 "-o", "--output", help="Folder for displacement, transform, what was warped, and the report.")],
             labels: Annotated[Path | None, typer.Option(
                 "--labels", help="Label map of the moving image; is warped, too.")] = None,
             fixed_labels: Annotated[Path | None, typer.Option(
                 "--fixed-labels", help="Label map of the fixed image; with --labels, both are compared.")] = None,
             fixed_landmarks: Annotated[Path | None, typer.Option(
                 "--fixed-landmarks", help="Landmarks of the fixed image.")] = None,
             moving_landmarks: Annotated[Path | None, typer.Option(
                 "--moving-landmarks", help="The same ones in the moving image.")] = None,
             channel: Annotated[str, typer.Option("--channel", help="What the images are: CT, or any other name.")] = "image",
             method: Annotated[str, typer.Option(
                 "--method", help="pair: optimise the deformation; implicit: fit a network of coordinates.")] = "pair",
             similarity: Annotated[str, typer.Option(
                 "--similarity", help="auto, mse, lncc, mind, mutual_information, or features (of --start).")] = "auto",
             start_from: Annotated[Path | None, typer.Option(
                 "--start", help="A bundle, such as a segmentation of such images, whose features are compared.")] = None,
             memory: Memory = None, device: DeviceName = None, as_json: AsJson = False) -> None:
    """Register a single pair of images without training: displacement in mm, ITK transform, warped image, report."""
    from autoseg import pipeline
    from autoseg.core.errors import choose
    from autoseg.core.task import Context
    from autoseg.tasks.registration.single import PairFiles
    from autoseg.training.device import detect_device

    screen = start("register", as_json, output=output)
    choose({name: name for name in ("pair", "implicit")}, method, "--method")
    files = PairFiles(fixed, moving, channel, labels, fixed_labels, fixed_landmarks, moving_landmarks)
    if start_from is not None:
        start_from = named_bundle(start_from, root_folder(None))
    address = detect_device(device or "auto").address
    made = pipeline.register(files, output, make_budget(address.partition(":")[0], memory, None), Context(address),
                             method=method, similarity=similarity, progress=screen.progress, provenance=versions(),
                             origin=origin(), start=start_from, policies=[] if start_from is None else policies(None, None))
    screen.made["registration"] = output / MANIFEST
    show.answer(screen, made.files, made.scores, made.seconds, made.page)
    screen.finish(output=output, files=made.files, scores=made.scores, pair_seconds=round(made.seconds, 3), report=made.page)
