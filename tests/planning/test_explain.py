from __future__ import annotations

from dataclasses import replace

from autoseg.core.budget import Budget
from autoseg.core.plan import InputPlan, Normalization, Plan, Reason
from autoseg.planning.explain import below, explain, nearest_reason
from autoseg.planning.recipes import CPU
from autoseg.planning.spacing import Grid
from autoseg.planning.unet import Blueprint, Limits, Wanted, plan_unet

CONFIGURATION = plan_unet(Blueprint("2d", Grid((2, 0, 1), (3.0, 2.0, 1.0), (20, 50, 35), 22, 200),
                                    Wanted(1, 3, {"dice": 1.0, "cross_entropy": 0.5}), CPU, Limits(1.0, 2**20)))
PLAN = Plan("default", "Toy", "segmentation", (2, 0, 1), (InputPlan("image", (Normalization("zscore"),)),),
            {"2d": CONFIGURATION}, Budget("cpu", 10**9), {
                "transpose": Reason("3 mm", "coarsest first", "a"), "inputs": Reason("all", "names", "b"),
                "inputs.image.0": Reason("one", "name", "c"), "configurations.2d": Reason("", "whole", "d"),
                "configurations.2d.network.features": Reason("", "width", "e")})


def rows(plan):
    return {row.path: row for row in explain(plan)}


def test_every_leaf_has_a_row_with_the_reason_of_the_longest_path():
    found = rows(PLAN)
    assert found["configurations.2d.network.features"].because == "width"
    assert found["configurations.2d.network.strides"].because == "whole"
    assert found["inputs.image.0.scheme"].because == "name"
    assert found["configurations.2d.loss.terms.cross_entropy"].value == "0.5"


def test_values_are_written_for_reading():
    found = rows(PLAN)
    assert found["transpose"].value == "2 x 0 x 1"
    assert found["configurations.2d.spacing_mm"].value == "None x 2 x 1"
    assert found["configurations.2d.network.strides"].value == "1 x 1, 1 x 2, 2 x 2, 2 x 2, 2 x 1"
    assert found["configurations.2d.augmentation.mirror_axes"].value == "none"


def test_a_value_without_a_reason_says_so():
    assert rows(replace(PLAN, seed=7))["seed"].because == "no reason is recorded"


def test_a_prefix_covers_whole_path_parts_only():
    reasons = below("a", {"network": Reason("", "yes", "")})
    assert nearest_reason(reasons, "a.network.dims").because == "yes"
    assert nearest_reason(reasons, "a.networks").because == "no reason is recorded"
