from __future__ import annotations

import os

import pytest
import torch

from autoseg.core.errors import UsageError
from autoseg.training import device
from autoseg.training.device import Stopwatch, count_cores, cpu_supports_bf16, detect_device, free_memory_bytes

HYPERTHREADED = "\n\n".join(
    f"processor\t: {number}\nphysical id\t: {number // 4}\ncore id\t\t: {number % 2}\nflags\t\t: fpu avx2"
    for number in range(8))


def test_siblings_of_one_core_count_once_and_sockets_apart():
    assert count_cores(HYPERTHREADED, set(range(8))) == 4


def test_only_allowed_processors_count():
    assert count_cores(HYPERTHREADED, {0, 2}) == 1
    assert count_cores(HYPERTHREADED, {0, 1}) == 2


def test_processors_without_a_core_id_are_cores_of_their_own():
    assert count_cores("processor\t: 0\n\nprocessor\t: 1\n\nprocessor : 2", {0, 1, 2}) == 3
    assert count_cores("", {0, 1, 2}) == 3


@pytest.mark.parametrize(("flags", "expected"), [
    ("flags\t\t: fpu avx2 fma avx512f", False), ("flags\t\t: avx512f avx512_bf16", True), ("flags : amx_bf16 x", True),
    ("Features\t: fp asimd bf16", True), ("Features\t: fp asimd", False), ("", False),
    ("model name\t: avx512_bf16 edition\nflags\t\t: avx2", False)])
def test_bfloat16_is_judged_by_the_processors_flags(flags, expected):
    assert cpu_supports_bf16(f"processor\t: 0\n{flags}\n") is expected


def test_this_machine_has_a_cpu_with_a_plausible_description():
    device = detect_device("cpu")

    assert (device.kind, device.address) == ("cpu", "cpu")
    assert 1 <= device.threads <= os.cpu_count()
    assert 2**20 < device.memory_bytes < 2**50
    assert device.name


def test_free_memory_is_not_more_than_the_machine_has():
    assert free_memory_bytes() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "", "CPU"])
def test_unknown_device_is_refused_with_the_choices(name):
    with pytest.raises(UsageError, match="auto, cpu, cuda or cuda:N"):
        detect_device(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_without_cuda_auto_is_the_cpu_and_cuda_is_refused():
    assert detect_device("auto").kind == "cpu"
    with pytest.raises(UsageError, match="no CUDA device"):
        detect_device("cuda:0")


def test_stopwatch_reads_the_time_since_its_start():
    hands = iter([10.0, 12.5, 13.0])

    watch = Stopwatch(lambda: next(hands))

    assert (watch.seconds(), watch.seconds()) == (2.5, 3.0)


def test_large_blocks_go_back_to_the_system_only_where_it_has_huge_pages(monkeypatch):
    options = {}
    library = type("Library", (), {"mallopt": staticmethod(options.__setitem__)})
    monkeypatch.setattr(device.ctypes, "CDLL", lambda name: library)
    monkeypatch.delenv("THP_MEM_ALLOC_ENABLE", raising=False)
    assert not device.prepare_allocator("always madvise [never]")
    assert options == {-3: 2**30, -1: 2**31 - 1} and "THP_MEM_ALLOC_ENABLE" not in os.environ
    assert device.prepare_allocator("always [madvise] never")
    assert options == {-3: 4 * 2**20, -1: 256 * 2**20} and os.environ["THP_MEM_ALLOC_ENABLE"] == "1"
