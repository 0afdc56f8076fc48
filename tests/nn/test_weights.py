from __future__ import annotations

import pytest
import torch
from torch import nn

from autoseg.core.errors import IncompatibleError, ReadError
from autoseg.nn.weights import load_weights, save_weights


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
