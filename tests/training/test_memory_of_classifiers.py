"""The memory of classifiers is followed on tensors without content as that of U-Nets is."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import accumulate
from types import SimpleNamespace

import pytest
import torch
from nn.classifiers import KINDS, needs_monai, small

from autoseg.core.plan import Augmentation, Configuration, Inference, Loss, Optimization, Resampling
from autoseg.core.task import Phase
from autoseg.losses.softmax import softmax_cross_entropy
from autoseg.nn.build import build_network
from autoseg.training.memory import LiveBytes, cpu_workspace, predict_peaks, run_forward, run_step
from autoseg.training.step import Stepper


def step(network, batch):
    return {"total": softmax_cross_entropy(network(batch["image"]), batch["class"], None)}


def blank_batch(configuration):
    network = configuration.network
    shape = configuration.patch_size[0 if network.slices else 3 - network.dims:]
    return {"image": torch.zeros(configuration.batch_size, network.in_channels, *shape),
            "class": torch.zeros(configuration.batch_size, dtype=torch.int64)}


# The slots of a task that memory is predicted with.
TASK = SimpleNamespace(build_network=lambda configuration: build_network(configuration.network), blank_batch=blank_batch,
                       phases=lambda configuration: (Phase("train", lambda network: network.parameters(), step),))


def planned(network, patch_size, **changes):
    optimization = {"optimizer": "muon", "learning_rate": 1e-3, "weight_decay": 1e-2, "iterations": 2,
                    "iterations_per_epoch": 1, "ema_decay": 0.9} | changes
    return Configuration("whole", (1.0, 1.0, 1.0), (30.0, 20.0, 20.0), patch_size, 4, Resampling(), network, Loss({"ce": 1.0}),
                         Augmentation(), Optimization(**optimization), Inference(0.5, 0.125, 3, (), False))


def real_step(configuration, watch):
    """The same steps with content."""
    with watch:
        batch = TASK.blank_batch(configuration)
        stepper = Stepper(TASK.build_network(configuration), TASK.phases(configuration), configuration.optimization, device="cpu")
        stepper.network.train()
        for iteration in range(2):
            stepper.step(iteration, batch)


@pytest.mark.parametrize(("network", "patch_size"), [
    (small("densenet"), (1, 32, 32)), (small("densenet", 3, attention="cbam"), (16, 16, 16)),
    (small("resnet", norm="group", pooling="log_sum_exp"), (1, 32, 32)),
    (small("bottleneck", 3, norm="instance", attention="squeeze_excitation"), (8, 16, 16)),
    (small("inception", pooling="attention"), (1, 32, 32)), pytest.param(small("vit", 3), (16, 16, 16), marks=needs_monai),
    (small("residual_encoder", 3), (8, 16, 16)), (small("resnet", slices=True, pooling="attention"), (5, 16, 16)),
], ids=lambda value: value.kind if hasattr(value, "kind") else "x".join(map(str, value)))
def test_a_fake_step_takes_what_a_real_one_takes_to_the_byte(network, patch_size):
    configuration = planned(network, patch_size, memory_format="channels_last")
    fake, real = LiveBytes(), LiveBytes()
    run_step(TASK, configuration, fake)
    real_step(configuration, real)
    assert fake.peak == real.peak > 10**5


@needs_monai
def test_attention_in_two_dimensions_is_predicted_a_little_dearer_than_it_is():
    """Torch's real kernel returns its result turned, so that it needs no copy; the fake one does not."""
    configuration = planned(small("vit"), (1, 32, 32))
    fake, real = LiveBytes(), LiveBytes()
    run_step(TASK, configuration, fake)
    real_step(configuration, real)
    assert real.peak <= fake.peak <= 1.02 * real.peak


@pytest.mark.parametrize("recurrence", ["gru", "lstm"])
def test_recurrent_pooling_is_followed(recurrence):
    configuration = planned(small("resnet", slices=True, pooling="recurrent", recurrence=recurrence), (5, 16, 16))
    fake, real = LiveBytes(), LiveBytes()
    run_step(TASK, configuration, fake)
    real_step(configuration, real)
    assert fake.peak == pytest.approx(real.peak, rel=0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_the_forward_peak_is_that_of_a_real_pass(kind):
    configuration = planned(small(kind), (1, 32, 32))
    fake, real = LiveBytes(), LiveBytes()
    run_forward(TASK, configuration, fake)
    with torch.no_grad(), real:
        network = TASK.build_network(configuration).eval()
        batch = TASK.blank_batch(replace(configuration, batch_size=3))
        real.restart()
        network(batch["image"])
    assert fake.peak == pytest.approx(real.peak, rel=0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_networks_run_on_the_meta_device(kind):
    with torch.device("meta"):
        network = build_network(small(kind, attention="cbam", pooling="attention"))
        assert network(torch.zeros(4, 1, 32, 32)).shape == (4, 3)


def test_both_peaks_are_predicted():
    training, inference = predict_peaks(TASK, planned(small("densenet"), (1, 64, 64)), target="cuda")
    assert 10**5 < inference < training


def allocated(run, folder):
    """Most bytes that torch's allocator gave out at once during `run`, beyond what it had given before, by torch's profiler."""
    with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        run()
    profile.export_chrome_trace(str(folder / "trace.json"))
    events = json.loads((folder / "trace.json").read_text())["traceEvents"]
    changes = [event["args"]["Bytes"] for event in sorted((e for e in events if e["name"] == "[memory]"), key=lambda e: e["ts"])]
    return max(accumulate(changes))


@pytest.mark.parametrize("turned", [True, False])
@pytest.mark.parametrize("shape", [(2, 16, 12, 10, 8), (2, 16, 24, 20)])
def test_max_pooling_copies_what_is_laid_out_unlike_the_gradient(shape, turned, tmp_path):
    """In a network of channels-last kernels the gradient of a pool is channels-last though its image, of one channel once, is
    not: torch then copies gradient and places of the maxima inside, which no dispatch shows."""
    dims = len(shape) - 2
    image = torch.rand(shape)
    pool, backward = ((torch.ops.aten.max_pool2d_with_indices, torch.ops.aten.max_pool2d_with_indices_backward) if dims == 2 else
                      (torch.ops.aten.max_pool3d_with_indices, torch.ops.aten.max_pool3d_with_indices_backward))
    numbers = ([3] * dims, [2] * dims, [1] * dims, [1] * dims, False)
    result, places = pool(image, *numbers)
    gradient = torch.ones_like(result)
    if turned:
        gradient = gradient.contiguous(memory_format=torch.channels_last if dims == 2 else torch.channels_last_3d)
    arguments = (gradient, image, *numbers, places)
    made = []
    measured = allocated(lambda: made.append(backward(*arguments)), tmp_path)
    of_image, of_places = image.numel() * 4, places.numel() * 8
    assert cpu_workspace(backward.default, arguments, made[0], 1) == measured == of_image + turned * (of_image + of_places)
