"""Pairs that cannot be registered say why, and leave nothing."""

from __future__ import annotations

import numpy as np
import pytest
from pair_cases import SHAPE, blobs, image, shifted_pair, spec, write_case

from autoseg.cli.app import run as command
from autoseg.core.errors import DatasetError, GeometryError, UsageError
from autoseg.io.images import write_volume
from autoseg.tasks.registration.output import infer
from autoseg.tasks.registration.target import read_target


class Plan3D:
    """What `infer` asks of a configuration."""

    class network:  # noqa: N801
        dims = 3


def arrays(**changes):
    found = {"image": blobs()[None], "image@1": blobs(seed=1)[None]} | changes
    return {name: array for name, array in found.items() if array is not None}


@pytest.mark.parametrize(("changes", "error", "said"), [
    ({"image@1": None}, UsageError, "a fixed and a moving image, 1 given"),
    ({"image@1": np.ones((1, *SHAPE), np.float32)}, DatasetError, "moving image has one value"),
    ({"image": np.full((1, *SHAPE), np.nan, np.float32)}, DatasetError, "fixed image holds values that are no finite"),
    ({"image@1": blobs()[None, :1]}, GeometryError, "fixed image is a volume and the moving one a slice"),
])
def test_images_that_cannot_be_compared_are_refused(changes, error, said):
    with pytest.raises(error, match=said):
        infer([], arrays(**changes), Plan3D, None)


def register(folder, *more):
    return command(["register", "--fixed", str(folder / "fixed.nii.gz"), "--moving", str(folder / "moving.nii.gz"), "-o",
                    str(folder / "out"), *more])


@pytest.mark.parametrize(("moving", "said"), [
    (lambda: image(blobs()[:1]), "a slice of 1 x 20 x 24"),
    (lambda: image(np.stack([blobs(), blobs(seed=1)])), "1 channel(s) and the moving image"),
    (lambda: image(np.ones(SHAPE)), "has the value 1"),
], ids=["slice", "channels", "constant"])
def test_the_command_refuses_them_by_name_and_writes_nothing(tmp_path, capsys, moving, said):
    write_case(tmp_path, "fixed", image(blobs()))
    found = moving()
    write_volume(tmp_path / "moving.nii.gz", found.voxels, found)
    assert register(tmp_path) == 3
    text = capsys.readouterr().err
    assert said in text and "moving.nii.gz" in text
    assert not list(tmp_path.glob("out/*.nii.gz")) and not list(tmp_path.glob("out/*.html"))


def test_the_command_refuses_labels_of_the_fixed_image_only(tmp_path, capsys):
    shifted_pair(tmp_path)
    assert register(tmp_path, "--fixed-labels", str(tmp_path / "fixed_label.nii.gz")) == 3
    assert "of the fixed image only" in capsys.readouterr().err


def test_the_command_refuses_landmarks_of_one_image_only(tmp_path, capsys):
    shifted_pair(tmp_path)
    assert register(tmp_path, "--fixed-landmarks", str(tmp_path / "fixed.csv")) == 2
    assert "--moving-landmarks" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_nothing_is_written_among_the_images_not_even_a_log(tmp_path, capsys):
    shifted_pair(tmp_path)
    before = sorted(tmp_path.iterdir())
    assert register(tmp_path, "-o", str(tmp_path)) == 2
    assert "among the images" in capsys.readouterr().err and sorted(tmp_path.iterdir()) == before


def test_a_command_that_failed_before_it_took_the_folder_begins_no_log_there(tmp_path, capsys):
    shifted_pair(tmp_path)
    (tmp_path / "others").mkdir()
    assert register(tmp_path, "-o", str(tmp_path / "others"), "--fixed-labels", str(tmp_path / "fixed_label.nii.gz")) == 3
    assert "of the fixed image only" in capsys.readouterr().err and not list((tmp_path / "others").iterdir())


def test_not_a_number_in_a_file_is_refused(tmp_path, capsys):
    unit = shifted_pair(tmp_path)
    voxels = blobs()[None].copy()
    voxels[0, 3, 4, 5] = np.nan
    write_volume(unit.cases[1].inputs["image"][0], voxels, image(blobs()))
    assert register(tmp_path) == 3
    assert "moving.nii.gz" in capsys.readouterr().err and not list(tmp_path.glob("out/*.nii.gz"))


def test_landmarks_outside_of_their_image_are_refused(tmp_path, capsys):
    shifted_pair(tmp_path)
    for name, first in (("fixed", 3.0), ("moving", 900.0)):
        (tmp_path / f"{name}.csv").write_text(f"name,l,p,s\na,{first},4.0,5.0\n")
    files = [str(tmp_path / f"{name}.csv") for name in ("fixed", "moving")]
    assert register(tmp_path, "--fixed-landmarks", files[0], "--moving-landmarks", files[1]) == 3
    assert "moving.csv" in capsys.readouterr().err


def test_labels_of_the_fixed_image_alone_are_no_target(tmp_path):
    unit = shifted_pair(tmp_path)
    unit.cases[1].targets.clear()
    with pytest.raises(DatasetError, match="moving has none"):
        read_target(unit, spec())
