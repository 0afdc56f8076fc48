from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from tasks.classification.configurations import make_configuration

from autoseg.core.case import Case, Unit
from autoseg.core.plan import Augmentation
from autoseg.tasks.classification.heads import heads_of
from autoseg.tasks.classification.kinds import Kind
from autoseg.tasks.classification.sample import blank_batch, draw_batch, is_known, repeat_factor


class Shelf:
    """A store in memory: images of one value, truths by case."""

    def __init__(self, truths, size=(1, 8, 8)):
        self.truths, self.size = truths, size

    def names(self, case_id):
        return ("image", "truths")

    def array(self, case_id, name, box=None):
        if name == "truths":
            return np.array(self.truths[case_id], np.float32)
        return np.full((1, *self.size), float(list(self.truths).index(case_id)), np.float32)


def units_of(truths, size=1):
    names = list(truths)
    return [Unit(f"u{place}", tuple(Case(name, name, {}) for name in names[place:place + size]), f"u{place}")
            for place in range(0, len(names), size)]


BINARY = ("ill", Kind.BINARY, ("no", "yes"))


@pytest.mark.parametrize(("size", "slices", "shape"), [((1, 8, 8), False, (2, 1, 8, 8)), ((4, 8, 8), True, (2, 1, 4, 8, 8)),
                                                       ((8, 8, 8), False, (2, 1, 8, 8, 8))])
def test_images_are_whole(size, slices, shape):
    configuration = make_configuration(BINARY, size=size, slices=slices)
    truths = {"a": [0.0], "b": [1.0]}
    batch = draw_batch(units_of(truths), Shelf(truths, size), configuration, np.random.default_rng(0))
    assert batch["image"].shape == shape and batch["image"].dtype == torch.float32
    assert [float(value) for value in batch["truths"][:, 0]] == [truths[case][0] for case in batch["cases"]]
    assert blank_batch(configuration)["image"].shape == shape and blank_batch(configuration)["truths"].shape == (2, 1)


def test_units_without_a_truth_are_not_drawn():
    truths = {"a": [0.0], "b": [np.nan], "c": [1.0]}
    configuration = make_configuration(BINARY, batch=50)
    assert set(draw_batch(units_of(truths), Shelf(truths), configuration, np.random.default_rng(0))["cases"]) == {"a", "c"}


def test_of_an_exam_any_image_is_drawn():
    truths = {"a": [1.0], "b": [1.0]}
    configuration = make_configuration(BINARY, batch=30)
    drawn = Counter(draw_batch(units_of(truths, 2), Shelf(truths), configuration, np.random.default_rng(0))["cases"])
    assert min(drawn["a"], drawn["b"]) > 5


def test_rare_classes_are_drawn_more_often():
    truths = {f"n{place}": [0.0] for place in range(90)} | {f"p{place}": [1.0] for place in range(10)}
    plain, repeated = (make_configuration(BINARY, batch=800, size=(1, 4, 4), repeats=repeats)
                       for repeats in (None, {"ill": (1.0, 4.0)}))
    shares = [float(draw_batch(units_of(truths), Shelf(truths, (1, 4, 4)), configuration,
                               np.random.default_rng(0))["truths"].mean()) for configuration in (plain, repeated)]
    assert shares == pytest.approx([0.1, 40 / 130], abs=0.05)  # 10 of 100, and 4 x 10 of 90 + 4 x 10


def test_the_factor_of_a_unit_is_that_of_its_rarest_class():
    configuration = make_configuration(("signs", Kind.MULTILABEL, ("a", "b")), ("grade", Kind.ORDINAL, ("1", "2")))
    heads, repeats = heads_of(configuration), {"signs": (2.0, 3.0), "grade": (1.0, 5.0)}
    assert repeat_factor(np.array([1, 1, 0], np.float32), heads, repeats) == 3.0
    assert repeat_factor(np.array([0, 0, 1], np.float32), heads, repeats) == 5.0
    assert repeat_factor(np.array([0, 0, -1], np.float32), heads, repeats) == 1.0
    assert repeat_factor(np.array([np.nan, np.nan, -1], np.float32), heads, repeats) == 1.0


def test_known_is_what_some_target_knows():
    heads = heads_of(make_configuration(("type", Kind.MULTICLASS, ("a", "b", "c")), ("size", Kind.CONTINUOUS, ())))
    assert not is_known(np.array([-1, np.nan], np.float32), heads)
    assert is_known(np.array([-1, -0.7], np.float32), heads) and is_known(np.array([0, np.nan], np.float32), heads)


def test_changes_follow_the_plan():
    truths = {"a": [0.0], "b": [1.0], "c": [1.0]}
    bright = Augmentation(brightness_probability=1.0, brightness=(2.0, 2.0))
    batch = draw_batch(units_of(truths)[1:2], Shelf(truths), make_configuration(BINARY, augmentation=bright),
                       np.random.default_rng(0))
    assert torch.equal(batch["image"], torch.full((2, 1, 8, 8), 2.0))  # the image of b has the value 1
