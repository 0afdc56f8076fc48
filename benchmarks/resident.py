"""Resident memory of this process (Linux)."""

from __future__ import annotations

from pathlib import Path


def resident_bytes() -> int:
    """Memory that is resident now."""
    return _status("VmRSS")


def peak_bytes() -> int:
    """The most that has been resident since the process began, or since `reset_peak`."""
    return _status("VmHWM")


def reset_peak() -> None:
    """From now on `peak_bytes` is the most that is resident from here on."""
    Path("/proc/self/clear_refs").write_text("5")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))
