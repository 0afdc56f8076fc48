"""JPEG where a specification accepts it, and colours where grey is expected."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image as PillowImage

from autoseg.core.errors import ReadError
from autoseg.core.spec import DatasetSpec, InputSpec, LayoutSpec
from autoseg.io.images import Accepted, read_geometry, read_image, read_label_map, write_label_map, written_ending

LOSSY, LUMINANCE = Accepted(lossy=True), Accepted(lossy=True, luminance=True)
# Blocks of 8 x 8 equal pixels survive the compression at full quality.
CORNERS = np.kron(np.array([[10, 60, 110], [160, 200, 240]], np.uint8), np.ones((8, 8), np.uint8))


def save(path, pixels, **options):
    PillowImage.fromarray(pixels).save(path, format="JPEG", quality=100, subsampling=0, **options)
    return path


def code_of(action, *arguments, **options):
    with pytest.raises(ReadError) as caught:
        action(*arguments, **options)
    return caught.value.code


@pytest.mark.parametrize("ending", [".jpg", ".jpeg", ".JPG", ".jpe", ".jfif"])
def test_a_jpeg_is_read_where_loss_is_accepted_and_refused_elsewhere(tmp_path, ending):
    path = save(tmp_path / f"a{ending}", CORNERS)
    image = read_image([path], channels=1, accepted=LOSSY)
    np.testing.assert_array_equal(image.voxels[0, 0], CORNERS)
    assert read_geometry(path) == image.stored and image.stored.shape == (1, 16, 24)
    assert code_of(read_image, [path]) == "E_LOSSY"
    assert code_of(read_label_map, path) == "E_LOSSY"
    assert written_ending(path) == ".png"


@pytest.mark.parametrize(("orientation", "turn"), [
    (1, lambda a: a), (2, lambda a: a[:, ::-1]), (3, lambda a: a[::-1, ::-1]), (4, lambda a: a[::-1]), (5, lambda a: a.T),
    (6, lambda a: np.rot90(a, -1)), (7, lambda a: np.rot90(a, 2).T), (8, lambda a: np.rot90(a, 1)),
])
def test_exif_orientation_turns_the_picture(tmp_path, orientation, turn):
    """What the eight values of tag 0x0112 do to rows and columns: Exif 2.32, 4.6.4."""
    exif = PillowImage.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "a.jpg", CORNERS, exif=exif)
    image = read_image([path], accepted=LOSSY)
    np.testing.assert_array_equal(image.voxels[0, 0], turn(CORNERS))
    assert read_geometry(path) == image.stored


def test_cut_and_damaged_files_and_bombs_are_refused(tmp_path):
    noise = np.random.default_rng(1).integers(0, 255, (64, 64), np.uint8)
    content = save(tmp_path / "a.jpg", noise).read_bytes()
    for share in (0.2, 0.6, 0.98):
        (tmp_path / "cut.jpg").write_bytes(content[:int(share * len(content))])
        assert code_of(read_image, [tmp_path / "cut.jpg"], accepted=LOSSY) in ("E_TRUNCATED", "E_HEADER")
    frame = content.index(b"\xff\xc0") + 5  # SOF0: length, precision, then rows and columns
    huge = content[:frame] + b"\xff\xf0\xff\xf0" + content[frame + 4:]
    (tmp_path / "huge.jpg").write_bytes(huge)
    assert code_of(read_image, [tmp_path / "huge.jpg"], accepted=LOSSY) == "E_TOO_LARGE"
    (tmp_path / "bomb.jpg").write_bytes(content[:frame] + b"\x7f\xf0\x7f\xf0" + content[frame + 4:])
    assert code_of(read_image, [tmp_path / "bomb.jpg"], accepted=LOSSY) == "E_TRUNCATED"


def test_colours_of_print_are_refused(tmp_path):
    PillowImage.fromarray(np.zeros((8, 8, 4), np.uint8), "CMYK").save(tmp_path / "a.jpg")
    assert code_of(read_image, [tmp_path / "a.jpg"], accepted=LOSSY) == "E_COLOUR"


def test_the_content_counts_where_an_ending_is_wrong(tmp_path):
    notes = []
    PillowImage.fromarray(CORNERS).save(tmp_path / "a.jpg", format="PNG")
    save(tmp_path / "b.png", CORNERS)
    for name in ("a.jpg", "b.png"):
        image = read_image([tmp_path / name], accepted=LOSSY, notes=notes)
        np.testing.assert_array_equal(image.voxels[0, 0], CORNERS)
        assert read_geometry(tmp_path / name) == image.stored
    assert [(note.code, note.text.rpartition("holds ")[2][:4]) for note in notes] == [("W_ENDING", "PNG,"), ("W_ENDING", "JPEG")]
    assert code_of(read_image, [tmp_path / "b.png"]) == "E_LOSSY"
    (tmp_path / "c.jpg").write_text("text")
    assert code_of(read_image, [tmp_path / "c.jpg"], accepted=LOSSY) == "E_FORMAT"


@pytest.mark.parametrize("compact", [False, True])
def test_three_equal_colours_are_one_grey_channel_with_a_note(tmp_path, compact):
    notes = []
    PillowImage.fromarray(np.stack([CORNERS] * 3, axis=-1)).save(tmp_path / "a.png")
    image = read_image([tmp_path / "a.png"], channels=1, compact=compact, notes=notes)
    np.testing.assert_array_equal(image.voxels, CORNERS[None, None])
    assert [note.code for note in notes] == ["W_GREY"]


@pytest.mark.parametrize("compact", [False, True])
def test_colours_in_a_grey_dataset_are_refused_or_become_their_luminance(tmp_path, compact):
    pixels = np.zeros((2, 3, 3), np.uint8)
    pixels[0] = np.diag([100, 200, 50])  # a red, a green and a blue pixel
    pixels[1] = 77
    PillowImage.fromarray(pixels).save(tmp_path / "a.png")
    with pytest.raises(ReadError, match="3 channels found, 1 expected.*colour: luminance") as caught:
        read_image([tmp_path / "a.png"], channels=1, compact=compact)
    assert caught.value.code == "E_CHANNELS"
    notes = []
    image = read_image([tmp_path / "a.png"], channels=1, compact=compact, accepted=LUMINANCE, notes=notes)
    # 0.299 * 100, 0.587 * 200, 0.114 * 50
    np.testing.assert_array_equal(image.voxels[0, 0], [[30, 117, 6], [77, 77, 77]])
    assert [note.code for note in notes] == ["W_LUMINANCE"]
    assert read_image([tmp_path / "a.png"], channels=3, accepted=LUMINANCE).voxels.shape == (3, 1, 2, 3)


def test_a_specification_names_jpeg_only_where_it_accepts_loss():
    def spec(lossy, **layout):
        return DatasetSpec("a", "t", (LayoutSpec("l", **layout),), (InputSpec(lossy=lossy),))

    spec(True, inputs={"image": ("{case}.jpg",)})
    with pytest.raises(ValueError, match=r"lossy: true. at inputs\.image"):
        spec(False, inputs={"image": ("{case}.JPEG",)})
    with pytest.raises(ValueError, match="label values; give lossless files"):
        spec(True, inputs={"image": ("{case}.png",)}, targets={"label": "{case}_seg.jpg"})


def test_real_pictures_of_all_kinds_are_one_channel(real_data):
    notes, paths = [], sorted((real_data / "imgtext_covidcxr" / "images").glob("*.jp*"))[::7]
    for path in paths:
        image = read_image([path], channels=1, accepted=LUMINANCE, notes=notes)
        assert image.voxels.shape[0] == 1 and image.stored == read_geometry(path)
    assert {note.code for note in notes} == {"W_GREY", "W_LUMINANCE", "W_ENDING"}


def test_writing_as_jpeg_is_refused(tmp_path):
    PillowImage.fromarray(CORNERS).save(tmp_path / "a.png")
    image = read_image([tmp_path / "a.png"])
    assert code_of(write_label_map, tmp_path / "b.jpg", np.zeros((1, 16, 24), np.uint8), image) == "E_LOSSY"
    assert not (tmp_path / "b.jpg").exists()
