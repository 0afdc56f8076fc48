from __future__ import annotations

import pytest
from pydantic import ValidationError

from autoseg.core.budget import Budget
from autoseg.core.plan import InputPlan, Normalization, Plan, Reason, unexplained_values


def tiny_plan(**reasons: Reason) -> Plan:
    return Plan("p", "d", "t", (0, 1, 2), (InputPlan("image", (Normalization("zscore"),)),), {}, Budget("cpu", 2**30),
                reasons)


def test_a_value_without_a_reason_is_found():
    why = Reason("a", "b", "c")
    assert unexplained_values(tiny_plan(transpose=why, inputs=why)) == ["seed"]
    assert unexplained_values(tiny_plan(transpose=why, inputs=why, seed=why)) == []


def test_a_reason_for_a_longer_name_does_not_explain_a_shorter_one():
    why = Reason("a", "b", "c")
    assert "seed" in unexplained_values(tiny_plan(transpose=why, inputs=why, seeds=why))


def test_a_choice_that_is_not_closed_is_refused():
    with pytest.raises(ValidationError, match="scheme"):
        Normalization(scheme="os.system")


def test_an_unknown_key_is_refused():
    with pytest.raises(ValidationError, match="unexpected"):
        Normalization(scheme="ct", uper=3.0)
