"""Lines and letters: where their pixels are."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image as PillowImage

from autoseg.reporting import drawing


def as_mask(text: str) -> np.ndarray:
    return np.array([[sign == "#" for sign in line.split()] for line in text.strip().splitlines()])


def black(height: int, width: int) -> np.ndarray:
    return np.zeros((height, width, 3), dtype=np.uint8)


def test_contour_of_a_square_is_its_rim():
    mask = as_mask("""
        . . . . . .
        . # # # # .
        . # # # # .
        . # # # # .
        . # # # # .
    """)
    expected = as_mask("""
        . . . . . .
        . # # # # .
        . # . . # .
        . # . . # .
        . # # # # .
    """)
    np.testing.assert_array_equal(drawing.contour(mask), expected)


def test_contour_of_width_two_leaves_what_is_three_steps_from_outside():
    mask = np.zeros((9, 8), dtype=bool)
    mask[1:8, 1:7] = True
    inside = np.zeros_like(mask)
    inside[3:6, 3:5] = True
    np.testing.assert_array_equal(drawing.contour(mask, width=2), mask & ~inside)


def test_contour_of_a_mask_that_fills_the_picture_is_the_border_of_the_picture():
    expected = np.ones((4, 5), dtype=bool)
    expected[1:-1, 1:-1] = False
    np.testing.assert_array_equal(drawing.contour(np.ones((4, 5), dtype=bool)), expected)


def test_contour_of_one_pixel_is_the_pixel_and_of_nothing_is_nothing():
    mask = np.zeros((3, 4), dtype=bool)
    assert not drawing.contour(mask).any() and not drawing.dashes(mask).any()
    mask[1, 2] = True
    np.testing.assert_array_equal(drawing.contour(mask), mask)
    np.testing.assert_array_equal(drawing.dashes(mask), mask)


def test_dashes_are_the_stated_part_of_the_contour_in_the_stated_lengths():
    mask = np.zeros((140, 160), dtype=bool)
    mask[20:120, 30:130] = True
    line, dashed = drawing.contour(mask), drawing.dashes(mask)
    assert not (dashed & ~line).any()
    assert abs(np.count_nonzero(dashed) / np.count_nonzero(line) - 7 / 13) < 0.03
    edge = dashed[20, 32:128].astype(int)  # the top side without its corners
    changes = np.flatnonzero(np.diff(edge))
    lengths = np.diff(changes)
    assert len(lengths) > 8 and set(lengths) <= {drawing.DASH_PX, drawing.GAP_PX}


def test_dashes_follow_a_mask_to_the_border_of_the_picture():
    dashed = drawing.dashes(np.ones((60, 80), dtype=bool))
    assert all(side.any() and not side.all() for side in (dashed[0], dashed[-1], dashed[:, 0], dashed[:, -1]))
    assert not dashed[1:-1, 1:-1].any()


def test_enlarged_labels_take_the_voxel_that_the_pixel_centre_lies_in():
    plane = np.array([[1, 2, 3]])
    np.testing.assert_array_equal(drawing.enlarge(plane, (2, 6)), [[1, 1, 2, 2, 3, 3]] * 2)
    np.testing.assert_array_equal(drawing.enlarge(plane, (1, 4)), [[1, 2, 2, 3]])


def test_letters_stand_in_the_middle_of_each_border_and_say_which_is_which(monkeypatch):
    drawn = {}
    monkeypatch.setattr(drawing.ImageDraw.ImageDraw, "text", lambda self, place, text, **_: drawn.update({text: place}))
    drawing.draw_letters(black(100, 200), ("A", "L", "P", "R"))
    assert drawn == {"A": (100, 4), "L": (196, 50), "P": (100, 96), "R": (4, 50)}


def test_letters_are_white_pixels_at_the_borders_and_nowhere_else():
    bright = drawing.draw_letters(black(100, 200), ("A", "L", "P", "R")).max(axis=2) > 200
    assert all(part.any() for part in (bright[:20, 90:110], bright[80:, 90:110], bright[40:60, :20], bright[40:60, 180:]))
    bright[:20, 90:110] = bright[80:, 90:110] = bright[40:60, :20] = bright[40:60, 180:] = False
    assert not bright.any()


def test_scale_bar_has_its_length_in_the_lower_left_corner():
    pixels = drawing.draw_scale_bar(black(100, 200), 37, "1 cm")
    row = pixels[100 - 2 * drawing.MARGIN_PX - 1, :, 0]
    assert np.flatnonzero(row == 255).tolist() == list(range(8, 8 + 37))


def test_numbers_stand_inside_their_structures_and_never_over_each_other(monkeypatch):
    drawn = {}
    monkeypatch.setattr(drawing, "_write", lambda canvas, place, text, *_: drawn.update({text: place}))
    masks = {0: np.zeros((80, 80), bool), 1: np.zeros((80, 80), bool), 4: np.zeros((80, 80), bool), 9: np.zeros((80, 80), bool)}
    masks[0][10:31, 10:31] = True
    masks[1][50:75, 40:75] = True
    masks[4][18:23, 18:23] = True  # in the middle of the first
    drawing.draw_numbers(black(80, 80), masks, [(255, 0, 0)] * 10)
    assert sorted(drawn) == ["1", "2"]
    assert drawn["1"] == (20, 20) and masks[1][int(drawn["2"][1]), int(drawn["2"][0])]


def test_png_holds_exactly_the_pixels():
    pixels = np.random.default_rng(0).integers(0, 256, (7, 11, 3), dtype=np.uint8)
    np.testing.assert_array_equal(np.asarray(PillowImage.open(io.BytesIO(drawing.encode_png(pixels)))), pixels)


def test_a_caption_stands_below_the_picture_in_lines_that_fit():
    red = (255, 0, 0)
    pixels = drawing.captioned(black(50, 600), [("word " * 60, red), ("last", drawing.WHITE)])
    assert (pixels[:50] == 0).all() and pixels.shape[1] == 600
    is_red = (pixels[..., 0] > 200) & (pixels[..., 1] < 60)
    rows = np.flatnonzero(is_red.any(axis=1))
    assert rows.min() >= 50 and is_red.any(axis=0)[300:].any() and not is_red.any(axis=0)[-drawing.MARGIN_PX:].any()
    assert drawing._broken("a bb ccc", 1) == ["a", "bb", "ccc"] and drawing._broken("a bb ccc", 10_000) == ["a bb ccc"]
    assert drawing.captioned(black(50, 20), [("text", red)]).shape[1] == drawing.NARROWEST_CAPTION_PX
