"""Safetensors files as an attacker would write them: refused before anything as large as they claim is allocated."""

from __future__ import annotations

import json
import struct
import tracemalloc

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from autoseg.core.errors import AutosegError, IncompatibleError, ReadError, UnsafeError
from autoseg.io.tensors import StoredTensor, stored_tensors
from autoseg.nn.weights import load_weights


def written(path, header, data=b""):
    """A file with this header (text or document) and data."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def entry(shape, begin, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def network():
    return nn.Linear(2, 3)


def test_a_sound_file_says_what_the_library_says(tmp_path):
    tensors = {"a": torch.zeros(2, 3), "empty": torch.zeros(0, 4), "one": torch.tensor(1.0), "whole": torch.arange(5)}
    save_file(tensors, tmp_path / "a.safetensors", metadata={"made": "here"})
    assert stored_tensors(tmp_path / "a.safetensors") == {
        "a": StoredTensor("F32", (2, 3)), "empty": StoredTensor("F32", (0, 4)), "one": StoredTensor("F32", ()),
        "whole": StoredTensor("I64", (5,))}


def test_a_header_whose_length_looks_like_the_beginning_of_a_pickle_is_read(tmp_path):
    text = json.dumps({"weight": entry([1], 0, 4)}).ljust(0x0280).encode()
    written(tmp_path / "a.safetensors", text, bytes(4))
    assert (tmp_path / "a.safetensors").read_bytes().startswith(b"\x80\x02")
    assert stored_tensors(tmp_path / "a.safetensors") == {"weight": StoredTensor("F32", (1,))}


HOSTILE = {
    "product of the shape overflows 64 bits": {"weight": entry([2**62, 2**62], 0, 4)},
    "shape larger than the file": {"weight": entry([10**12], 0, 4 * 10**12)},
    "negative size": {"weight": entry([-1, -4], 0, 16)},
    "size that is no whole number": {"weight": entry([2.0, 3], 0, 24)},
    "size that is a truth value": {"weight": entry([True, True], 0, 4)},
    "a thousand axes": {"weight": entry([1] * 1000, 0, 4)},
    "offsets before the data": {"weight": entry([2, 3], -24, 0)},
    "tensors that overlap": {"weight": entry([2, 3], 0, 24), "bias": entry([6], 0, 24)},
    "a gap": {"weight": entry([2], 0, 8), "bias": entry([2], 16, 24)},
    "bytes that belong to no tensor": {"weight": entry([2], 0, 8)},
    "unknown type": {"weight": entry([2, 3], 0, 24, "COMPLEX")},
    "type that is no text": {"weight": entry([2, 3], 0, 24, ["F32"])},
    "unknown key": {"weight": entry([2, 3], 0, 24) | {"__reduce__": "os.system"}},
    "entry that is a list": {"weight": [1, 2]},
    "header that is a list": [entry([2, 3], 0, 24)],
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_header_that_does_not_agree_with_the_file_is_refused(tmp_path, kind):
    with pytest.raises(UnsafeError) as error:
        load_weights(written(tmp_path / "a.safetensors", HOSTILE[kind], bytes(24)), network())
    assert error.value.code == "E_WEIGHTS" and error.value.exit_code == 8


@pytest.mark.parametrize("text", [b'{"a":', b'{"a":1,"a":2}', b"{" * 5000, b'{"\xff":1}', b'{"a":NaN}',
                                  b'{"a":' + b"9" * 5000 + b"}"])
def test_a_header_that_is_no_json_is_refused(tmp_path, text):
    with pytest.raises(ReadError, match="a.safetensors"):
        load_weights(written(tmp_path / "a.safetensors", text), network())


def peak_of(action):
    """Bytes that Python and numpy allocated at most while `action` was refused."""
    tracemalloc.start()
    try:
        with pytest.raises(AutosegError):
            action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_header_of_90_megabytes_is_not_read(tmp_path):
    path = tmp_path / "a.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 90 * 2**20) + b'{"a":"')
        file.truncate(91 * 2**20)
    assert peak_of(lambda: load_weights(path, network())) < 2**20


def test_a_header_with_a_million_entries_is_not_read(tmp_path):
    text = b"{" + b",".join(b'"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' % number for number in range(10**6)) + b"}"
    path = written(tmp_path / "a.safetensors", text)
    del text
    assert peak_of(lambda: load_weights(path, network())) < 2**20


def test_weights_of_a_gigabyte_that_no_tensor_of_the_network_needs_are_not_read(tmp_path):
    path = written(tmp_path / "a.safetensors", {"weight": entry([2**28], 0, 2**30)})
    with path.open("ab") as file:
        file.truncate(path.stat().st_size + 2**30)
    assert peak_of(lambda: load_weights(path, network())) < 2**20


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused_with_their_name(tmp_path, value):
    tensors = {name: tensor.clone() for name, tensor in network().state_dict().items()}
    tensors["weight"][1, 1] = value
    save_file(tensors, tmp_path / "a.safetensors")
    module = network()
    before = module.weight.clone()
    with pytest.raises(UnsafeError, match="1 of 6 values of tensor 'weight'") as error:
        load_weights(tmp_path / "a.safetensors", module)
    assert error.value.code == "E_NONFINITE_WEIGHTS" and torch.equal(module.weight, before)


@pytest.mark.parametrize("change", [
    lambda tensors: tensors.pop("bias"), lambda tensors: tensors.update(more=torch.zeros(1)),
    lambda tensors: tensors.update(weight=tensors["weight"].double()), lambda tensors: tensors.update(weight=torch.zeros(3, 3)),
    lambda tensors: tensors.update(weight=tensors["weight"].half())], ids=["missing", "more", "float64", "shape", "float16"])
def test_tensors_of_another_network_are_refused(tmp_path, change):
    tensors = {name: tensor.clone() for name, tensor in network().state_dict().items()}
    change(tensors)
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(IncompatibleError, match="1 tensors differ"):
        load_weights(tmp_path / "a.safetensors", network())


def test_a_checkpoint_of_torch_is_never_opened(tmp_path):
    torch.save(network().state_dict(), tmp_path / "zip.safetensors")
    torch.save(network().state_dict(), tmp_path / "old.safetensors", _use_new_zipfile_serialization=False)
    for name in ("zip", "old"):
        with pytest.raises(UnsafeError) as error:
            load_weights(tmp_path / f"{name}.safetensors", network())
        assert error.value.code == "E_PICKLE"
