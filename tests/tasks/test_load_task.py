from __future__ import annotations

import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

from autoseg import tasks
from autoseg.core.errors import UnsafeError, UsageError
from autoseg.tasks import load_task


@pytest.mark.parametrize("name", ["this.thing", "toy_tasks.intensity", "os.system", "autoseg.tasks.segmentation"])
@pytest.mark.parametrize("trusted", [None, "segmentation", "another.task"])
def test_code_that_the_user_did_not_name_is_not_imported(name, trusted):
    before = set(sys.modules)
    with pytest.raises(UnsafeError, match="may not choose code to run") as caught:
        load_task(name, trusted=trusted)
    assert caught.value.exit_code == 8 and set(sys.modules) == before


def test_an_unknown_word_is_a_usage_error_with_the_nearest_task():
    with pytest.raises(UsageError, match="Did you mean 'segmentation'"):
        load_task("segmentatoin")


def test_a_task_that_is_made_of_others_is_handed_their_records(monkeypatch):
    made = SimpleNamespace(COMPOSED_OF=("segmentation", "classification"),
                           compose=lambda first, second: replace(first, headline=second.headline))
    monkeypatch.setattr(tasks, "known_tasks", lambda: ["both", "segmentation", "classification"])
    monkeypatch.setitem(sys.modules, "autoseg.tasks.both", made)
    found = load_task("both")
    assert (found.index, found.headline) == (load_task("segmentation").index, load_task("classification").headline)
