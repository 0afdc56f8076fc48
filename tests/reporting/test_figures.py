"""Overlays: where contours, letters and the patient's sides are."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image as PillowImage

from autoseg.reporting import figures

SPACING_MM = (3.0, 2.0, 1.0)
SHAPE = (4, 5, 9)  # z, y, x


def as_mask(text: str) -> np.ndarray:
    return np.array([[sign == "#" for sign in line.split()] for line in text.strip().splitlines()])


def empty() -> np.ndarray:
    return np.zeros(SHAPE, dtype=np.uint8)


def at(*index: int) -> np.ndarray:
    labels = empty()
    labels[index] = 1
    return labels


def draw(prediction: np.ndarray, reference: np.ndarray | None, axis: int, index: int) -> np.ndarray:
    image = np.zeros(SHAPE, dtype=np.float32)
    return figures.overlay(image, prediction, reference, {1: "tumour"}, SPACING_MM, axis, index)


def centre_of(pixels: np.ndarray, colour: tuple[int, int, int], rows: int) -> tuple[float, float]:
    """Mean row and column of the pixels of one colour, as shares of the slice's height and width."""
    found = np.argwhere((pixels[:rows] == colour).all(axis=2))
    return float((found[:, 0].mean() + 0.5) / rows), float((found[:, 1].mean() + 0.5) / pixels.shape[1])


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
    np.testing.assert_array_equal(figures.contour(mask), expected)


def test_contour_of_width_two_leaves_what_is_three_steps_from_outside():
    mask = np.zeros((9, 8), dtype=bool)
    mask[1:8, 1:7] = True
    inside = mask.copy()
    inside[:] = False
    inside[3:6, 3:5] = True
    np.testing.assert_array_equal(figures.contour(mask, width=2), mask & ~inside)


def test_contour_of_a_mask_that_fills_the_picture_is_the_border_of_the_picture():
    expected = np.ones((4, 5), dtype=bool)
    expected[1:-1, 1:-1] = False
    np.testing.assert_array_equal(figures.contour(np.ones((4, 5), dtype=bool)), expected)


def test_contour_of_one_pixel_is_the_pixel_and_of_nothing_is_nothing():
    mask = np.zeros((3, 4), dtype=bool)
    assert not figures.contour(mask).any()
    mask[1, 2] = True
    np.testing.assert_array_equal(figures.contour(mask), mask)


@pytest.mark.parametrize(("shape", "spacing_mm", "expected"), [
    ((40, 20), (1.0, 1.0), (640, 320)),  # small: the shorter side becomes 320
    ((20, 40), (4.0, 1.0), (640, 320)),  # 80 mm x 40 mm: pixels are square in millimetres
    ((400, 500), (1.0, 1.0), (400, 500)),  # large enough: one pixel per voxel
    ((400, 500), (2.0, 1.0), (800, 500)),  # one pixel per voxel of the finer axis
    ((2048, 1024), (1.0, 1.0), (1024, 512)),  # too large: the longer side becomes 1024
])
def test_picture_has_square_pixels_and_a_bounded_size(shape, spacing_mm, expected):
    assert figures.picture_shape(shape, spacing_mm) == expected


@pytest.mark.parametrize(("axis", "sides"), [(0, (10.0, 9.0)), (1, (12.0, 9.0)), (2, (12.0, 10.0))])
def test_slice_has_the_aspect_ratio_of_its_millimetres(axis, sides):
    with_legend = draw(empty(), None, axis, 1)
    rows = figures.picture_shape(tuple(SHAPE[a] for a in range(3) if a != axis),
                                 tuple(SPACING_MM[a] for a in range(3) if a != axis))[0]
    assert rows / with_legend.shape[1] == pytest.approx(sides[0] / sides[1], rel=0.01)
    assert rows < with_legend.shape[0]


@pytest.mark.parametrize(("axis", "voxel", "expected"), [
    # The patient's left end of x is on the right, the posterior end of y is below.
    (0, (1, 0, 8), (0.5 / 5, 8.5 / 9)),
    # Superior end of z is above, left on the right.
    (1, (3, 2, 8), (0.5 / 4, 8.5 / 9)),
    # Superior above, posterior on the right.
    (2, (0, 4, 3), (3.5 / 4, 4.5 / 5)),
])
def test_a_voxel_is_drawn_on_its_side_of_the_patient(axis, voxel, expected):
    pixels = draw(at(*voxel), None, axis, voxel[axis])
    rows = figures.picture_shape(tuple(SHAPE[a] for a in range(3) if a != axis),
                                 tuple(SPACING_MM[a] for a in range(3) if a != axis))[0]
    # Letters may cover some contour pixels at the border.
    assert centre_of(pixels, figures.LABEL_COLOURS[0], rows) == pytest.approx(expected, abs=0.03)


def test_letters_name_the_side_that_the_axis_runs_to():
    # Canonical axes run to superior, posterior, left; rows of z are shown upside down, so that superior is above.
    assert figures.LETTERS == (("A", "L", "P", "R"), ("S", "L", "I", "R"), ("S", "P", "I", "A"))


@pytest.mark.parametrize(("axis", "letters"), [(0, "ALPR"), (1, "SLIR"), (2, "SPIA")])
def test_letters_are_drawn_at_the_middle_of_top_right_bottom_and_left(monkeypatch, axis, letters):
    drawn = {}

    def remember(self, place, text, **_):
        drawn[text] = place

    monkeypatch.setattr(figures.ImageDraw.ImageDraw, "text", remember)
    pixels = draw(empty(), None, axis, 1)
    width = pixels.shape[1]
    rows = figures.picture_shape(tuple(SHAPE[a] for a in range(3) if a != axis),
                                 tuple(SPACING_MM[a] for a in range(3) if a != axis))[0]
    top, right, bottom, left = (drawn[letter] for letter in letters)
    assert top[0] == bottom[0] == width / 2
    assert right[1] == left[1] == rows / 2
    assert top[1] < 10 and bottom[1] > rows - 10 and left[0] < 10 and right[0] > width - 10


def test_prediction_is_a_thick_line_and_reference_a_thin_light_one_in_the_colour_of_the_label():
    labels = empty()
    labels[1, 1:4, 2:7] = 1
    pixels = draw(labels, labels, 0, 1)
    height, width = figures.picture_shape(SHAPE[1:], SPACING_MM[1:])
    row = pixels[height // 2, : width // 2].astype(int)
    first = next(column for column in range(width) if tuple(row[column]) != (0, 0, 0) and column > 20)
    assert first == pytest.approx(width * 2 / 9, abs=1)
    light = tuple(round(0.5 * c + 0.5 * 255) for c in figures.LABEL_COLOURS[0])
    assert tuple(row[first]) == light
    assert [tuple(row[first + step]) for step in (1, 2, 3)] == [figures.LABEL_COLOURS[0]] * 2 + [(0, 0, 0)]


def test_labels_have_different_colours_also_beyond_the_palette():
    colours = {figures.label_colour(place) for place in range(40)}
    assert len(colours) == 40


def test_label_without_a_name_is_not_drawn():
    labels = empty()
    labels[1, 2, 4] = 7
    np.testing.assert_array_equal(draw(labels, None, 0, 1), draw(empty(), None, 0, 1))


def test_worst_slice_is_the_one_with_most_wrong_voxels_along_each_axis():
    reference, prediction = at(0, 0, 0), at(0, 0, 0)
    prediction[2, 1, 3:6] = 1
    prediction[2, 3, 3] = 1
    prediction[1, 3, 8] = 1
    assert [figures.worst_slice(prediction, reference, axis) for axis in range(3)] == [2, 1, 3]


def test_wrong_label_counts_as_an_error_like_a_missing_one():
    reference, prediction = at(1, 1, 1), at(1, 1, 1)
    reference[3, 2, 4:6] = 1
    prediction[3, 2, 4:6] = 2
    assert figures.worst_slice(prediction, reference, 0) == 3


def test_without_an_error_the_slice_with_the_most_foreground_is_shown_and_the_middle_of_an_empty_case():
    labels = at(3, 1, 2)
    assert figures.worst_slice(labels, labels, 0) == 3
    assert figures.worst_slice(labels, None, 2) == 2
    assert figures.worst_slice(empty(), empty(), 1) == 2


def test_window_maps_the_percentiles_to_black_and_white_and_ignores_one_hot_voxel():
    image = np.linspace(0.0, 1000.0, 1001, dtype=np.float32).reshape(1, 1, 1001)
    image[0, 0, -1] = 1.7e6
    grey = figures.window(image)[0, 0]
    assert grey[0] == grey[5] == 0 and grey[995] == grey[1000] == 255
    assert grey[500] == pytest.approx(127.5, abs=1.0)


def test_window_of_a_constant_image_is_black_and_of_one_bright_voxel_shows_it():
    assert not figures.window(np.full(SHAPE, 7.0)).any()
    lone = np.zeros((10, 10, 10))
    lone[3, 4, 5] = 2.0
    assert figures.window(lone)[3, 4, 5] == 255


@pytest.mark.parametrize(("width_mm", "bar_mm"), [(40.0, 10.0), (39.9, 5.0), (240.0, 50.0), (3.0, 0.5), (800.0, 200.0)])
def test_scale_bar_is_a_round_length_within_a_quarter_of_the_width(width_mm, bar_mm):
    assert figures.scale_bar_mm(width_mm) == pytest.approx(bar_mm)


def test_scale_bar_has_the_length_that_it_names():
    pixels = draw(empty(), None, 0, 0)  # 9 mm wide: a bar of 2 mm
    height, width = figures.picture_shape(SHAPE[1:], SPACING_MM[1:])
    row = pixels[height - 8, :, 0]
    assert np.count_nonzero(row[: width // 3] == 255) == pytest.approx(width * 2 / 9, abs=1)


def test_worst_pictures_are_one_per_axis_and_one_for_a_flat_image():
    labels = at(2, 3, 4)
    image = np.zeros(SHAPE, dtype=np.float32)
    pictures = figures.worst_pictures(image, labels, empty(), {1: "a"}, SPACING_MM)
    assert [picture.caption for picture in pictures] == [
        "axial, slice 3 of 4, 1 voxels differ", "coronal, slice 4 of 5, 1 voxels differ",
        "sagittal, slice 5 of 9, 1 voxels differ"]
    flat = figures.worst_pictures(image[:1], labels[:1], None, {1: "a"}, SPACING_MM)
    assert [picture.caption for picture in flat] == ["axial, slice 1 of 1"]
    assert all(p.pixels.dtype == np.uint8 and p.pixels.shape[2] == 3 for p in (*pictures, *flat))


def test_png_holds_exactly_the_pixels():
    pixels = np.random.default_rng(0).integers(0, 256, (7, 11, 3), dtype=np.uint8)
    np.testing.assert_array_equal(np.asarray(PillowImage.open(io.BytesIO(figures.encode_png(pixels)))), pixels)


def test_overlay_of_a_real_case_shows_prediction_and_reference(real_data):
    nibabel = pytest.importorskip("nibabel")
    case = sorted((real_data / "Dataset004_Hippocampus" / "labelsTr").glob("*.nii.gz"))[0]
    labels = np.asarray(nibabel.load(case).dataobj).T.astype(np.uint8)
    image_file = case.parents[1] / "imagesTr" / case.name.replace(".nii.gz", "_0000.nii.gz")
    image = np.asarray(nibabel.load(image_file).dataobj).T
    moved = np.roll(labels, 2, axis=1)
    for picture in figures.worst_pictures(image, moved, labels, {1: "Anterior", 2: "Posterior"}, (1.0, 1.0, 1.0)):
        colours = {tuple(colour) for colour in np.unique(picture.pixels.reshape(-1, 3), axis=0)}
        assert {figures.LABEL_COLOURS[0], figures.LABEL_COLOURS[1]} <= colours
