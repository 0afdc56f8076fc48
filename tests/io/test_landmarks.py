from __future__ import annotations

import json

import numpy as np
import pytest
from fields import image_on, stored_grid

from autoseg.core.errors import AutosegError, DatasetError
from autoseg.io.images import read_image, write_label_map
from autoseg.io.landmarks import Landmarks, paired, read_landmarks

IMAGE = image_on(stored_grid(angles_deg=(-20, 9, 41), axes=(1, 2, 0), signs=(1, -1, -1)))
# Stored voxels x, y, z, and where they lie in the world (S, P, L).
VOXELS = np.array([[3, 4, 5], [20, 1, 13], [0, 17, 0]])
WORLD = np.array([IMAGE.stored.position_mm(tuple(voxel[::-1])) for voxel in VOXELS])
NAMES = ("apex", "tip, left", "3")


def table(columns: str, points, names=NAMES, delimiter=",") -> str:
    rows = [delimiter.join([f'"{name}"', *(repr(float(value)) for value in point)])
            for name, point in zip(names, points, strict=True)]
    return "\n".join([columns.replace(",", delimiter), *rows]) + "\n"


def markups(points, frame="LPS", **more) -> str:
    controls = [{"id": str(number), "label": name, "position": list(map(float, point)), "positionStatus": "defined"}
                for number, (name, point) in enumerate(zip(NAMES, points, strict=True))]
    return json.dumps({"@schema": "https://raw.githubusercontent.com/slicer/markups-schema-v1.0.3.json#",
                       "markups": [{"type": "Fiducial", "coordinateSystem": frame, "coordinateUnits": "mm",
                                    "controlPoints": controls, **more}]})


def fcsv(points, frame="LPS") -> str:
    # Two cells more than are named, as newer versions write them.
    rows = [f"{number},{','.join(repr(float(value)) for value in point)},0,0,0,1,1,1,0,F-{number},,,2,0"
            for number, point in enumerate(points, start=1)]
    return "\n".join(["# Markups fiducial file version = 5.4", f"# CoordinateSystem = {frame}",
                      "# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID", *rows]) + "\n"


LPS, RAS = WORLD[:, ::-1], WORLD[:, ::-1] * [-1, -1, 1]


@pytest.mark.parametrize(("name", "text"), [
    ("a.csv", table("name,l,p,s", LPS)), ("a.csv", table("Label,R,A,S", RAS)), ("a.csv", table("name,x_mm,y_mm,z_mm", LPS)),
    ("a.csv", table("name,z_mm,y_mm,x_mm", LPS[:, ::-1])), ("a.csv", table("id,i,j,k", VOXELS)),
    ("a.csv", table("name,z_voxel,y_voxel,x_voxel", VOXELS[:, ::-1])), ("a.tsv", table("name,l,p,s", LPS, delimiter="\t")),
    ("a.mrk.json", markups(LPS)), ("a.mrk.json", markups(RAS, "RAS")), ("a.mrk.json", markups(LPS, coordinateUnits=["mm"] * 3)),
])
def test_every_frame_gives_the_same_points(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    found = read_landmarks(tmp_path / name, IMAGE)
    assert found.names == NAMES
    np.testing.assert_allclose(found.points_mm, WORLD, atol=1e-9)


@pytest.mark.parametrize(("frame", "points"), [("LPS", LPS), ("1", LPS), ("RAS", RAS), ("0", RAS)])
def test_fiducials_of_old_slicers_are_read_in_their_frame(tmp_path, frame, points):
    (tmp_path / "a.fcsv").write_text(fcsv(points, frame))
    found = read_landmarks(tmp_path / "a.fcsv", IMAGE)
    assert found.names == ("F-1", "F-2", "F-3")
    np.testing.assert_allclose(found.points_mm, WORLD, atol=1e-9)


def test_ants_own_tables_are_left_posterior_superior(tmp_path):
    (tmp_path / "a.csv").write_text("x,y,z,t\n" + "\n".join(",".join(map(repr, map(float, point))) + ",0" for point in LPS))
    found = read_landmarks(tmp_path / "a.csv", IMAGE)
    assert found.names == ("1", "2", "3")
    np.testing.assert_allclose(found.points_mm, WORLD, atol=1e-9)


def test_dir_labs_voxels_begin_at_one(tmp_path):
    (tmp_path / "case1_T00_xyz.txt").write_text("".join(f" {x + 1}\t{y + 1} \t{z + 1}\r\n" for x, y, z in VOXELS))
    found = read_landmarks(tmp_path / "case1_T00_xyz.txt", IMAGE)
    assert found.names == ("1", "2", "3")
    np.testing.assert_allclose(found.points_mm, WORLD, atol=1e-9)


def test_landmarks_that_are_drawn_are_the_middles_of_their_voxels(tmp_path):
    label = np.zeros(IMAGE.stored.shape, np.uint8)
    label[5, 4, 3], label[13, 1, 20] = 7, 2
    label[0, 16:18, 0] = 11
    write_label_map(tmp_path / "l.nii.gz", IMAGE.orientation.apply(label), IMAGE)
    found = read_landmarks(tmp_path / "l.nii.gz", IMAGE)
    assert found.names == ("2", "7", "11")
    expected = [IMAGE.stored.position_mm(index) for index in ((13, 1, 20), (5, 4, 3), (0, 16.5, 0))]
    np.testing.assert_allclose(found.points_mm, expected, atol=1e-4)  # the header has 32-bit floats


def test_a_value_in_two_places_and_another_grid_are_no_landmarks(tmp_path):
    label = np.zeros(IMAGE.geometry.shape, np.uint8)
    label[1, 1, 1] = label[1, 1, 4] = 3
    write_label_map(tmp_path / "l.nii.gz", label, IMAGE)
    with pytest.raises(DatasetError, match="value 3 stands in several places") as caught:
        read_landmarks(tmp_path / "l.nii.gz", IMAGE)
    assert caught.value.code == "E_LANDMARK"
    with pytest.raises(DatasetError, match="resample the label map") as caught:
        read_landmarks(tmp_path / "l.nii.gz", image_on(stored_grid()))
    assert caught.value.code == "E_GRID"


FAR = WORLD[:, ::-1] + [[0, 0, 0], [0, 0, 500], [0, 0, 0]]
NAN = table("name,l,p,s", [[1, 2, 3], [4, 5, 6]], NAMES[:2]).replace("5.0", "nan")


@pytest.mark.parametrize(("name", "text", "message", "code"), [
    ("a.csv", table("name,l,p,s", FAR), r"tip, left of 3 landmarks outside .*\(z, y, x\)\. Are axes, signs",
     "E_LANDMARK_OUTSIDE"),
    ("a.mrk.json", markups(FAR), "outside the image", "E_LANDMARK_OUTSIDE"),
    ("a.txt", "1 2 999\n", "1 of 1 landmarks outside", "E_LANDMARK_OUTSIDE"),
    ("a.csv", NAN, "tip, left has a coordinate that is no finite number", "E_LANDMARK"),
    ("a.csv", "l,p,s\n1,,3\n", "1 has a coordinate that is no finite number", "E_LANDMARK"),
    ("a.csv", table("name,l,p,s", LPS, ("a", "b", "a")), "a stands for several landmarks", "E_LANDMARK"),
    ("a.csv", "x,y,z\n1,2,3\n", "say no frame that is known. Call them l, p, s: millimetres to left", "E_LANDMARK"),
    ("a.csv", "i,j,k,r,a,s\n1,2,3,1,2,3\n", "say several frames", "E_LANDMARK"),
    ("a.csv", "l,p,s\n1,2,12_5\n", "row 2 holds '12_5' where a coordinate", "E_LANDMARK"),
    ("a.csv", "l,p,s\n", "holds no landmark", "E_LANDMARK"), ("a.txt", "\n", "holds no landmark", "E_LANDMARK"),
    ("a.csv", "l,p,s\n1,2\n", "row 2 does not have the 3 cells", "E_TABLE"),
    ("a.txt", "1 2 3\n4 5\n", "row 2 is '4 5'", "E_LANDMARK"), ("a.txt", "1.5 2 3\n", "three whole numbers", "E_LANDMARK"),
    ("a.txt", "0 2 3\n", "from 1", "E_LANDMARK"), ("a.txt", "\udcff".encode("utf-8", "surrogateescape"), "not UTF-8", "E_READ"),
    ("a.fcsv", fcsv(LPS, "IJK"), "frame 'IJK'; LPS or RAS", "E_LANDMARK"),
    ("a.fcsv", fcsv(LPS).replace("# CoordinateSystem = LPS\n", ""), "LPS or RAS is expected", "E_LANDMARK"),
    ("a.fcsv", fcsv(LPS)[:-60] + "\n", "does not have the cells", "E_LANDMARK"),
    ("a.mrk.json", markups(LPS, "XYZ"), "frame 'XYZ'", "E_LANDMARK"),
    ("a.mrk.json", markups(LPS, type="Line"), "no list of points", "E_LANDMARK"),
    ("a.mrk.json", markups(LPS, coordinateUnits="in"), "mm are expected", "E_LANDMARK"),
    ("a.mrk.json", markups(LPS).replace('"defined"', '"undefined"'), "'apex' has no position", "E_LANDMARK"),
    ("a.mrk.json", json.dumps({"markups": []}), "no list of points", "E_LANDMARK"),
    ("a.mrk.json", '{"markups": [', "not valid JSON", "E_JSON"),
    ("a.mrk.json", markups(LPS).replace("LPS", "LPS\\u0000"), "control characters", "E_DOCUMENT"),
    ("a.pkl", "x", "landmarks are read from", "E_FORMAT"),
])
def test_landmarks_that_cannot_be_used_are_refused_and_told_apart(tmp_path, name, text, message, code):
    content = text if isinstance(text, bytes) else text.encode()
    (tmp_path / name).write_bytes(content)
    with pytest.raises(AutosegError, match=message) as caught:
        read_landmarks(tmp_path / name, IMAGE)
    assert caught.value.code == code and str(tmp_path / name) in str(caught.value)


def test_a_missing_file_is_told():
    from pathlib import Path

    with pytest.raises(AutosegError, match="does not exist"):
        read_landmarks(Path("nowhere.txt"), IMAGE)


def test_pairs_are_made_by_name_and_names_in_one_image_only_are_told():
    fixed, moving = Landmarks(("a", "b"), WORLD[:2]), Landmarks(("b", "a"), WORLD[:2])
    names, one, other = paired(fixed, moving, "pair")
    assert names == ("a", "b")
    np.testing.assert_array_equal(one[::-1], other)
    with pytest.raises(DatasetError,
                       match="p: landmarks differ: a only in the fixed image; c only in the moving image") as caught:
        paired(fixed, Landmarks(("b", "c"), WORLD[:2]), "p")
    assert caught.value.code == "E_LANDMARK"


def test_the_fetal_atlas_has_the_same_seven_landmarks_in_every_week(real_data):
    folder = real_data / "Dataset105_FetalBrainSB"
    found = []
    for case in ("fetalSB_GA21_notoperated", "fetalSB_GA34_operated"):
        image = read_image([folder / "imagesTr" / f"{case}_0000.nii.gz"])
        found.append(read_landmarks(folder / "landmarks" / f"{case}.nii.gz", image))
    names, one, other = paired(*found, "atlas")
    assert names == ("1", "2", "3", "4", "5", "10", "11")
    # Voxel 74, 123, 87 along x, y, z of an affine of 0.8 mm from -53.6, -75.2, -61.6 (right, anterior, superior).
    np.testing.assert_allclose(one[0], (-61.6 + 0.8 * 87, 75.2 - 0.8 * 123, 53.6 - 0.8 * 74), atol=1e-3)
    assert 5 < np.linalg.norm(one - other, axis=1).mean() < 20
