from __future__ import annotations

import logging
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch
from nn.classifiers import KINDS, built, small
from torch import nn

from autoseg.core.errors import IncompatibleError, UsageError
from autoseg.core.plan import Inference, Network
from autoseg.inference import engine
from autoseg.inference.averaging import averaged
from autoseg.inference.engine import OpenVinoNetwork, forward_of, in_use, usable_precision
from autoseg.inference.mirroring import mirrored
from autoseg.nn.build import build_network

RULES = Inference(0.5, 0.125, 3, (0, 1, 2), True)
needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="OpenVINO is not installed: pip install 'autoseg[cpu]'")


def network(kind="plain_unet", dims=3, seed=0):
    """A small U-Net with two channels and three outputs; an anisotropic first stride in 3-D."""
    strides = ((1,) * dims, (1,) * (dims - 2) + (2, 2), (2,) * dims)
    described = Network(kind, dims, 2, 3, (8, 16, 24), strides, ((3,) * dims,) * 3, (2, 2, 2), (1, 1), True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_network(described)


def windows(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(7))


def logits(module, rules, batch):
    with torch.inference_mode():
        return forward_of(module, rules, "cpu")(batch)


@needs_openvino
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("kind", ["plain_unet", "residual_unet"])
@pytest.mark.parametrize(("dims", "shape"), [(3, (3, 2, 6, 20, 12)), (2, (3, 2, 20, 28))])
def test_openvino_gives_the_numbers_of_torch(kind, dims, shape, layout):
    rules, batch = replace(RULES, memory_format=layout), windows(*shape)
    expected = logits(in_use(network(kind, dims), rules, "cpu", "torch"), rules, batch)
    found = logits(in_use(network(kind, dims), rules, "cpu", "openvino"), rules, batch)
    assert found.dtype == torch.float32 and found.shape == expected.shape
    assert (found - expected).abs().max() < 1e-4 < expected.abs().max()
    assert (found.argmax(1) == expected.argmax(1)).float().mean() > 0.9999


@needs_openvino
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("dims", "shape"), [(2, (3, 1, 16, 32)), (3, (3, 1, 16, 8, 24))])
def test_openvino_gives_the_vectors_of_torch(kind, dims, shape):
    described, batch = small(kind, dims, attention="cbam", pooling="attention"), windows(*shape)
    expected = logits(in_use(built(described), RULES, "cpu", "torch"), RULES, batch)
    found = logits(in_use(built(described), RULES, "cpu", "openvino"), RULES, batch)
    assert found.dtype == torch.float32 and found.shape == expected.shape == (3, 3)
    assert (found - expected).abs().max() < 1e-3 * expected.std(0).max()


@needs_openvino
@pytest.mark.parametrize(("pooling", "recurrence"), [("log_sum_exp", "gru"), ("recurrent", "gru"), ("recurrent", "lstm")])
def test_openvino_gives_the_vectors_of_networks_over_slices(pooling, recurrence):
    described = small("resnet", slices=True, pooling=pooling, recurrence=recurrence, attention="squeeze_excitation")
    batch = windows(2, 1, 5, 16, 24)
    expected = logits(in_use(built(described), RULES, "cpu", "torch"), RULES, batch)
    found = logits(in_use(built(described), RULES, "cpu", "openvino"), RULES, batch)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@needs_openvino
def test_batches_of_any_size_give_the_numbers_of_single_windows():
    module, batch = in_use(network(), RULES, "cpu", "openvino"), windows(3, 2, 4, 12, 8)
    together = logits(module, RULES, batch)
    for place in range(3):
        assert torch.equal(logits(module, RULES, batch[place:place + 1])[0], together[place])
    assert torch.equal(logits(module, RULES, batch[:2]), together[:2])


@needs_openvino
def test_members_and_mirrorings_are_averaged_as_with_torch():
    batch, results = windows(2, 2, 4, 12, 8), []
    for name in ("torch", "openvino"):
        members = [forward_of(in_use(network(seed=seed), RULES, "cpu", name), RULES, "cpu") for seed in (0, 1)]
        with torch.inference_mode():
            results.append(mirrored(averaged(members), (0, 2))(batch))
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=1e-4)


@needs_openvino
def test_windows_of_another_shape_are_compiled_anew():
    module, reference = in_use(network(), RULES, "cpu", "openvino"), in_use(network(), RULES, "cpu", "torch")
    for shape in ((1, 2, 4, 12, 8), (1, 2, 8, 16, 12)):
        torch.testing.assert_close(logits(module, RULES, windows(*shape)), logits(reference, RULES, windows(*shape)),
                                   rtol=0, atol=1e-4)


@needs_openvino
def test_where_gradients_are_wanted_torch_runs_the_network():
    batch = windows(1, 2, 4, 12, 8).requires_grad_()
    in_use(network(), RULES, "cpu", "openvino")(batch).sum().backward()
    assert batch.grad is not None and batch.grad.abs().max() > 0


class Unconvertible(nn.Module):
    """Complex numbers in between, which OpenVINO does not take."""

    def forward(self, batch):
        return torch.linalg.eigvals(batch).abs()[..., None].expand_as(batch) + batch


class OneRow(nn.Module):
    """Neither of the window's size nor one vector."""

    def forward(self, batch):
        return batch.mean(2)


class TwoOutputs(nn.Module):
    def forward(self, batch):
        return batch, batch + 1


@needs_openvino
def test_a_network_that_does_not_convert_is_left_to_torch_with_a_warning(caplog):
    batch = windows(2, 1, 6, 6)
    with caplog.at_level(logging.WARNING):
        found = logits(in_use(Unconvertible(), RULES, "cpu"), RULES, batch)
    torch.testing.assert_close(found, Unconvertible()(batch))
    assert len(caplog.records) == 1 and "torch predicts instead" in caplog.text and "eig" in caplog.text


@needs_openvino
@pytest.mark.parametrize("module", [Unconvertible(), TwoOutputs(), OneRow()])
def test_a_network_that_does_not_convert_is_an_error_with_the_reason_where_openvino_was_asked_for(module):
    with pytest.raises(IncompatibleError, match="cannot run this network on windows of") as error:
        logits(in_use(module, RULES, "cpu", "openvino"), RULES, windows(2, 1, 6, 6))
    assert error.value.hint == "--engine torch runs every network"


def test_without_openvino_auto_is_torch_and_asking_for_it_is_an_error(monkeypatch):
    monkeypatch.setattr(engine, "find_spec", lambda name: None)
    module = network()
    assert in_use(module, RULES, "cpu") is module
    with pytest.raises(UsageError, match="not installed") as error:
        in_use(module, RULES, "cpu", "openvino")
    assert "autoseg[cpu]" in error.value.hint


def test_openvino_on_a_gpu_is_refused():
    with pytest.raises(UsageError, match="the device is cuda:0"):
        in_use(network(), RULES, "cuda:0", "openvino")


@needs_openvino
def test_auto_on_a_cpu_is_openvino():
    assert isinstance(in_use(network(), RULES, "cpu"), OpenVinoNetwork)


@pytest.mark.parametrize(("has_bf16", "precision", "expected"), [
    (True, "bf16", "bf16"), (False, "bf16", "fp32"), (True, "fp16", "fp32"), (False, "fp32", "fp32")])
def test_a_precision_is_used_only_where_the_processor_has_it(monkeypatch, has_bf16, precision, expected):
    monkeypatch.setattr("autoseg.training.device.cpu_supports_bf16", lambda: has_bf16)
    assert usable_precision(precision, "cpu") == expected


def test_a_plan_of_reduced_precision_predicts_in_fp32_on_a_processor_without_it(monkeypatch):
    monkeypatch.setattr("autoseg.training.device.cpu_supports_bf16", lambda: False)
    module, batch = in_use(network(), RULES, "cpu", "torch"), windows(1, 2, 4, 12, 8)
    assert torch.equal(logits(module, replace(RULES, precision="bf16"), batch), logits(module, RULES, batch))


@pytest.mark.parametrize("name", ["torch", pytest.param("openvino", marks=needs_openvino)])
def test_bf16_differs_from_fp32_by_its_rounding(monkeypatch, name):
    monkeypatch.setattr("autoseg.training.device.cpu_supports_bf16", lambda: True)
    batch, rules = windows(1, 2, 4, 12, 8), replace(RULES, precision="bf16")
    full = logits(in_use(network(), RULES, "cpu", name), RULES, batch)
    reduced = logits(in_use(network(), rules, "cpu", name), rules, batch)
    # bfloat16 has 8 significant bits; without hardware for it OpenVINO may go on in float32.
    assert (reduced - full).abs().max() < 0.05 * full.abs().max()
    assert name == "openvino" or not torch.equal(reduced, full)


WATCHED = """
import socket, subprocess, sys
def refuse(*arguments, **named):
    raise SystemExit(f"NETWORK OR PROCESS {arguments}")
socket.socket.connect = socket.getaddrinfo = socket.create_connection = subprocess.Popen.__init__ = refuse
import torch
from autoseg.core.plan import Inference, Network
from autoseg.inference.engine import OpenVinoNetwork, in_use
from autoseg.nn.build import build_network
described = Network("plain_unet", 2, 1, 2, (4, 8), ((1, 1), (2, 2)), ((3, 3),) * 2, (1, 1), (1,), False)
network = in_use(build_network(described), Inference(0.5, 0.125, 1, (), False), "cpu", "openvino")
with torch.inference_mode():
    assert network(torch.zeros(2, 1, 8, 12)).shape == (2, 2, 8, 12)
print("TELEMETRY", [name for name, module in sys.modules.items() if "openvino_telemetry" in name and module])
"""


@needs_openvino
def test_openvino_writes_nothing_into_the_home_folder_and_never_calls_home(tmp_path):
    import os

    home = tmp_path / "home"
    home.mkdir()
    environment = {**os.environ, "HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "TMPDIR": str(tmp_path)}
    finished = subprocess.run([sys.executable, "-c", WATCHED], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr + finished.stdout
    assert "TELEMETRY []" in finished.stdout
    assert list(home.iterdir()) == [] and [path.name for path in tmp_path.iterdir()] == ["home"]
