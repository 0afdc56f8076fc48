from __future__ import annotations

import pickle

import pytest

from autoseg.core.errors import AutosegError, DatasetError, UsageError, choose


def test_a_misspelt_name_lists_the_choices_and_the_nearest_one():
    with pytest.raises(UsageError, match=r"scheme 'zscor' is not known; known are ct, zscore.*Did you mean 'zscore'"):
        choose({"ct": 1, "zscore": 2}, "zscor", "scheme")


def test_code_and_hint_survive_the_way_back_from_a_worker_process():
    error = pickle.loads(pickle.dumps(DatasetError("case a: broken", code="E_X", hint="mend it")))
    assert isinstance(error, DatasetError)
    assert (str(error), error.code, error.hint, error.exit_code) == ("case a: broken", "E_X", "mend it", 3)


def test_every_error_class_has_its_own_code_and_a_documented_exit_code():
    def below(kind):
        return [kind, *(child for sub in kind.__subclasses__() for child in below(sub))]

    kinds = [kind for kind in below(AutosegError) if kind.__module__ == "autoseg.core.errors"]
    assert len({kind.default_code for kind in kinds}) == len(kinds)
    assert {kind.exit_code for kind in kinds} <= {1, 2, 3, 4, 5, 6, 7, 8}
