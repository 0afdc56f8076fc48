"""Heat maps over images: the right place, the right slice, and colours that the legend names."""

from __future__ import annotations

import numpy as np
import pytest

from autoseg.core.errors import GeometryError
from autoseg.core.geometry import Geometry
from autoseg.reporting import drawing, heat
from autoseg.reporting.contrast import Backdrop
from autoseg.reporting.figures import SIDES

SHAPE = (12, 20, 44)  # z, y, x: 36, 40 and 44 mm
GEOMETRY = Geometry(SHAPE, (3.0, 2.0, 1.0), (10.0, -20.0, 30.0))
WHOLE = tuple((0, size) for size in SHAPE)


def image(value: float = 100.0) -> np.ndarray:
    voxels = np.full((1, *SHAPE), value)
    voxels[0, 0, 0, 0] = 0.0  # so that the body is the whole image but for nothing
    return voxels


def at(box: tuple[slice, ...], value: float = 1.0) -> np.ndarray:
    evidence = np.zeros(SHAPE, np.float32)
    evidence[box] = value
    return evidence


def draw(evidence: np.ndarray, axis: int, index: int) -> np.ndarray:
    backdrop = Backdrop(np.zeros((1, *SHAPE)), (0.0, 1.0), "grey")
    return heat.heat_overlay(evidence, backdrop, GEOMETRY, WHOLE, axis, index, 0.1)


@pytest.mark.parametrize(("axis", "index", "share"), [
    (0, 9, (16.0 / 20, 40.0 / 44)),  # axial: posterior below, left on the right
    (1, 16, (2.5 / 12, 40.0 / 44)),  # coronal: superior above, left on the right
    (2, 40, (2.5 / 12, 16.0 / 20)),  # sagittal: superior above, posterior on the right
])
def test_evidence_at_the_left_back_top_of_the_patient_stands_on_its_side(monkeypatch, axis, index, share):
    monkeypatch.setattr(drawing, "_write", lambda *_: None)
    pixels = draw(at((slice(8, 11), slice(15, 17), slice(38, 42))), axis, index)
    pixels[-20:, :130] = 0  # the scale bar
    found = np.argwhere(pixels[..., 0] > 60)
    centre = (found[:, 0].mean() + 0.5) / pixels.shape[0], (found[:, 1].mean() + 0.5) / pixels.shape[1]
    assert centre == pytest.approx(share, abs=0.01)


def test_colour_of_the_largest_evidence_is_mixed_with_the_image(monkeypatch):
    monkeypatch.setattr(drawing, "_write", lambda *_: None)
    evidence = np.full(SHAPE, 2.0, np.float32)
    black = draw(evidence, 0, 5)
    white = heat.heat_overlay(evidence, Backdrop(np.ones((1, *SHAPE)), (0.0, 1.0), ""), GEOMETRY, WHOLE, 0, 5, 0.1)
    top = np.array(heat.RAMP[-1])
    assert np.abs(black[200, 200] - 0.5 * top).max() <= 1
    assert np.abs(white[200, 200] - (0.5 * top + 0.5 * 255)).max() <= 1


def test_what_is_not_above_0_leaves_the_image_as_it_is():
    voxels = np.random.default_rng(0).random((1, *SHAPE))
    (first, *_) = heat.heat_pictures(voxels, ("t1",), (False,), at((slice(None),) * 3, -3.0), GEOMETRY, title="Grad-CAM")
    assert "no evidence" in first.caption and (first.pixels.max(axis=2) == first.pixels.min(axis=2)).all()


def test_slices_are_those_with_most_evidence_and_shares_are_those_of_the_whole_map():
    evidence = at((slice(7, 8), slice(3, 9), slice(30, 36)), 1.0) + at((slice(2, 3), slice(3, 4), slice(5, 6)), 4.0)
    assert [heat.largest_slice(evidence, axis) for axis in range(3)] == [7, 3, 30]
    assert heat.largest_slice(np.zeros(SHAPE), 0) == 6
    pictures = heat.heat_pictures(image(), ("t1",), (False,), evidence, GEOMETRY, title="Grad-CAM of tumour")
    assert [picture.caption.split("; ")[:3] for picture in pictures] == [
        ["Grad-CAM of tumour", f"{plane} slice {index} of {count}", "largest evidence 4"]
        for plane, index, count in (("axial", 8, 12), ("coronal", 4, 20), ("sagittal", 31, 44))]


def test_there_is_no_line_in_a_slice_with_less_than_half_of_the_largest_evidence(monkeypatch):
    monkeypatch.setattr(drawing, "_write", lambda *_: None)
    evidence = at((slice(7, 8), slice(3, 9), slice(30, 36)), 1.0) + at((slice(2, 3), slice(3, 4), slice(5, 6)), 4.0)
    is_line = [(draw(evidence, 0, index)[:300] == 255).all(axis=2).any() for index in (7, 2)]  # the scale bar is below
    assert is_line == [False, True]


def test_line_surrounds_what_has_half_of_the_largest_evidence():
    evidence = at((slice(5, 6), slice(4, 12), slice(10, 30)), 1.0)
    pixels = draw(evidence, 0, 5)
    rows, columns = np.nonzero((pixels[60:-60, 60:-60] == 255).all(axis=2))
    # voxels of 2 by 1 mm at 0.1 mm per pixel, without the 60 pixels of the border
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == pytest.approx((20, 179, 40, 239), abs=2)


def test_a_flat_image_has_one_picture_without_letters_where_nothing_is_known_of_the_patient():
    geometry = Geometry((1, 30, 40), (1.0, 1.0, 1.0))
    voxels = np.random.default_rng(0).random((1, 1, 30, 40))
    evidence = np.zeros((1, 30, 40), np.float32)
    evidence[0, 10, 10] = 0.5
    (picture,) = heat.heat_pictures(voxels, ("image",), (False,), evidence, geometry, title="CAM")
    assert picture.caption.startswith("CAM; largest evidence 0.5; grey from") and SIDES not in picture.legend.notes
    assert SIDES in heat.legend(GEOMETRY).notes


def test_thick_slices_are_shown_in_their_plane_only():
    geometry = Geometry(SHAPE, (5.0, 1.0, 1.0), (10.0, -20.0, 30.0))
    evidence = at((slice(4, 5), slice(3, 6), slice(5, 9)))
    (picture,) = heat.heat_pictures(image(), ("t1",), (False,), evidence, geometry, title="CAM")
    assert "axial slice 5 of 12" in picture.caption


def test_colours_of_the_legend_grow_lighter():
    entries = heat.legend(GEOMETRY).entries
    assert [name for name, _ in entries] == [f"{share}% of the largest evidence" for share in (25, 50, 75, 100)]
    brightness = [0.2126 * r + 0.7152 * g + 0.0722 * b for _, (r, g, b) in entries]
    assert brightness == sorted(brightness) and entries[-1][1] == heat.RAMP[-1]


def test_a_heat_map_on_another_grid_is_refused():
    with pytest.raises(GeometryError, match=r"\(12, 20, 43\)"):
        heat.heat_pictures(image(), ("t1",), (False,), np.zeros((12, 20, 43)), GEOMETRY, title="CAM")


@pytest.mark.parametrize(("axis", "index"), [(0, 9), (1, 16), (2, 40)])
def test_an_outline_surrounds_the_evidence_of_its_voxels(monkeypatch, axis, index):
    monkeypatch.setattr(drawing, "_write", lambda *_: None)
    box = ((8, 11), (15, 17), (38, 42))
    evidence = at(tuple(slice(*side) for side in box))
    outline = heat.Outline(box, "found", (1, 200, 3))
    backdrop = Backdrop(np.zeros((1, *SHAPE)), (0.0, 1.0), "grey")
    pixels = heat.heat_overlay(evidence, backdrop, GEOMETRY, WHOLE, axis, index, 0.1, (outline,))
    line = np.argwhere((pixels == outline.colour).all(axis=2))
    lit = np.argwhere(draw(evidence, axis, index)[:-20, 130:][..., 0] > 60) + (0, 130)
    assert np.abs(line.min(axis=0) - lit.min(axis=0)).max() <= 12 and np.abs(line.max(axis=0) - lit.max(axis=0)).max() <= 12
    other = heat.heat_overlay(evidence, backdrop, GEOMETRY, WHOLE, axis, 2, 0.1, (outline,))
    assert not (other == outline.colour).all(axis=2).any()  # a slice that the box does not reach into


def test_outlines_stand_in_the_legend_once():
    outlines = [heat.Outline(((0, 1),) * 3, "found", (1, 2, 3)), heat.Outline(((1, 2),) * 3, "found", (1, 2, 3))]
    assert heat.legend(GEOMETRY, outlines).entries[4:] == (("found", (1, 2, 3)),)
