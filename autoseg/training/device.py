"""What the machine offers. With the command line the only place that looks at hardware and at the clock."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from autoseg.core.errors import UsageError

if TYPE_CHECKING:
    from autoseg.core.plan import Precision

# Processor flags that come with fast bfloat16 products: Intel Cooper Lake / AMD Zen 4 on (avx512_bf16), Sapphire Rapids
# on (amx_bf16), ARMv8.6 (bf16). Elsewhere torch emulates them, which is 40 times slower than float32 (measured, AVX2).
_BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
# Ampere is the first NVIDIA generation with bfloat16 tensor cores.
_BF16_CAPABILITY = (8, 0)
# Kernels report "no limit" in version 1 cgroups as a number near 2**63.
_UNLIMITED_BYTES = 2**60
# From glibc's malloc.h: M_MMAP_THRESHOLD (-3) and M_TRIM_THRESHOLD (-1), so that blocks up to 1 GiB come from the heap and
# up to 2 GiB of freed memory stay there.
_MALLOC_OPTIONS = ((-3, 2**30), (-1, 2**31 - 1))


@dataclass(frozen=True)
class Device:
    """A processor to train or predict on.

    Attributes:
        address: for torch: `cpu` or `cuda:n`.
        name: of the processor, for the reader.
        memory_bytes: free now, within the limits of the container.
        threads: physical cores that this process may use (CPU work of a CUDA device too).
        supports_bf16: multiplies bfloat16 in hardware.
    """

    kind: Literal["cpu", "cuda"]
    address: str
    name: str
    memory_bytes: int
    threads: int
    supports_bf16: bool


def detect_device(name: str = "auto") -> Device:
    """The device called `auto`, `cpu`, `cuda` or `cuda:n`; `auto` is CUDA where there is one.

    Raises:
        UsageError: no such name, or a CUDA device that this machine or this build of torch does not have.
    """
    if name == "auto":
        name = "cuda" if _has_cuda() else "cpu"
    if name == "cpu":
        return Device("cpu", "cpu", _cpu_name(), free_memory_bytes(), usable_cores(), cpu_supports_bf16())
    match = re.fullmatch(r"cuda(?::(\d+))?", name)
    if match is None:
        raise UsageError(f"device {name!r} is not known; use auto, cpu, cuda or cuda:N")
    return _cuda_device(int(match.group(1) or 0))


def cpu_supports_bf16(cpuinfo: str | None = None) -> bool:
    """True when the processor multiplies bfloat16 in hardware, judged by its flags in /proc/cpuinfo.

    Where there is no such file (macOS, Windows) the answer is False: float32 is right everywhere, only slower.
    """
    text = _read("/proc/cpuinfo") if cpuinfo is None else cpuinfo
    flags = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return flags is not None and not _BF16_FLAGS.isdisjoint(flags.group(1).split())


def supports_precision(precision: Precision, address: str) -> bool:
    """True when the device at `address` (`cpu` or `cuda[:n]`) multiplies in this precision in hardware.

    fp16 is for CUDA devices, of which every one that torch still supports has it.
    """
    if precision == "fp32":
        return True
    if address == "cpu":
        return precision == "bf16" and cpu_supports_bf16()
    return precision == "fp16" or detect_device(address).supports_bf16


def usable_cores() -> int:
    """Physical cores that this process may use: its affinity, less siblings of one core, within the cgroup's quota."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    cores = count_cores(_read("/proc/cpuinfo"), allowed)
    return max(1, min(cores, int(_cpu_quota() or cores)))


def count_cores(cpuinfo: str, allowed: set[int]) -> int:
    """Distinct (socket, core) pairs among the allowed logical processors; each is its own core when it is not said."""
    cores = set()
    for block in cpuinfo.split("\n\n"):
        values = dict(re.findall(r"^([\w ]+?)\s*:\s*(.*)$", block, re.MULTILINE))
        number = int(values.get("processor", -1)) if values.get("processor", "").isdigit() else -1
        if number in allowed:
            cores.add((values.get("physical id", "0"), values.get("core id", f"processor {number}")))
    return len(cores) or len(allowed)


def free_memory_bytes() -> int:
    """Memory that can be taken now without swapping: what the system has free, within the cgroup's limit."""
    available = re.search(r"^MemAvailable:\s+(\d+) kB", _read("/proc/meminfo"), re.MULTILINE)
    free = int(available.group(1)) * 1024 if available else _physical_memory_bytes() // 2
    limits = [("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")]
    for folder in _cgroup_folders("memory"):
        for limit_name, usage_name in limits:
            limit, usage = _read(folder / limit_name).strip(), _read(folder / usage_name).strip()
            if limit.isdigit() and usage.isdigit() and int(limit) < _UNLIMITED_BYTES:
                free = min(free, max(0, int(limit) - int(usage)))
    return free


class Stopwatch:
    """Seconds of wall-clock time since it was made; a function, so that a test can turn the hands."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._start = clock()

    def seconds(self) -> float:
        """Time since the start."""
        return self._clock() - self._start


def keep_freed_memory() -> None:
    """Tells glibc to keep freed memory for the next allocation instead of handing it back to the system.

    A training step on a CPU allocates and frees the same feature maps again and again; fetching their pages anew each time
    took 12 % of a step (16 to 128 features, 2 x 40 x 56 x 40, 2 threads of an EPYC, 2026-11-21). Elsewhere nothing happens.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    for parameter, value in _MALLOC_OPTIONS:
        mallopt(parameter, value)


def synchronize(address: str) -> None:
    """Wait until a CUDA device has done its work; on the CPU there is nothing to wait for."""
    if address.startswith("cuda"):
        import torch

        torch.cuda.synchronize(address)


def _has_cuda() -> bool:
    """Asks torch, unless its build says already that it has no CUDA: importing it takes two seconds."""
    if version("torch").endswith("+cpu"):
        return False
    import torch

    return torch.cuda.is_available()


def _cuda_device(index: int) -> Device:
    import torch

    if not torch.cuda.is_available():
        raise UsageError("no CUDA device can be used: torch is a CPU build, or the driver does not answer",
                         hint="use cpu instead of cuda, or install a CUDA build of torch")
    count = torch.cuda.device_count()
    if index >= count:
        raise UsageError(f"cuda:{index} does not exist; this machine has {count} (cuda:0 to cuda:{count - 1})")
    free, _ = torch.cuda.mem_get_info(index)
    return Device("cuda", f"cuda:{index}", torch.cuda.get_device_name(index), free, usable_cores(),
                  torch.cuda.get_device_capability(index) >= _BF16_CAPABILITY)


def _cpu_name() -> str:
    match = re.search(r"^model name\s*:\s*(.+)$", _read("/proc/cpuinfo"), re.MULTILINE)
    return match.group(1).strip() if match else platform.processor() or platform.machine()


def _physical_memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 2**32


def _cpu_quota() -> float | None:
    """Processors' worth of time that the cgroup grants, None without a limit."""
    quotas = []
    for folder in _cgroup_folders("cpu"):
        unified = _read(folder / "cpu.max").split()
        legacy = [_read(folder / name).strip() for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")]
        for pair in (unified, legacy):
            if len(pair) == 2 and pair[0].isdigit() and pair[1].isdigit() and int(pair[1]) > 0:
                quotas.append(int(pair[0]) / int(pair[1]))
    return min(quotas, default=None)


def _cgroup_folders(controller: str) -> list[Path]:
    """Folders of this process' cgroup and its parents for one controller, versions 1 and 2, those that exist."""
    folders: list[Path] = []
    for line in _read("/proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", controller) and controller not in controllers.split(","):
            continue
        root = Path("/sys/fs/cgroup") / controllers
        own = root / path.lstrip("/")
        folders += [own, *(parent for parent in own.parents if parent.is_relative_to(root))]
    return [folder for folder in folders if folder.is_dir()]


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
