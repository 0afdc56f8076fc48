"""The toy of the joint task alone, instead of one per task, planned without measuring steps, as nothing is trained here."""

from __future__ import annotations

from dataclasses import replace

import pytest
from toy_tasks.datasets import SPECS, Toy, open_toy, write_table_cases

from autoseg import pipeline
from autoseg.core.budget import Budget
from autoseg.core.task import PlanRequest


@pytest.fixture(scope="package")
def toy(tmp_path_factory) -> Toy:
    folder = tmp_path_factory.mktemp("toy")
    folder.joinpath("spec.yaml").write_text(SPECS["joint"])
    write_table_cases(folder, "joint")
    workspace = open_toy("joint", folder, folder / "home")
    budget = Budget("cpu", 4 * 2**30, threads=1, device="test")
    plan = pipeline.plan(workspace, budget, PlanRequest("toy", "default", ("3d_fullres", "2d")), executor=None)
    first = replace(plan, configurations={"3d_fullres": plan.configurations["3d_fullres"]})
    pipeline.preprocess(workspace, first, (), executor=None)
    return Toy("joint", folder, workspace, plan)
