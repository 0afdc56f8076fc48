from __future__ import annotations

import json
from dataclasses import replace

import pytest

from autoseg.core.errors import ResourceError
from autoseg.core.networks import Classifier, Network
from autoseg.io.plans import read_plan
from autoseg.planning.memory import parameter_count
from autoseg.stages.feasible import least_bytes, least_parameters, require_prediction_fits, require_training_fits


def test_the_least_is_that_of_a_hand_calculation(toy):
    network = Network("plain_unet", 3, 1, 2, (4, 8), ((1, 1, 1), (2, 2, 2)), ((3, 3, 3), (1, 3, 3)), (2, 1), (2,), False)
    configuration = replace(toy.configuration, network=network, patch_size=(2, 4, 6), batch_size=3)
    parameters = 27 * (1 * 4 + 4 * 4) + 9 * (4 * 8)  # first stage: two convolutions; second: one
    assert least_parameters(network) == parameters == 828
    voxels = 3 * 48
    assert least_bytes(configuration, 3, training=True) == 4 * 3 * parameters + 4 * voxels + 4 * voxels * 4
    half = replace(configuration, optimization=replace(configuration.optimization, precision="bf16"))
    assert least_bytes(half, 3, training=False) == 4 * parameters + 4 * voxels + 2 * voxels * 4


@pytest.mark.parametrize(("kind", "more", "expected"), [
    ("plain_encoder", {}, 27 * (1 * 4 + 4 * 4) + 27 * 4 * 8), ("vit", {}, 3 + 4 * (2 * 16 + 64)),
    ("resnet", {}, 3 + (2 * 16 + 64) // 2), ("densenet", {"growth": 5}, 3 + 25 * 3), ("inception", {}, 3)])
def test_the_least_of_a_classifier_is_that_of_a_hand_calculation(kind, more, expected):
    network = Classifier(kind, 3, 1, 3, (4, 8), ((1, 1, 1), (2, 2, 2)), ((3, 3, 3),) * 2, (2, 1), **more)
    assert least_parameters(network) == expected
    assert parameter_count(network) > expected


def test_an_absurd_classifier_is_refused_before_anything_is_allocated(toy, tmp_path):
    network = Classifier("vit", 3, 1, 3, (10**6,), ((8, 8, 8),), ((8, 8, 8),), (12,))
    with pytest.raises(ResourceError, match="GB of memory"):
        require_prediction_fits(replace(toy.configuration, network=network), tmp_path / "plan.json", "cpu")


def test_the_least_is_less_than_what_is_predicted(toy):
    from autoseg.training.memory import predict_peaks

    training, inference = predict_peaks(toy.task, toy.configuration, target="cpu")
    assert least_bytes(toy.configuration, toy.configuration.batch_size, training=True) < training
    assert least_bytes(toy.configuration, toy.configuration.inference.tiles_per_batch, training=False) < inference


def test_a_plan_as_it_was_made_trains(toy):
    require_training_fits(toy.task, toy.configuration, toy.workspace.layout.plan("toy") / "plan.json", "cpu")


@pytest.mark.parametrize("change", [{"patch_size": (10_000, 10_000, 10_000)}, {"batch_size": 10**12}])
def test_absurd_plans_are_refused_before_anything_is_allocated(toy, tmp_path, change):
    configuration = replace(toy.configuration, **change)
    with pytest.raises(ResourceError, match=r"needs at least [\d,]+\.\d GB of memory.*plan again") as caught:
        require_training_fits(toy.task, configuration, tmp_path / "plan.json", "cpu")
    assert caught.value.code == "E_PLAN_MEMORY" and caught.value.exit_code == 6 and str(tmp_path) in str(caught.value)


def test_absurd_windows_and_networks_of_a_bundle_are_refused(toy, tmp_path):
    wide = replace(toy.configuration.network, features=tuple(10**7 for _ in toy.configuration.network.features))
    many = replace(toy.configuration.inference, tiles_per_batch=10**12)
    for change in ({"network": wide}, {"inference": many}, {"patch_size": (10_000,) * 3}):
        with pytest.raises(ResourceError, match="needs at least"):
            require_prediction_fits(replace(toy.configuration, **change), tmp_path, "cpu")


def test_an_edited_plan_is_predicted_anew(toy, monkeypatch, tmp_path):
    """A plan that passes the bound from below, and was edited: the planner's own prediction decides."""
    from autoseg.stages import feasible

    path = toy.workspace.layout.plan("toy") / "plan.json"
    document = json.loads(path.read_text())
    name = toy.configuration.name
    document["configurations"][name]["batch_size"] += 1
    (tmp_path / "plan.json").write_text(json.dumps(document))
    edited = read_plan(tmp_path / "plan.json").configurations[name]
    least = least_bytes(edited, edited.batch_size, training=True)
    free = replace(feasible.detect_device("cpu"), memory_bytes=least + 10**6)
    monkeypatch.setattr(feasible, "detect_device", lambda name: free)
    with pytest.raises(ResourceError, match=f"{edited.batch_size} patches"):
        require_training_fits(toy.task, edited, tmp_path / "plan.json", "cpu")
