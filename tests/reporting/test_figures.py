"""Pictures of a case: the patient's sides, sizes in millimetres, slices of largest error, legend."""

from __future__ import annotations

import numpy as np
import pytest

from autoseg.core.geometry import Geometry
from autoseg.reporting import drawing, figures
from autoseg.reporting.colours import label_colours
from autoseg.reporting.contrast import Backdrop
from autoseg.reporting.figures import Scene, Structure

SPACING_MM = (3.0, 2.0, 1.0)
SHAPE = (12, 20, 44)  # z, y, x: 36, 40 and 44 mm
GEOMETRY = Geometry(SHAPE, SPACING_MM, (10.0, -20.0, 30.0))
TUMOUR = (Structure("tumour", (1,)),)
WHOLE = tuple((0, size) for size in SHAPE)


def empty() -> np.ndarray:
    return np.zeros(SHAPE, dtype=np.uint8)


def at(*index) -> np.ndarray:
    labels = empty()
    labels[index] = 1
    return labels


def scene(prediction=None, reference=None, structures=TUMOUR, geometry=GEOMETRY) -> Scene:
    return Scene(empty() if prediction is None else prediction, reference, structures, geometry)


def backdrop(voxels=None) -> Backdrop:
    return Backdrop((np.zeros(SHAPE) if voxels is None else voxels)[None], (0.0, 1.0), "grey")


def draw(shown: Scene, axis: int, index: int, pixel_mm: float = 0.1, behind: Backdrop | None = None) -> np.ndarray:
    return figures.overlay(shown, behind or backdrop(), WHOLE, axis, index, pixel_mm)


def centre_of(bright: np.ndarray) -> tuple[float, float]:
    """Mean row and column of bright pixels, as shares of height and width."""
    found = np.argwhere(bright)
    return float((found[:, 0].mean() + 0.5) / bright.shape[0]), float((found[:, 1].mean() + 0.5) / bright.shape[1])


@pytest.mark.parametrize(("axis", "index", "share"), [
    (0, 9, (16.0 / 20, 40.0 / 44)),  # axial: posterior below, left on the right
    (1, 16, (2.5 / 12, 40.0 / 44)),  # coronal: superior above, left on the right
    (2, 40, (2.5 / 12, 16.0 / 20)),  # sagittal: superior above, posterior on the right
])
def test_a_bright_block_at_the_left_back_top_of_the_patient_stands_on_its_side(monkeypatch, axis, index, share):
    image = np.zeros(SHAPE)
    image[8:11, 15:17, 38:42] = 1.0  # z to superior, y to posterior, x to left
    letters = {}
    monkeypatch.setattr(drawing, "_write", lambda canvas, place, text, *_: letters.update({text: place}))
    pixels = draw(scene(), axis, index, behind=backdrop(image))
    pixels[-20:, :130] = 0  # the scale bar
    assert centre_of(pixels[:, :, 0] > 128) == pytest.approx(share, abs=0.01)
    height, width = pixels.shape[:2]
    right, below = ("L", "P") if axis == 0 else ("L", "I") if axis == 1 else ("P", "I")
    assert letters[right] == (width - 4, height / 2) and letters[below] == (width / 2, height - 4)


@pytest.mark.parametrize(("axis", "voxel", "share"), [
    (0, (1, 17, 41), (17.5 / 20, 41.5 / 44)), (1, (9, 12, 41), (2.5 / 12, 41.5 / 44)), (2, (1, 17, 43), (10.5 / 12, 17.5 / 20))])
def test_a_contour_stands_where_its_voxel_is(axis, voxel, share):
    pixels = draw(scene(at(*voxel)), axis, voxel[axis])
    assert centre_of((pixels == label_colours(1)[0]).all(axis=2)) == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize(("axis", "millimetres"), [(0, (40, 44)), (1, (36, 44)), (2, (36, 40))])
def test_pixels_are_square_in_millimetres(axis, millimetres):
    assert draw(scene(), axis, 1, pixel_mm=0.1).shape == (millimetres[0] * 10, millimetres[1] * 10, 3)


def test_scale_bar_is_as_many_pixels_as_its_millimetres(monkeypatch):
    texts = []
    monkeypatch.setattr(drawing, "_write", lambda canvas, place, text, *_: texts.append(text))
    pixels = draw(scene(), 0, 0, pixel_mm=0.125)  # 44 mm wide: a bar of 1 cm, 80 pixels
    assert np.count_nonzero(pixels[-2 * drawing.MARGIN_PX - 1, :, 0] == 255) == round(10.0 / 0.125)
    assert texts[-1] == "1 cm"


@pytest.mark.parametrize(("width_mm", "bar_mm", "text"), [
    (40.0, 10.0, "1 cm"), (39.9, 5.0, "5 mm"), (240.0, 50.0, "5 cm"), (3.0, 0.5, "0.5 mm"), (800.0, 200.0, "20 cm"),
    (0.2, 0.05, "50 µm")])
def test_scale_bar_is_a_round_length_within_a_quarter_of_the_width(width_mm, bar_mm, text):
    assert figures.scale_bar_length(width_mm) == pytest.approx(bar_mm)
    assert figures.length_text(figures.scale_bar_length(width_mm)) == text


def test_prediction_is_solid_and_reference_dashed_and_lighter_in_the_colour_of_the_label():
    labels = empty()
    labels[1, 5:15, 10:34] = 1
    colour = label_colours(1)[0]
    light = drawing.lighter(colour, figures.REFERENCE_WHITENESS)
    solid = draw(scene(labels), 0, 1)
    dashed = draw(scene(empty(), labels), 0, 1)
    top, columns = 5 * 20, slice(105, 335)  # 0.1 mm pixels: rows of 2 mm, columns of 1 mm; without the corners
    assert (solid[top:top + 3, columns] == colour).all()
    on_line = (dashed[top, columns] == light).all(axis=1)
    assert 0.4 < on_line.mean() < 0.7 and not (dashed == colour).all(axis=2).any()


def test_where_both_agree_light_dashes_lie_on_the_solid_line():
    labels = empty()
    labels[1, 5:15, 10:34] = 1
    pixels = draw(scene(labels, labels), 0, 1)
    line = pixels[5 * 20, 105:335]
    colours = {tuple(int(value) for value in pixel) for pixel in line}
    assert colours == {label_colours(1)[0], drawing.lighter(label_colours(1)[0], figures.REFERENCE_WHITENESS)}


def test_overlapping_regions_have_a_contour_each():
    labels = empty()
    labels[1, 3:17, 6:38] = 2
    labels[1, 8:12, 16:28] = 1
    regions = (Structure("whole", (1, 2)), Structure("core", (1,)))
    pixels = draw(scene(labels, structures=regions), 0, 1)
    whole, core = ((pixels == colour).all(axis=2) for colour in label_colours(2))
    assert [np.argwhere(found).min(axis=0).tolist() for found in (whole, core)] == [[60, 60], [160, 160]]
    assert not whole[100:, 100:300][:140].any()  # the region's contour does not run along the border of its part


def test_index_without_a_structure_is_neither_drawn_nor_an_error():
    labels = at(1, 2, 4)
    ignored = np.where(labels == 1, 255, 0).astype(np.uint8)
    np.testing.assert_array_equal(draw(scene(empty(), ignored), 0, 1), draw(scene(empty(), empty()), 0, 1))
    assert not figures.errors(scene(labels, ignored)).any()
    assert figures.errors(scene(labels, empty())).sum() == 1


def test_labels_of_the_same_regions_may_be_exchanged_without_an_error():
    one, other = at(1, 2, 4), at(1, 2, 4) * 2
    assert not figures.errors(scene(one, other, (Structure("both", (1, 2)),))).any()
    assert figures.errors(scene(one, other, (Structure("both", (1, 2)), Structure("core", (2,))))).any()


def places(shown: Scene) -> list[tuple[int, int]]:
    return figures.worst_places(shown, figures.errors(shown))


def test_the_slice_with_most_wrong_voxels_is_shown_along_each_axis():
    reference, prediction = at(0, 0, 0), at(0, 0, 0)
    prediction[2, 1, 3:6] = 1
    prediction[2, 3, 3] = 1
    prediction[1, 3, 8] = 1
    assert places(scene(prediction, reference)) == [(0, 2), (1, 1), (2, 3)]


def test_without_an_error_the_slice_with_the_most_foreground_is_shown_and_the_middle_of_an_empty_case():
    labels = at(3, 1, 2)
    assert places(scene(labels, labels)) == places(scene(labels)) == [(0, 3), (1, 1), (2, 2)]
    assert places(scene(empty(), empty())) == [(0, 6), (1, 10), (2, 22)]


def test_thick_slices_are_shown_in_their_own_plane_and_not_next_to_each_other():
    thick = Geometry((27, 20, 44), (6.5, 0.78, 0.78), (1.0, 1.0, 1.0))
    prediction, reference = np.zeros((2, *thick.shape), dtype=np.uint8)
    for index, count in ((4, 9), (5, 8), (20, 5), (12, 3), (13, 2)):
        prediction[index, 0, :count] = 1
    # 27 slices: a ninth, 3 slices, lies between two pictures
    assert places(scene(prediction, reference, geometry=thick)) == [(0, 4), (0, 20), (0, 12)]
    assert figures.thick_axis(thick) == 0 and figures.thick_axis(GEOMETRY) is None


def test_thick_slices_are_shown_with_the_aspect_of_their_pixels():
    thick = Geometry((9, 40, 50), (6.5, 0.5, 1.0), (1.0, 1.0, 1.0))
    labels = np.zeros(thick.shape, dtype=np.uint8)
    labels[2:7, 2:38, 2:48] = 1
    *slices, _ = figures.case_pictures(np.zeros((1, *thick.shape)), ["MRI"], [False], scene(labels, geometry=thick))
    assert [picture.pixels.shape[1] / picture.pixels.shape[0] for picture in slices] == pytest.approx([2.5] * 3, rel=0.01)


def test_small_structures_are_cut_out_with_a_margin_and_large_ones_shown_whole():
    labels = empty()
    labels[5:7, 8:12, 20:28] = 1  # 6 x 8 x 8 mm; a quarter of it on every side: 9 x 12 x 12 mm
    assert figures.zoom_box(scene(labels)) == ((4, 8), (7, 13), (18, 30))
    labels[1:11, 2:18, 3:40] = 1
    assert figures.zoom_box(scene(labels)) == figures.zoom_box(scene(empty())) == WHOLE


def test_three_planes_share_a_scale_and_fit_side_by_side():
    pictures = figures.case_pictures(np.zeros((1, *SHAPE)), ["MRI"], [False], scene(at(slice(1, 11), slice(1, 19), slice(1, 43))))
    shapes = [picture.pixels.shape[:2] for picture in pictures[:3]]
    assert shapes[0][1] == shapes[1][1] and shapes[1][0] == shapes[2][0]
    assert abs(shapes[0][0] - shapes[2][1]) <= 1
    assert sum(width for _, width in shapes) == pytest.approx(figures.ROW_PX, abs=2)


def test_overview_shows_slices_evenly_through_the_reference():
    reference = empty()
    reference[2:10, 5, 5] = 1
    pictures = figures.case_pictures(np.zeros((1, *SHAPE)), ["MRI"], [False], scene(at(11, 1, 1), reference))
    assert pictures[-1].caption == "overview: axial slice 3, 4, 5, 6, 7, 8, 9, 10 of 12; grey from 0 to 0"


def test_captions_say_plane_slice_errors_window_and_tilt():
    labels = at(2, 3, 4)
    image = np.linspace(0.0, 1.0, labels.size).reshape(1, *SHAPE)
    captions = [p.caption for p in figures.case_pictures(image, ["MRI"], [False], scene(labels, empty()))]
    assert captions[0] == "axial slice 3 of 12; 1 voxel differs; grey from 0.005094 to 0.995"
    nod = ((0.98, 0.2, 0.0), (-0.2, 0.98, 0.0), (0.0, 0.0, 1.0))
    tilted = Geometry(SHAPE, SPACING_MM, (1.0, 1.0, 1.0), nod)
    assert figures.case_pictures(image, ["MRI"], [False], scene(labels, geometry=tilted))[0].caption.endswith("; oblique by 11°")


def test_a_flat_image_without_a_position_has_no_letters_and_says_so(monkeypatch):
    texts = []
    monkeypatch.setattr(drawing, "_write", lambda canvas, place, text, *_: texts.append(text))
    flat = Geometry((1, 256, 256), (1.0, 1.0, 1.0))
    colours = np.random.default_rng(0).integers(0, 256, (3, *flat.shape)).astype(np.uint8)
    labels = np.zeros(flat.shape, dtype=np.uint8)
    (picture,) = figures.case_pictures(colours, ["r", "g", "b"], [False] * 3, scene(labels, labels, geometry=flat))
    assert texts == ["50 px"]
    assert picture.caption == "0 pixels differ; in colour; orientation not known, pixel size not known"
    assert picture.pixels.shape == (320, 320, 3) and figures.SIDES not in picture.legend.notes


def test_a_volume_without_a_position_names_the_axis_instead_of_a_plane():
    stack = Geometry(SHAPE, (2.0, 0.5, 0.5))
    pictures = figures.case_pictures(np.zeros((1, *SHAPE)), ["a"], [False], scene(at(2, 3, 4), geometry=stack))
    assert pictures[0].caption == "slice across z 3 of 12; grey from 0 to 0; orientation not known"
    assert pictures[0].legend.notes == ()


def test_a_flat_sagittal_image_is_shown_across_its_own_axis():
    flat = Geometry((20, 30, 1), (2.0, 1.0, 5.0), (1.0, 2.0, 3.0))
    (picture,) = figures.case_pictures(np.zeros((1, *flat.shape)), ["MRI"], [False],
                                       scene(np.zeros(flat.shape, np.uint8), geometry=flat))
    assert picture.caption.startswith("sagittal slice 1 of 1") and picture.pixels.shape[:2] == (427, 320)


@pytest.mark.parametrize("count", [2, 8, 60])
def test_legend_names_every_label_in_a_colour_of_its_own_and_numbers_many(count):
    legend = figures.legend_of(scene(structures=tuple(Structure(f"organ {k}", (k,)) for k in range(1, count + 1))))
    names, colours = zip(*legend.entries, strict=True)
    assert len(set(colours)) == count and all(f"organ {k}" in name for k, name in enumerate(names, start=1))
    assert (figures.NUMBERS in legend.notes) == (names[0] == "1 organ 1") == (count > 7)


def test_pictures_of_a_real_case_show_prediction_and_reference(real_data):
    nibabel = pytest.importorskip("nibabel")
    case = sorted((real_data / "Dataset004_Hippocampus" / "labelsTr").glob("*.nii.gz"))[0]
    labels = np.asarray(nibabel.load(case).dataobj).T.astype(np.uint8)
    image_file = case.parents[1] / "imagesTr" / case.name.replace(".nii.gz", "_0000.nii.gz")
    image = np.asarray(nibabel.load(image_file).dataobj).T
    parts = (Structure("Anterior", (1,)), Structure("Posterior", (2,)))
    shown = scene(np.roll(labels, 2, axis=1), labels, parts, Geometry(labels.shape, (1.0, 1.0, 1.0), (1.0, 1.0, 1.0)))
    overview = figures.case_pictures(image[None], ["MRI"], [False], shown)[-1]
    colours = {tuple(colour) for colour in np.unique(overview.pixels.reshape(-1, 3), axis=0).tolist()}
    light = {drawing.lighter(colour, figures.REFERENCE_WHITENESS) for colour in label_colours(2)}
    assert {*label_colours(2), *light} <= colours
