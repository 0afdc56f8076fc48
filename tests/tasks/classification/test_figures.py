from __future__ import annotations

import numpy as np
import pytest
from tasks.classification.sets import binary, make_spec

from autoseg.core.geometry import Geometry
from autoseg.core.image import Image
from autoseg.tasks.classification.figures import BARS, HEIGHT, SAID, TRUE, draw_figures
from autoseg.tasks.classification.kinds import Kind
from autoseg.tasks.classification.target import Answer, Reading

SPEC = make_spec("ill")


def image(shape=(1, 20, 10), spacing=(1.0, 1.0, 1.0)):
    voxels = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    return Image.canonical(voxels, Geometry(shape, spacing))


def count(pixels, colour):
    return int((pixels[:, -BARS:] == colour).all(axis=2).sum())


def test_the_true_class_is_green_and_bars_are_as_long_as_probabilities():
    picture, = draw_figures(binary(0.25), binary(1.0), image(), SPEC)
    assert picture.pixels.shape == (HEIGHT, HEIGHT // 2 + BARS, 3) and picture.pixels.dtype == np.uint8
    # letters lie over the bars, so that some pixels of each are missing
    assert count(picture.pixels, SAID) / count(picture.pixels, TRUE) == pytest.approx(3, rel=0.5)
    assert picture.caption == "ill: no (0.750), true yes"


def test_pixels_that_are_not_square_are_shown_so():
    picture, = draw_figures(binary(0.25), None, image(spacing=(1.0, 1.0, 4.0)), SPEC)
    assert picture.pixels.shape[1] == 2 * HEIGHT + BARS and picture.caption == "ill: no (0.750)"


def test_volumes_show_three_middle_slices():
    flat, = draw_figures(binary(0.5), None, image((1, 10, 10)), SPEC)
    deep, = draw_figures(binary(0.5), None, image((10, 10, 10)), SPEC)
    assert deep.pixels.shape[1] - flat.pixels.shape[1] == 2 * HEIGHT


def test_colours_are_shown_in_colour():
    voxels = np.zeros((3, 1, 8, 8), np.float32)
    voxels[0] = 255
    picture, = draw_figures(binary(0.5), None, Image.canonical(voxels, Geometry((1, 8, 8), (1.0, 1.0, 1.0))), SPEC)
    assert tuple(picture.pixels[HEIGHT // 2, 20]) == (255, 0, 0)


def test_every_kind_has_a_caption():
    said = Answer((Reading("signs", Kind.MULTILABEL, ("a", "b"), (0.9, 0.8)), Reading("size", Kind.CONTINUOUS, value=12.3456),
                   Reading("type", Kind.MULTICLASS, tuple("abcdefghijkl"), (1 / 12,) * 12)))
    true = Answer((Reading("signs", Kind.MULTILABEL, ("a", "b"), (0.0, 0.0)), Reading("size", Kind.CONTINUOUS, value=10.0),
                   Reading("type", Kind.MULTICLASS, tuple("abcdefghijkl"), (float("nan"),) * 12)))
    picture, = draw_figures(said, true, image(), SPEC)
    assert picture.caption == "signs: a, b, true none; size: 12.35, true 10; type: a (0.083)"
