"""Fixtures and options that every test folder shares."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--require-data", action="store_true",
                     help="a skipped test that uses real data is a failure (CI gives it where the data is present)")


def pytest_configure(config: pytest.Config) -> None:
    """Parallel workers share the cores: each one gets its part of the threads, child processes too."""
    workers = os.environ.get("PYTEST_XDIST_WORKER_COUNT")
    if workers is None:
        return
    threads = max(1, (os.cpu_count() or 1) // int(workers))
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, str(threads))
    if "torch" in sys.modules:  # otherwise torch reads OMP_NUM_THREADS when a test imports it, which saves seconds here
        sys.modules["torch"].set_num_threads(threads)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the real datasets; the test skips where there is none."""
    folder = Path(os.environ.get("AUTOSEG_TEST_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set AUTOSEG_TEST_DATA to the folder that holds Dataset004_Hippocampus")
    return folder


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    report = yield
    uses_data = "real_data" in getattr(item, "fixturenames", ())
    if report.skipped and not hasattr(report, "wasxfail") and uses_data and item.config.getoption("--require-data"):
        report.outcome = "failed"
        report.longrepr = f"--require-data: {item.nodeid} was skipped: {report.longrepr}"
    return report
