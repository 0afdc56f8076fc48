from __future__ import annotations

import sys

import pytest

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
