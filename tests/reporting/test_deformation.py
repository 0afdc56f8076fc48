"""Pictures of a registered pair: the right image on the right square, lines where the map says, colours that the legend names."""

from __future__ import annotations

import numpy as np
import pytest

from autoseg.core.errors import GeometryError
from autoseg.core.geometry import Geometry
from autoseg.ops.displacement import jacobian_determinant
from autoseg.reporting import deformation, drawing
from autoseg.reporting.deformation import Pair, checkerboard, deformed_grid, difference, jacobian_map, registration_pictures
from autoseg.reporting.figures import SIDES

SHAPE = (12, 20, 44)  # z, y, x: 36, 40 and 44 mm
GEOMETRY = Geometry(SHAPE, (3.0, 2.0, 1.0), (10.0, -20.0, 30.0))
PLAIN = np.ones((1, *SHAPE))
PLAIN[0, 0, 0, 0] = 0.0  # so that the body is the whole image but for nothing


@pytest.fixture(autouse=True)
def no_letters(monkeypatch):
    monkeypatch.setattr(drawing, "_write", lambda *_: None)
    monkeypatch.setattr(drawing, "draw_scale_bar", lambda pixels, *_: pixels)


def pair(fixed=None, before=None, warped=None, displacement=None, geometry=GEOMETRY) -> Pair:
    ramp = np.linspace(0, 100, np.prod(geometry.shape)).reshape(1, *geometry.shape)
    fixed = ramp if fixed is None else fixed
    displacement = np.zeros((3, *geometry.shape), np.float32) if displacement is None else displacement
    return Pair(fixed, fixed if before is None else before, fixed if warped is None else warped, displacement,
                jacobian_determinant(displacement, geometry), geometry, ("t1",), (False,))


def tile(pixels: np.ndarray, drawn: Pair, place: int) -> np.ndarray:
    """The picture of the slice across axis `place` in a row of three."""
    sizes = [deformation.shown_part(drawn.geometry, drawn.box, axis, drawn.pixel_mm)[1] for axis, _ in drawn.places]
    left = sum(size[1] + deformation.GAP_PX for size in sizes[:place])
    return pixels[:sizes[place][0], left:left + sizes[place][1]]


def test_squares_show_the_fixed_and_the_warped_image_in_turn():
    fixed = np.where(np.arange(SHAPE[0]) % 2, 50.0, 100.0)[None, :, None, None] * PLAIN
    drawn = pair(fixed, warped=(150.0 - fixed) * PLAIN)
    sagittal = tile(checkerboard(drawn).pixels, drawn, 2)[..., 0]
    # Along the middle of a voxel one image is bright and the other dark, so squares can be counted.
    middle = sagittal[round(2.5 * len(sagittal) / SHAPE[0])] > 127
    borders = np.flatnonzero(np.diff(middle.astype(int))) + 1
    side = min(sagittal.shape) // deformation.SQUARES
    np.testing.assert_array_equal(borders, np.arange(side, len(middle), side))


def test_difference_is_red_where_the_fixed_image_is_brighter_and_white_where_they_agree():
    fixed = np.zeros((1, *SHAPE))
    fixed[0, :, :10] = 100.0
    fixed[0, 0, 0, 0] = -1.0
    picture = difference(pair(fixed, before=fixed[:, :, ::-1]))
    drawn = pair(fixed)
    above = tile(picture.pixels, drawn, 0)
    below = picture.pixels[len(picture.pixels) // 2 + 5:]
    assert (above[20, 20] == deformation.DIVERGING[-1]).all() and (above[-20, 20] == deformation.DIVERGING[0]).all()
    assert np.abs(below[20, 20].astype(int) - 247).max() <= 1 and np.abs(below[-60, 20].astype(int) - 247).max() <= 1
    assert "mean difference 1.000 before, 0.000 after" in picture.caption


def columns_of_lines(drawn: Pair) -> np.ndarray:
    axial = tile(deformed_grid(drawn).pixels, drawn, 0)
    is_line = (axial == deformation.GRID_COLOUR).all(axis=-1)
    return np.flatnonzero(is_line.all(axis=0))


def test_lines_of_the_grid_are_as_far_apart_as_the_map_says():
    straight = pair(PLAIN)
    columns = columns_of_lines(straight)
    step_mm = np.diff(columns).mean() * straight.pixel_mm
    assert step_mm == pytest.approx(2.0, rel=0.03)
    # In the moving image everything is twice as far apart to the left, so its lines are half as far apart in the warped one.
    wide = np.zeros((3, *SHAPE), np.float32)
    wide[2] = np.arange(SHAPE[2]) * 1.0
    columns = columns_of_lines(pair(PLAIN, displacement=wide))
    assert np.diff(columns[3:-3]).mean() * straight.pixel_mm == pytest.approx(1.0, rel=0.05)
    assert "displacement 21.5 mm on average, 43 mm at most" in deformed_grid(pair(PLAIN, displacement=wide)).caption


def test_lines_bend_on_the_side_where_the_map_bends():
    """Towards superior only: the upper half of coronal and sagittal pictures."""
    bent = np.zeros((3, *SHAPE), np.float32)
    bent[2, 6:] = 0.9
    drawn = pair(PLAIN, displacement=bent)
    coronal = tile(deformed_grid(drawn).pixels, drawn, 1)
    straight = tile(deformed_grid(pair(PLAIN)).pixels, drawn, 1)
    differs = (coronal != straight).any(axis=(1, 2))
    assert differs[:len(differs) // 2 - 20].any() and not differs[len(differs) // 2 + 20:].any()


def test_the_colours_of_the_jacobian_are_those_of_the_legend_and_folds_are_black_with_an_outline():
    growing = np.zeros((3, *SHAPE), np.float32)
    growing[2] = np.arange(SHAPE[2]) * 0.5  # 1.5 times the volume everywhere
    picture = jacobian_map(pair(displacement=growing))
    colours = dict(picture.legend.entries)
    drawn = pair()
    assert (tile(picture.pixels, drawn, 0)[50, 50] == colours["volume times 1.5 and more"]).all()
    assert "no voxel folds" in picture.caption
    folding = growing.copy()
    folding[2, :, :, 20:24] -= 40 * np.arange(4)
    picture = jacobian_map(pair(displacement=folding))
    axial = tile(picture.pixels, drawn, 0)
    black = (axial == 0).all(axis=-1)
    columns = np.flatnonzero(black.any(axis=0)) * drawn.pixel_mm
    assert 18 < columns.min() < 22 and 22 < columns.max() < 25
    left = np.flatnonzero(black[100])[0]
    assert (axial[100, left - 1] == deformation.FOLDED_LINE).all()
    share = 100 * (jacobian_determinant(folding, GEOMETRY) <= 0).mean()
    assert f"{share:.4g} % of the voxels fold" in picture.caption


def test_all_pictures_show_the_same_slices_and_a_flat_image_its_only_one():
    captions = [picture.caption for picture in registration_pictures(pair())]
    slices = "axial slice 7 of 12, coronal slice 11 of 20, sagittal slice 23 of 44"
    assert len(captions) == 4 and all(slices in text for text in captions)
    flat = Geometry((1, 30, 40), (1.0, 1.0, 1.0), (3.0, 0.0, 0.0))
    pictures = registration_pictures(pair(geometry=flat))
    assert all(picture.pixels.shape[1] > picture.pixels.shape[0] / 2 and "slice" not in picture.caption for picture in pictures)
    assert all(picture.legend.notes == (SIDES,) for picture in pictures)


def test_images_of_two_scanners_have_their_own_black_and_white():
    fixed = np.random.default_rng(0).random((1, *SHAPE))
    picture = difference(pair(fixed, before=fixed * 1000 + 5, warped=fixed * 1000 + 5))
    assert "0.000 before, 0.000 after" in picture.caption


def test_what_is_not_on_the_fixed_grid_is_refused():
    with pytest.raises(GeometryError, match="the warped image has"):
        pair(warped=np.zeros((1, 2, 3, 4)))
