"""Similarities that are learned: what is planned, trained, carried in bundles and refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from pair_cases import blobs, image, moved_slices, planned, shifted_pair, spec
from safetensors.torch import load_file
from tasks.registration.test_step import Stored
from toy_tasks.datasets import SPECS, open_toy

from autoseg import pipeline
from autoseg.cli.app import run as command
from autoseg.core.budget import Budget
from autoseg.core.case import Unit
from autoseg.core.errors import DatasetError, UsageError
from autoseg.core.networks import Classifier, Network
from autoseg.core.plan import InputPlan, Normalization, unexplained_values
from autoseg.core.task import Context, PlanRequest, Starting
from autoseg.io.atomic import sha256_file
from autoseg.io.bundles import read_bundle
from autoseg.io.images import write_label_map, write_volume
from autoseg.io.transforms import read_displacement
from autoseg.io.values import from_plain, to_plain
from autoseg.losses.learned import feature_loss
from autoseg.nn.build import build_network
from autoseg.nn.weights import load_start, save_weights
from autoseg.stages.prepare import read_inputs
from autoseg.tasks.registration import TASK, learned, recipes
from autoseg.tasks.registration.sample import draw_batch
from autoseg.tasks.registration.solve import frame_steps
from autoseg.tasks.registration.step import similarity_of
from autoseg.training.loop import train
from autoseg.training.step import Stepper

ZSCORE = (InputPlan("image", (Normalization("zscore"),)),)
UNET = Network("plain_unet", 3, 1, 3, (4, 6, 8, 8), ((1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2)), ((3, 3, 3),) * 4, (1, 1, 1, 1),
               (1, 1, 1), False)
FLAT = Network("plain_unet", 2, 1, 3, (4, 6, 8), ((1, 1), (2, 2), (2, 2)), ((3, 3),) * 3, (1, 1, 1), (1, 1), False)


def other_contrast(voxels):
    """The same anatomy, with a relation of values that is neither linear nor one-to-one."""
    return -np.abs(voxels)


def starting(folder, network, *, empty=False) -> Starting:
    """Weights of a segmentation as they lie beside a plan: random, or 0, which sees nothing in any image."""
    torch.manual_seed(0)
    unet = build_network(network)
    for parameter in unet.parameters() if empty else ():
        parameter.data.zero_()
    save_weights(folder / "start.safetensors", unet)
    digest = sha256_file(folder / "start.safetensors")
    return Starting("start.safetensors", digest, network, "ToyLabels (segmentation)", ZSCORE, (2.0, 1.5, 1.0))


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return shifted_pair(tmp_path_factory.mktemp("pair"), steps=(0, 1, 2))


@pytest.fixture(scope="module")
def contrasts(tmp_path_factory):
    """Slices of six patients in two contrasts, one pair each; the second contrast of the last one is two voxels lower."""
    folder = tmp_path_factory.mktemp("contrasts")
    units = []
    for number in range(6):
        fixed = blobs((8, 72, 64), seed=number)[3]
        slices = np.stack([fixed, other_contrast(fixed)])
        units.append(moved_slices(folder, slices, (f"p{number}_a", f"p{number}_b"), size=(64, 56), down=2 if number == 5 else 0,
                                  group=f"p{number}", spacing=(2.0, 1.0, 1.0)))
    return units


def stored(units, dataset, plan):
    return Stored(Unit("all", tuple(case for unit in units for case in unit.cases), "all"), dataset, plan)


# patches


@pytest.fixture(scope="module")
def taught(contrasts):
    """A plan of patches, small enough for a test, and its network after training on five pairs."""
    dataset = spec(similarity="patches", pairs="within_patient", use_labels=False)
    features, recipes.PATCH_FEATURES = recipes.PATCH_FEATURES, (8, 8, 12, 12, 12)
    plan = planned(contrasts[0], dataset)
    recipes.PATCH_FEATURES = features
    configuration = plan.configurations["pairs"]
    run = replace(configuration.optimization, iterations=200, iterations_per_epoch=200, warmup_iterations=10, ema_decay=0.9)
    few = {"pair_levels": ((2, 4, 15), (1, 2, 25))}
    configuration = replace(configuration, optimization=run, task_values=configuration.task_values | few)
    plan = replace(plan, configurations={"pairs": configuration})
    torch.manual_seed(0)
    network = TASK.build_network(configuration)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    store, wrong = stored(contrasts, dataset, plan), []
    train(network, TASK.phases(configuration), lambda number: draw_batch(
        contrasts[:5], store, configuration, np.random.default_rng([7, number])), run,
        progress=lambda done, total, losses: wrong.append(losses["wrong"]))
    return plan, store, network, before, wrong


def test_training_moves_the_classifier_alone_and_teaches_it(taught):
    _, _, network, before, wrong = taught
    moved = {name.split(".")[0] for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == {"similarity"}
    assert np.mean(wrong[:20]) > 0.35 and np.mean(wrong[-50:]) < 0.15


def test_a_shifted_pair_of_another_contrast_is_registered(taught, contrasts):
    plan, store, network, before, _ = taught
    configuration = plan.configurations["pairs"]
    fixed, moving = (store.array(case.id, "image") for case in contrasts[5].cases)
    inner = (slice(None), 0, slice(10, -10), slice(10, -10))

    def errors(networks):
        steps = frame_steps(networks, fixed, moving, configuration, Context())[inner]
        return float(np.linalg.norm(steps - np.array([0, -2.0, 0])[:, None, None], axis=0).mean())

    trained = errors([network.eval()])
    assert trained < 0.8  # voxels; 2 before
    fresh = TASK.build_network(configuration)
    fresh.load_state_dict(before)
    assert errors([fresh]) > 2 * trained


def test_likeness_is_the_mean_over_classifiers(taught, contrasts):
    plan, store, network, before, _ = taught
    other = TASK.build_network(plan.configurations["pairs"])
    other.load_state_dict(before)
    pair = [torch.from_numpy(store.array(case.id, "image")) for case in contrasts[0].cases]
    one, two, both = (float(similarity_of(plan.configurations["pairs"], networks)(*pair))
                      for networks in ([network], [other], [network, other]))
    assert abs(one - two) > 0.02 and both == pytest.approx((one + two) / 2, rel=1e-5)


def test_a_plan_of_patches_optimises_pairs_on_levels_where_a_patch_has_room(contrasts, taught):
    plan, *_ = taught
    configuration = plan.configurations["pairs"]
    assert unexplained_values(plan) == [] and configuration.task_values["method"] == "pair"
    assert configuration.network.similarity.patch == (17, 17) and configuration.start is None
    assert configuration.predicted_peak_bytes == 10**9 and configuration.predicted_seconds is None
    dataset = spec(similarity="patches", pairs="within_patient", use_labels=False)
    default, timed = (planned(contrasts[0], dataset, minutes).configurations["pairs"] for minutes in (None, 10))
    assert default.optimization.iterations == recipes.PATCH_ITERATIONS
    assert [level[0] for level in default.task_values["pair_levels"]] == [2, 1]  # 56 / 4 voxels are fewer than 1.5 x 17
    assert timed.optimization.iterations == 1200 and timed.predicted_seconds.training == 600  # half a second a step by the probe


def test_blank_patches_are_as_drawn_ones_and_thick_slices_are_seen_one_by_one(pair):
    dataset = spec(similarity="patches", pairs="within_patient", use_labels=False)
    plan = planned(pair, dataset)
    configuration = plan.configurations["pairs"]
    assert configuration.network.similarity.patch == (1, 17, 17)  # 16 x 20 x 24 voxels
    batch = draw_batch([pair], stored([pair], dataset, plan), configuration, np.random.default_rng(0))
    blank = TASK.blank_batch(configuration)
    assert {name: (value.shape, value.dtype) for name, value in batch.items() if name != "cases"} == {
        name: (value.shape, value.dtype) for name, value in blank.items()}
    assert batch["cases"] == ["moving to fixed"] * recipes.PATCH_COUNT


def test_pairs_that_do_not_lie_on_each_other_teach_nothing(tmp_path):
    apart = shifted_pair(tmp_path, origin=(500.0, 0.0, 0.0))
    with pytest.raises(DatasetError, match=r"of 2 pairs that were looked at the images do not overlap in the world") as error:
        planned(apart, spec(similarity="patches", pairs="table"))
    assert error.value.code == "E_NOT_ALIGNED"


# features


def test_features_of_both_images_are_compared_and_their_weights_stay(pair, tmp_path):
    start = starting(tmp_path, UNET)
    dataset = spec(similarity="features", use_labels=False)
    plan = planned(pair, dataset, start=start)
    configuration = plan.configurations["pairs"]
    assert unexplained_values(plan) == [] and configuration.start.into == "similarity."
    assert configuration.network.similarity.features == (4, 6, 8) and configuration.loss.terms["smoothness"] == 2.0
    assert from_plain(to_plain(plan), type(plan), source="test") == plan
    network = TASK.build_network(configuration)
    load_start(tmp_path / start.weights, network, configuration.start)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    batch = draw_batch([pair], stored([pair], dataset, plan), configuration, np.random.default_rng(0))
    stepper = Stepper(network, TASK.phases(configuration), configuration.optimization, device="cpu")
    stepper.train()
    losses = stepper.step(0, batch)
    expected = feature_loss(network.similarity, batch["fixed"], batch["moving"])  # a fresh registrar moves nothing
    assert losses["similarity"] == pytest.approx(float(expected), abs=1e-3)
    moved = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved and not any(name.startswith("similarity.") for name in moved)


def test_a_plan_without_a_learned_similarity_is_written_as_before(pair):
    network = planned(pair, spec()).configurations["pairs"].network
    assert "similarity" not in to_plain(network)


def test_a_start_asks_for_features_and_what_does_not_fit_it_is_refused(pair, tmp_path):
    start = starting(tmp_path, UNET)
    assert planned(pair, spec(), start=start).configurations["pairs"].task_values["similarity"] == "features"
    dense = Classifier("resnet", 3, 1, 2, (8, 8), ((1, 1, 1),) * 2, ((3, 3, 3),) * 2, (1, 1))
    ct = (InputPlan("image", (Normalization("ct"),)),)
    for change, message in (({"network": FLAT}, "2 dimensions, and these images need one of 3"),
                            ({"network": replace(UNET, in_channels=2)}, "reads 2 channel.s., and these images have 1"),
                            ({"network": dense}, "a network of kind 'resnet'; features are compared of the encoder"),
                            ({"inputs": ct}, "normalises its channels by ct, and this plan by zscore")):
        with pytest.raises(UsageError, match=message):
            planned(pair, spec(similarity="features"), start=replace(start, **change))
    for options, message in (({"similarity": "lncc"}, "'similarity: lncc' takes none"),
                             ({"method": "implicit"}, "single points")):
        with pytest.raises(UsageError, match=message):
            planned(pair, spec(**options), start=start)


@pytest.mark.parametrize(("options", "message"), [
    ({"similarity": "features"}, "no network was given"),
    ({"similarity": "patches", "method": "network", "pairs": "table"}, "'method: network' would have to train a registration"),
    ({"similarity": "patches", "pairs": "cohort"}, "'pairs: cohort' brings patients together")])
def test_options_that_do_not_go_together_are_refused(pair, options, message):
    with pytest.raises(UsageError, match=message):
        planned(pair, spec(**options))


def test_a_frame_without_room_for_a_patch_along_two_axes_is_refused(pair):
    design = type("Design", (), {"dims": 3, "channels": 1})
    with pytest.raises(DatasetError, match="the images have 16 x 12 x 20 voxels"):
        learned.similarity_network(design, (16, 12, 20), "patches")


def test_a_pair_is_as_fine_as_its_features_allow():
    assert learned.pair_voxels(None, "cpu", 10**9) == 2**20
    encoder = replace(planned_encoder(), features=(32, 64, 128), blocks=(2, 2, 2))
    assert learned.features_per_voxel(encoder) == 2 * 32 + 2 * 64 / 8 + 2 * 128 / 64
    assert learned.pair_voxels(encoder, "cpu", 10**12) == 2**23 // 84
    assert learned.pair_voxels(encoder, "cpu", 10**8) == int(10**8 / (400 + 20 * 84))


def planned_encoder():
    from autoseg.core.networks import SimilarityNetwork

    return SimilarityNetwork("plain_encoder", 3, 1, (4, 6, 8), ((1,) * 3, (2,) * 3, (2,) * 3), ((3,) * 3,) * 3, (1, 1, 1))


# from a folder to predictions


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four patients with two slices each, moved against each other."""
    folder = tmp_path_factory.mktemp("flat")
    before, options = "method: network, refine_iterations: 3}", "method: pair, similarity: features}"
    assert before in SPECS["registration"]
    folder.joinpath("spec.yaml").write_text(SPECS["registration"].replace(before, options))
    for number in range(8):
        part = blobs((8, 44, 40), seed=number // 2)[3:4, 4 + number % 2:36 + number % 2, 4:36]
        found = image(part)
        write_volume(folder / "images" / f"p{number // 2}_scan{number}.nii.gz", found.voxels, found)
        write_label_map(folder / "labels" / f"p{number // 2}_scan{number}.nii.gz", np.where(part > 0.7, 7, 3), found)
    return folder


@pytest.fixture
def few_steps(monkeypatch):
    monkeypatch.setattr(recipes, "PAIR_LEVELS", ((2, 4, 10), (1, 2, 10)))
    monkeypatch.setattr(recipes, "PAIR_AFFINE", None)


def test_the_weights_of_another_model_go_with_the_bundle_and_decide_its_answer(folder, few_steps, monkeypatch, tmp_path):
    workspace, start = open_toy("registration", folder, tmp_path / "home"), starting(tmp_path, FLAT)
    monkeypatch.setattr(pipeline, "starting_from", lambda *_: (start, tmp_path / start.weights))
    plan = pipeline.plan(workspace, Budget("cpu", 4 * 2**30), PlanRequest("flat"), executor=None, start=tmp_path)
    pipeline.preprocess(workspace, plan, (), executor=None)
    pipeline.train(workspace, plan, "pairs", "0", device="cpu", workers=0, should_stop=lambda: False)
    pipeline.select(workspace, plan)
    bundle = workspace.layout.bundle(plan.name)
    [member] = read_bundle(bundle).members
    held, given = load_file(bundle / member.weights), load_file(tmp_path / start.weights)
    copied = [name for name in held if name.startswith("similarity.")]
    assert len(copied) == 12 and all(torch.equal(held[name], given[name.removeprefix("similarity.")]) for name in copied)
    predictor = pipeline.load_predictor(bundle, Context(), trusted_task=None)
    inputs = read_inputs(workspace.units[0], workspace.spec)
    found = predictor.predict(inputs).displacement
    assert np.abs(found).max() > 0.2  # mm
    for parameter in predictor._networks[0].parameters():
        parameter.data.zero_()  # without features nothing is alike, and nothing moves
    assert np.abs(predictor.predict(inputs).displacement).max() < 1e-4


def test_one_pair_is_registered_by_the_features_of_a_bundle(folder, few_steps, monkeypatch, tmp_path, capsys):
    files = [str(folder / "images" / f"p0_scan{number}.nii.gz") for number in (0, 1)]
    asked = ["register", "--fixed", files[0], "--moving", files[1], "--channel", "MRI", "--memory", "1GB", "--device", "cpu"]
    start = starting(tmp_path, FLAT, empty=True)
    monkeypatch.setattr(pipeline, "starting_from", lambda *_: (start, tmp_path / start.weights))
    assert command([*asked, "-o", str(tmp_path / "out"), "--start", str(tmp_path)]) == 0
    assert ["pair.agreement", "-"] in [line.split() for line in capsys.readouterr().out.splitlines()]  # nothing to compare with
    assert np.abs(read_displacement(tmp_path / "out" / "p0_scan1_to_p0_scan0.nii.gz")[0]).max() < 1e-4
    for similarity in ("patches", "features"):
        assert command([*asked, "-o", str(tmp_path / "refused"), "--similarity", similarity]) == 2
