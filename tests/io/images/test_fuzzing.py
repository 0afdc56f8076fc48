"""Any bytes become a sound image or a refusal. As many on every machine; `fuzz_readers.py` says how to try more."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("fuzz_readers.py")
ROOT = SCRIPT.parents[3]
EXAMPLES = 300
# Some ten seconds each on one core.
RUNS = {".nii": 8000, ".nii.gz": 8000, ".nrrd": 4000, ".mha": 4000, ".png": 16000, ".bmp": 4000, ".tif": 4000}


def fuzz(folder, *arguments):
    """Runs the fuzzer in a process of its own, which a reader of native code may end; shows what it found."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])])
    finished = subprocess.run([sys.executable, str(SCRIPT), *map(str, arguments)], capture_output=True, text=True, timeout=600,
                              errors="replace", env=os.environ | {"PYTHONPATH": paths, "AUTOSEG_FUZZ_FOLDER": str(folder)})
    assert finished.returncode == 0, finished.stdout[-2000:] + finished.stderr[-6000:]


@pytest.mark.slow
@pytest.mark.parametrize("ending", RUNS)
def test_no_change_of_a_sound_file_brings_more_than_a_refusal(tmp_path, ending):
    fuzz(tmp_path, "hypothesis", ending, EXAMPLES)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("atheris") is None, reason="atheris is not installed (it exists for Linux): pip install atheris")
@pytest.mark.parametrize("ending", RUNS)
def test_no_bytes_that_reach_new_lines_bring_more_than_a_refusal(tmp_path, ending):
    fuzz(tmp_path, "atheris", ending, RUNS[ending])
