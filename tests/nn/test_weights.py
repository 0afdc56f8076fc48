from __future__ import annotations

import pytest
import torch
from torch import nn

from autoseg.core.errors import IncompatibleError, ReadError, UnsafeError
from autoseg.core.networks import Start
from autoseg.nn.weights import load_start, load_weights, save_weights


def test_weights_come_back_bit_equal_whatever_the_memory_format(tmp_path):
    written = nn.Conv3d(2, 3, (1, 2, 3)).to(memory_format=torch.channels_last_3d)
    save_weights(tmp_path / "a.safetensors", written)
    read = nn.Conv3d(2, 3, (1, 2, 3))

    load_weights(tmp_path / "a.safetensors", read)

    assert torch.equal(read.weight, written.weight) and torch.equal(read.bias, written.bias)
    assert read.weight.is_contiguous()


def test_weights_of_another_network_are_refused_and_the_first_difference_is_named(tmp_path):
    save_weights(tmp_path / "a.safetensors", nn.Linear(2, 3))

    with pytest.raises(IncompatibleError, match=r"'bias' with shape \(3,\) and type F32 in the file and shape \(4,\)"):
        load_weights(tmp_path / "a.safetensors", nn.Linear(2, 4))


@pytest.mark.parametrize("content", [b"", b"not safetensors", None])
def test_missing_or_torn_file_is_a_read_error_naming_it(tmp_path, content):
    path = tmp_path / "a.safetensors"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(ReadError, match="a.safetensors"):
        load_weights(path, nn.Linear(2, 4))


def encoder_and_head(width):
    torch.manual_seed(width)
    return nn.ModuleDict({"encoder": nn.Linear(2, 3), "head": nn.Linear(3, width)})


def test_a_start_takes_the_parts_that_are_named_and_leaves_the_rest(tmp_path):
    given, network = encoder_and_head(4), encoder_and_head(5)
    save_weights(tmp_path / "a.safetensors", given)
    head = network["head"].weight.detach().clone()
    taken = load_start(tmp_path / "a.safetensors", network, Start("a.safetensors", "", ("encoder.", "decoder.")))
    assert taken == ["encoder.bias", "encoder.weight"]
    assert torch.equal(network["encoder"].weight, given["encoder"].weight) and torch.equal(network["head"].weight, head)


@pytest.mark.parametrize(("parts", "words"), [(("head.",), r"'head.bias' has shape \(4,\).*shape \(5,\) in the network"),
                                              (("body.", "neck."), "none of its tensors begins with body. or neck.")])
def test_a_start_that_does_not_fit_is_refused_before_anything_is_taken(tmp_path, parts, words):
    given, network = encoder_and_head(4), encoder_and_head(5)
    save_weights(tmp_path / "a.safetensors", given)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(IncompatibleError, match=words):
        load_start(tmp_path / "a.safetensors", network, Start("a.safetensors", "", parts))
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_a_start_that_is_not_finite_is_refused(tmp_path):
    given = encoder_and_head(4)
    with torch.no_grad():
        given["head"].weight[0, 0] = float("nan")
    save_weights(tmp_path / "a.safetensors", given)
    with pytest.raises(UnsafeError, match="not finite"):
        load_start(tmp_path / "a.safetensors", encoder_and_head(4), Start("a.safetensors", "", ("encoder.",)))
