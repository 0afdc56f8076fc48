from __future__ import annotations

import subprocess
import sys

import pytest

from benchmarks.ledger import REPOSITORY, Ledger, markdown
from benchmarks.measure import CommandFailedError, Usage, measure, median

MEBIBYTE = 2**20


@pytest.fixture(autouse=True)
def _looks_all_the_time(monkeypatch):
    """A machine that is busy during one look would else put the next one off until a short process has ended."""
    monkeypatch.setattr("benchmarks.measure.SHARE_OF_TIME_FOR_MEMORY", 1.0)


def python(code: str) -> list[str]:
    return [sys.executable, "-S", "-c", code]


def test_wall_time_and_memory_of_a_sleeping_process_are_its_own(tmp_path):
    usage = measure(python(f"import time; held = bytearray({200 * MEBIBYTE}); time.sleep(1.0)"), log=tmp_path / "log")
    assert usage.wall_seconds >= 1.0
    assert 200 * MEBIBYTE <= usage.peak_bytes < 300 * MEBIBYTE


def test_memory_of_a_child_process_counts(tmp_path):
    child = f"import time; held = bytearray({200 * MEBIBYTE}); time.sleep(1.0)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-S', '-c', {child!r}])"
    usage = measure(python(parent), log=tmp_path / "log")
    assert usage.peak_bytes >= 200 * MEBIBYTE


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells shared pages apart")
def test_memory_that_forked_processes_share_counts_once(tmp_path):
    code = f"import os, time; held = bytearray({200 * MEBIBYTE}); os.fork(); os.fork(); time.sleep(1.0)"
    usage = measure(python(code), log=tmp_path / "log")
    assert usage.peak_bytes < 300 * MEBIBYTE


def test_cpu_time_of_a_child_that_nobody_waits_for_counts(tmp_path):
    child = "import time\nwhile time.process_time() < 0.3: pass\ntime.sleep(0.3)"
    parent = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-S', '-c', {child!r}]); time.sleep(2.0)"
    assert measure(python(parent), log=tmp_path / "log").cpu_seconds >= 0.28  # the kernel counts in ticks of 10 ms


def test_a_failed_command_is_an_error_with_the_end_of_its_output(tmp_path):
    with pytest.raises(CommandFailedError, match="exit status 3(.|\n)*out of luck"):
        measure(python("print('out of luck'); raise SystemExit(3)"), log=tmp_path / "log")


def test_environment_and_folder_reach_the_command(tmp_path):
    code = "import os; assert os.environ['COLOUR'] == 'red'; open('here', 'w').close()"
    measure(python(code), log=tmp_path / "log", environment={"COLOUR": "red"}, folder=tmp_path)
    assert (tmp_path / "here").exists()


def test_median_takes_times_by_median_and_memory_by_maximum():
    runs = [Usage(1.0, 30.0, 5, 0.1), Usage(9.0, 10.0, 7, 0.3), Usage(2.0, 20.0, 6, 0.2)]
    assert median(runs) == Usage(2.0, 20.0, 7, 0.2)


def test_ledger_remembers_across_instances_and_forgets_when_inputs_change(tmp_path):
    Ledger(tmp_path / "ledger.json").add("cold/0", "digest a", {"seconds": 1.5})
    again = Ledger(tmp_path / "ledger.json")
    assert again.has("cold/0", "digest a")
    assert not again.has("cold/0", "digest b")
    assert again.result("cold/0") == {"seconds": 1.5}


def test_markdown_aligns_first_column_left_and_others_right():
    assert markdown(["what", "s"], [["plan", "1.5"]]) == "| what | s |\n| :-- | --: |\n| plan | 1.5 |"


def test_a_refusal_is_told_in_its_own_words_and_a_bug_with_its_traceback():
    def ended(raising: str) -> subprocess.CompletedProcess:
        code = ("from autoseg.core.errors import UsageError\nfrom benchmarks.measure import CommandFailedError, begin\n"
                f"begin()\nraise {raising}")
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY)

    refused = ended("UsageError('no dataset A', hint='autoseg datasets')")
    assert (refused.returncode, refused.stderr) == (1, "error: no dataset A\n  next: autoseg datasets\n")
    assert ended("CommandFailedError('x ended with 2')").stderr == "error: x ended with 2\n"
    assert "Traceback" in ended("ValueError('a bug')").stderr
