"""The comparison of a joint network with two that learn alone, on records whose scores are known."""

from __future__ import annotations

import pytest

from autoseg.core.report import Record
from benchmarks.joint import compared, make_fold


def answer(truth: int, said: float) -> dict[str, float]:
    return {"ill.yes.probability": said, "ill.truth": float(truth), "ill.decided": float(said > 0.5)}


def records(kind: str, dice: list[float], said: list[float]) -> list[Record]:
    """Four slices of two patients, the second of whom is ill."""
    found = []
    for place, (overlap, probability) in enumerate(zip(dice, said, strict=True)):
        labels, classes = {"mean.dice": overlap}, answer(place // 2, probability)
        scores = {"segmentation": labels, "classification": classes}.get(kind) or (
            {f"segmentation.{name}": value for name, value in labels.items()}
            | {f"classification.{name}": value for name, value in classes.items()})
        found.append(Record(f"u{place}", scores, f"p{place // 2}"))
    return found


def one_fold():
    """Joint: Dice 0.8, all 4 pairs in order. Alone: Dice 0.7, 3 pairs. Baseline: Dice 0.5, none."""
    return make_fold(records("joint", [0.9, 0.9, 0.6, 0.8], [0.1, 0.2, 0.3, 0.4]),
                     records("segmentation", [0.8, 0.8, 0.6, 0.6], [0.0] * 4)[::-1],
                     records("classification", [0.0] * 4, [0.1, 0.35, 0.3, 0.4]),
                     records("joint", [0.5] * 4, [0.8, 0.7, 0.2, 0.1]))


def test_scores_and_paired_differences_by_hand():
    found = compared([one_fold(), one_fold()])
    assert found["dice"]["joint"] == pytest.approx([0.8, 0.8]) and found["dice"]["alone"] == pytest.approx([0.7, 0.7])
    assert (found["auc"]["joint"], found["auc"]["alone"], found["auc"]["baseline"]) == ([1.0] * 2, [0.75] * 2, [0.0] * 2)
    mean, lower, upper = found["difference"]["alone"]["dice"]
    assert mean == pytest.approx(0.1) and (lower, upper) == pytest.approx((0.1, 0.1))  # both patients differ by 0.1
    assert found["difference"]["alone"]["auc"][0] == pytest.approx(0.25)
    assert found["difference"]["baseline"]["dice"][0] == pytest.approx(0.3)
    assert (found["units"], found["patients"]) == (8, 2)


def test_folds_of_other_cases_are_not_compared():
    with pytest.raises(SystemExit, match="2 other cases"):
        make_fold(records("joint", [0.9] * 4, [0.1] * 4), records("segmentation", [0.9] * 2, [0.1] * 2),
                  records("classification", [0.9] * 4, [0.1] * 4), records("joint", [0.9] * 4, [0.1] * 4))
