from __future__ import annotations

import weakref
from dataclasses import replace

import pytest
import torch
from torch import nn

from autoseg.core.plan import (
    Augmentation,
    Configuration,
    Inference,
    Loss,
    Network,
    Optimization,
    Resampling,
)
from autoseg.core.task import Phase
from autoseg.tasks import load_task
from autoseg.training.device import MAPPED_BYTES
from autoseg.training.memory import (
    OPENVINO_BYTES,
    OPENVINO_WEIGHTS,
    PREDICTING_BYTES,
    LiveBytes,
    cpu_workspace,
    cuda_workspace,
    predict_peaks,
    run_forward,
    run_step,
)
from autoseg.training.step import Stepper, autocast

SEGMENTATION = load_task("segmentation")
NETWORK = Network("plain_unet", 3, 1, 3, (4, 8), ((1, 1, 1), (2, 2, 2)), ((3, 3, 3),) * 2, (2, 2), (2,), True)
CONFIGURATION = Configuration(
    "3d_fullres", (1.0, 1.0, 1.0), (30.0, 20.0, 20.0), (12, 8, 10), 2, Resampling(), NETWORK,
    Loss({"dice": 1.0, "cross_entropy": 1.0}), Augmentation(),
    Optimization("adamw", 1e-3, 1e-2, iterations=2, iterations_per_epoch=1, ema_decay=0.9), Inference(0.5, 0.125, 3, (), False))


def of(**changes):
    return replace(CONFIGURATION, optimization=replace(CONFIGURATION.optimization, **changes))


def real_step(configuration, watch):
    """The same steps with content."""
    with watch:
        batch = SEGMENTATION.blank_batch(configuration)
        stepper = Stepper(SEGMENTATION.build_network(configuration), SEGMENTATION.phases(configuration),
                          configuration.optimization, device="cpu")
        stepper.network.train()
        for iteration in range(2):
            stepper.step(iteration, batch)
        return stepper


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "muon"])
@pytest.mark.parametrize("memory_format", ["contiguous", "channels_last"])
def test_a_fake_step_takes_what_a_real_one_takes_to_the_byte(optimizer, memory_format):
    configuration = of(optimizer=optimizer, memory_format=memory_format)
    fake, real = LiveBytes(), LiveBytes()
    run_step(SEGMENTATION, configuration, fake)
    real_step(configuration, real)
    assert fake.peak == real.peak > 10**5


@pytest.mark.parametrize("memory_format", ["contiguous", "channels_last"])
def test_a_fake_step_in_bf16_differs_by_the_statistics_of_norms_only(memory_format):
    """Real kernels keep mean and deviation of a channel in 32 bits, fake ones in 16."""
    configuration = of(precision="bf16", memory_format=memory_format)
    fake, real = LiveBytes(), LiveBytes()
    run_step(SEGMENTATION, configuration, fake)
    real_step(configuration, real)
    assert 0 < real.peak - fake.peak < 0.001 * real.peak


def test_residual_networks_are_followed_too():
    configuration = replace(CONFIGURATION, network=replace(NETWORK, kind="residual_unet", convs_encoder=(1, 1)))
    fake, real = LiveBytes(), LiveBytes()
    run_step(SEGMENTATION, configuration, fake)
    real_step(configuration, real)
    assert fake.peak == real.peak


@pytest.mark.parametrize(("optimizer", "moments"), [("sgd", 1), ("adamw", 2)])
def test_between_steps_weights_state_average_and_gradients_are_there(optimizer, moments):
    """Parameters, gradients, the average and the optimiser's moments, in 4 bytes; AdamW counts each tensor's steps."""
    watch = LiveBytes()
    stepper = real_step(of(optimizer=optimizer), watch)
    parameters = list(stepper.network.parameters())
    counters = 4 * len(parameters) if optimizer == "adamw" else 0
    weights = sum(p.numel() for p in parameters)
    assert watch.live == 4 * weights * (3 + moments) + counters


def test_saved_tensors_are_part_of_what_is_live_before_the_backward_pass():
    """A second way to count: autograd's own hooks see every tensor that is saved."""
    network = SEGMENTATION.build_network(CONFIGURATION).train()
    batch = SEGMENTATION.blank_batch(CONFIGURATION)
    outside = {p.untyped_storage()._cdata for p in network.parameters()} | {
        t.untyped_storage()._cdata for t in batch.values()}
    saved = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in outside:
            saved[storage._cdata] = storage.nbytes()
        return tensor

    watch = LiveBytes()
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor), watch:
        losses = SEGMENTATION.phases(CONFIGURATION)[0].step(network, batch)
    alive = sum(saved.values())
    returned = sum(loss.untyped_storage().nbytes() for loss in losses.values())
    assert 0.9 * watch.live <= alive <= watch.live + returned


def test_a_chain_of_products_is_counted_by_hand():
    watch = LiveBytes()
    with watch:
        first = torch.zeros(1000)          # 4000
        second = first * 2                 # 8000
        third = second.view(10, 100)       # no memory of its own
        del first                          # 4000
        fourth = third.to(torch.float64)   # 12000
        del second, third                  # 8000
    assert (watch.peak, watch.live) == (12_000, 8_000)
    del fourth
    assert watch.live == 0


def test_small_blocks_stay_with_the_process():
    watch = LiveBytes(kept_below=1000)
    with watch:
        small = torch.zeros(200)    # 800 bytes of heap
        del small
        large = torch.zeros(1000)   # beside the heap that is still there
        again = torch.zeros(100)    # fits into the heap
    assert (watch.live, watch.held, watch.peak) == (4400, 4800, 4800)
    del large, again


def test_the_forward_peak_has_the_windows_of_the_plan():
    few, many = LiveBytes(), LiveBytes()
    run_forward(SEGMENTATION, CONFIGURATION, few)
    larger = replace(CONFIGURATION, inference=replace(CONFIGURATION.inference, tiles_per_batch=6))
    run_forward(SEGMENTATION, larger, many)
    training = LiveBytes()
    run_step(SEGMENTATION, CONFIGURATION, training)
    weights = 4 * sum(p.numel() for p in SEGMENTATION.build_network(CONFIGURATION).parameters())
    assert many.peak - weights == pytest.approx(2 * (few.peak - weights), rel=0.02)
    assert few.peak < training.peak


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_forward_peak_is_that_of_a_real_pass_but_for_the_statistics_of_norms(precision):
    fake, real = LiveBytes(), LiveBytes()
    run_forward(SEGMENTATION, predicting_in(precision), fake)
    with torch.inference_mode(), autocast("cpu", precision), real:
        network = SEGMENTATION.build_network(CONFIGURATION).eval()
        batch = SEGMENTATION.blank_batch(replace(CONFIGURATION, batch_size=3))
        real.restart()
        network(batch["image"])
    assert fake.peak == pytest.approx(real.peak, rel=0.001)


def test_workspaces_of_a_contiguous_convolution_by_hand():
    image, weight = torch.zeros(2, 12, 6, 5, 4), torch.zeros(20, 12, 3, 3, 3)
    result = torch.zeros(2, 20, 6, 5, 4)
    call = torch.ops.aten.convolution.default
    # blocks of 8: 16 channels of the image, 16 of each weight, 24 of the result; 240 voxels in two samples
    assert cpu_workspace(call, (image, weight), result, 1) == 4 * (16 * 240 + 20 * 16 * 27 + 24 * 240)
    layout = torch.channels_last_3d
    turned = image.to(memory_format=layout), weight.to(memory_format=layout)
    assert cpu_workspace(call, turned, result.to(memory_format=layout), 1) == 4 * max(20 * 16 * 27, 20 * 240)
    assert cuda_workspace(call, (image, weight), result) == 4 * (12 * 240 + 20 * 12 * 27 + 2 * 20 * 240)


def test_one_small_image_is_unfolded_whole():
    """Measured of torch 2.13: a network of 8 features took 113 MB more for one window of 32 x 64 x 64 than for two together."""
    image, weight = torch.zeros(1, 12, 6, 5, 4), torch.zeros(20, 12, 3, 3, 3)
    call = torch.ops.aten.convolution.default
    assert cpu_workspace(call, (image, weight), torch.zeros(1, 20, 6, 5, 4), 1) == 4 * 12 * 27 * 120
    assert cpu_workspace(call, (image, torch.zeros(20, 12, 1, 1, 1)), torch.zeros(1, 20, 6, 5, 4), 1) == 0
    up = (image, torch.zeros(12, 5, 2, 2, 2), None, [2] * 3, [0] * 3, [1] * 3, True)
    assert cpu_workspace(call, up, torch.zeros(1, 5, 12, 10, 8), 1) == 4 * 5 * 8 * 120
    large = torch.zeros(1, 12, 6, 500, 4)
    assert cpu_workspace(call, (large, weight), torch.zeros(1, 20, 6, 500, 4), 1) < 4 * 12 * 27 * 12_000


@pytest.mark.parametrize(("precision", "share"), [("fp32", 1), ("bf16", 0.5)])
def test_prediction_is_the_most_of_loading_both_engines_and_the_last_window_alone(precision, share):
    """OpenVINO keeps its weights in the precision of prediction."""
    weights = 4 * sum(p.numel() for p in SEGMENTATION.build_network(CONFIGURATION).parameters())
    batch, alone = watch(), watch()
    run_forward(SEGMENTATION, predicting_in(precision), batch)
    run_forward(SEGMENTATION, predicting_in(precision, windows=1), alone)
    assert alone.peak_of_tensors < alone.peak
    _, few = predict_peaks(SEGMENTATION, predicting_in(precision), target="cpu")
    _, many = predict_peaks(SEGMENTATION, predicting_in(precision, windows=2000), target="cpu")
    _, cuda = predict_peaks(SEGMENTATION, predicting_in(precision), target="cuda")
    openvino = alone.peak_of_tensors + int(OPENVINO_WEIGHTS * share * weights) + OPENVINO_BYTES
    assert few == PREDICTING_BYTES["cpu"] + max(3 * weights, batch.peak, alone.peak, openvino)
    assert many > few > cuda


def watch():
    return LiveBytes(kept_below=MAPPED_BYTES, workspace=lambda func, args, result: cpu_workspace(func, args, result, 1))


def predicting_in(precision, windows=3):
    return replace(CONFIGURATION, inference=replace(CONFIGURATION.inference, precision=precision, tiles_per_batch=windows))


def test_every_thread_unfolds_a_plane_for_itself():
    image, weight = torch.zeros(2, 12, 6, 50, 40), torch.zeros(20, 12, 3, 3, 3)
    gradient = torch.zeros(2, 20, 6, 50, 40)
    made = torch.zeros_like(image), torch.zeros_like(weight), None
    call = torch.ops.aten.convolution_backward.default
    one, two = (cpu_workspace(call, (gradient, image, weight), made, threads) for threads in (4, 5))
    assert two - one == 4 * (12 * 27 * 50 * 40 + 20 * 12 * 27)


def test_half_precision_takes_less_and_the_process_is_counted_on_a_cpu_only():
    full, _ = predict_peaks(SEGMENTATION, of(precision="fp32"), target="cuda")
    half, _ = predict_peaks(SEGMENTATION, of(precision="fp16"), target="cuda")
    on_cpu, _ = predict_peaks(SEGMENTATION, of(precision="fp32"), target="cpu")
    assert half < full < 10**8 < on_cpu


def test_prediction_leaves_nothing_behind():
    """Neither modes nor tensors with content."""
    predict_peaks(SEGMENTATION, CONFIGURATION, target="cpu")
    assert torch.zeros(2).sum().item() == 0.0


def test_a_task_of_two_phases_is_followed():
    def build(configuration):
        return nn.Linear(100, 100, bias=False)

    phase = Phase("one", lambda network: network.parameters(), lambda network, batch: {"total": network(batch["x"]).sum()})
    task = replace(SEGMENTATION, build_network=build, phases=lambda configuration: (phase, replace(phase, name="two")),
                   blank_batch=lambda configuration: {"x": torch.zeros(1, 100)})
    watch = LiveBytes()
    run_step(task, of(optimizer="sgd", ema_decay=None), watch)
    # weight, gradient and one momentum for each of two optimisers
    assert 4 * 10_000 * 4 <= watch.peak < 4 * 10_000 * 5


def test_weak_references_of_tracked_storages_do_not_keep_them():
    watch = LiveBytes()
    with watch:
        tensor = torch.zeros(10)
    alive = weakref.ref(tensor)
    del tensor
    assert alive() is None and watch.live == 0
