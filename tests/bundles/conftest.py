"""A toy dataset with one trained fold, its bundle, and the bundle as one file."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from toy_tasks.datasets import SPECS, open_toy, write_cases

from autoseg import pipeline
from autoseg.core.budget import Budget
from autoseg.core.provenance import Origin
from autoseg.core.task import PlanRequest
from autoseg.io.values import write_value
from autoseg.stages.exchange import run_export
from autoseg.workspace import Workspace

ORIGIN = Origin("autoseg train -d ToyLabels", {"autoseg": "1.2.3"})


@dataclass(frozen=True)
class Home:
    """A trained toy: `folder` with images and labels, the root folder, the bundle, and the bundle as one file."""

    folder: Path
    root: Path
    workspace: Workspace
    bundle: Path
    archive: Path


@pytest.fixture(scope="package")
def home(tmp_path_factory) -> Home:
    folder = tmp_path_factory.mktemp("home")
    folder.joinpath("spec.yaml").write_text(SPECS["segmentation"])
    write_cases(folder, "segmentation")
    workspace = replace(open_toy("segmentation", folder, folder / "root"), origin=ORIGIN)
    budget = Budget("cpu", 4 * 2**30, threads=1, device="test")
    plan = pipeline.plan(workspace, budget, PlanRequest("toy", "default", ("3d_fullres",)), executor=None)
    planned = plan.configurations["3d_fullres"]
    four_steps = replace(planned, network=replace(planned.network, features=(8, 8, 8)),
                         optimization=replace(planned.optimization, iterations=4, iterations_per_epoch=2))
    plan = replace(plan, configurations={"3d_fullres": four_steps})
    write_value(workspace.layout.plan("toy") / "plan.json", plan)
    (workspace.layout.plan("toy") / "done.json").unlink()  # a plan of one's own
    write_value(workspace.layout.folder / "last.json", {"plan": "toy"})
    pipeline.preprocess(workspace, plan, (), executor=None)
    pipeline.train(workspace, plan, "3d_fullres", "0", device="cpu", workers=0, should_stop=lambda: False)
    pipeline.select(workspace, plan)
    bundle, archive = workspace.layout.bundle("toy"), folder / "toy.autoseg"
    run_export(bundle, archive, key=None)
    return Home(folder, folder / "root", workspace, bundle, archive)


@pytest.fixture
def bundle(home, tmp_path) -> Path:
    """A copy of the bundle that a test may change."""
    return Path(shutil.copytree(home.bundle, tmp_path / "bundle"))
