"""Every bad image among sound ones: all of them are named, none gets an output, and the sound ones are done."""

from __future__ import annotations

import gzip
import json
import shutil

import numpy as np
import pytest
from bad_inputs import AFFINE, BAD, forms, nifti_bytes
from toy_tasks.datasets import SPECS, open_toy, write_cases

from autoseg import pipeline
from autoseg.cli.app import run
from autoseg.core.errors import ReadError
from autoseg.io.images import image_ending, read_geometry, read_image
from autoseg.stages import fingerprint, predict

VOXELS = np.random.default_rng(0).normal(5, 1, (21, 18, 15)).astype(np.float32)
# Refused when they are to be predicted, and warned about when they are to be trained on.
CONSTANT = gzip.compress(nifti_bytes(np.zeros_like(VOXELS)))
NO_GEOMETRY = forms(None, None)(VOXELS)
# Few voxels along some axes; a network of any stride has to take them.
SMALL = {"slice": (21, 18), "one_slice": (21, 18, 1), "line": (21, 1, 1), "corner": (2, 3, 2), "plate": (1, 18, 15)}


@pytest.fixture(scope="module")
def bundle(toy):
    """The folder of a bundle with one trained member."""
    pipeline.train(toy.workspace, toy.plan, "3d_fullres", "0", device="cpu", workers=0, should_stop=lambda: False)
    pipeline.select(toy.workspace, toy.plan)
    return toy.workspace.layout.bundle(toy.plan.name)


def predicted(bundle, folder, capsys):
    """Exit code and document of `autoseg predict` on a folder, into `out` beside it."""
    capsys.readouterr()
    code = run(["predict", "-b", str(bundle), "-i", str(folder), "-o", str(folder.parent / "out"), "--engine", "torch", "--json"])
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("gzipped", [True, False], ids=["nii.gz", "other formats"])
def test_prediction_names_every_bad_case_and_finishes_the_others(toy, bundle, tmp_path, capsys, gzipped):
    bad = {name: entry for name, entry in BAD.items() if (entry.ending == ".nii.gz") == gzipped}
    (tmp_path / "in").mkdir()
    for name, entry in bad.items():
        (tmp_path / "in" / f"{name}{entry.ending}").write_bytes(entry.build(VOXELS))
    expected = {name: entry.code for name, entry in bad.items()}
    if gzipped:
        (tmp_path / "in" / "constant.nii.gz").write_bytes(CONSTANT)
        expected["constant"] = "E_CONSTANT"
    for name in ("a_sound", "z_sound"):
        content = gzip.compress(nifti_bytes(VOXELS)) if gzipped else nifti_bytes(VOXELS)
        (tmp_path / "in" / f"{name}{'.nii.gz' if gzipped else '.nii'}").write_bytes(content)
    code, document = predicted(bundle, tmp_path / "in", capsys)
    assert code == 4 and document["status"] == "partial"
    assert {failure["unit"]: failure["code"] for failure in document["failures"]} == expected
    assert set(document["cases"]) == {"a_sound", "z_sound"}
    written = {path.name.split(".")[0] for path in (tmp_path / "out").iterdir() if image_ending(path)}
    assert written == {"a_sound", "z_sound"}


def test_a_bad_case_is_named_once_and_nobody_is_sent_to_a_specification(bundle, tmp_path, capfd):
    (tmp_path / "in").mkdir()
    holed = VOXELS.copy()
    holed[3, 4, 5] = np.nan
    for name, voxels in (("a_sound", VOXELS), ("holed", holed)):
        (tmp_path / "in" / f"{name}.nii.gz").write_bytes(gzip.compress(nifti_bytes(voxels)))
    capfd.readouterr()
    code = run(["predict", "-b", str(bundle), "-i", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--engine", "torch"])
    shown = "".join(capfd.readouterr())
    assert code == 4 and shown.count("voxels are not finite numbers") == 1 and shown.count("holed.nii.gz") == 1
    assert "[E_NONFINITE]" in shown and "exclude" not in shown


def test_images_of_formats_that_are_not_read_are_listed_as_they_are_when_named_alone(bundle, tmp_path, capsys):
    for folder, names in (("some", ("a.nii.gz", "b.mgz", "c.img", "c.hdr", "README.txt")), ("none", ("b.mgz", "README.txt"))):
        (tmp_path / folder / "in").mkdir(parents=True)
        for name in names:
            (tmp_path / folder / "in" / name).write_bytes(gzip.compress(nifti_bytes(VOXELS)))
    code, document = predicted(bundle, tmp_path / "some" / "in", capsys)
    assert code == 4 and set(document["cases"]) == {"a"}
    assert {failure["unit"]: failure["code"] for failure in document["failures"]} == {"b": "E_FORMAT", "c": "E_FORMAT"}
    code, document = predicted(bundle, tmp_path / "none" / "in", capsys)
    assert code == 4 and document["cases"] == {} and [failure["unit"] for failure in document["failures"]] == ["b"]
    recorded = json.loads((tmp_path / "none" / "out" / "predictions.json").read_text())
    assert recorded["failures"] == document["failures"]


def test_images_of_few_voxels_are_predicted_on_their_own_grid(bundle, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    rng = np.random.default_rng(0)
    for name, shape in SMALL.items():
        (tmp_path / "in" / f"{name}.nii.gz").write_bytes(gzip.compress(nifti_bytes(rng.normal(5, 1, shape).astype(np.float32))))
    (tmp_path / "in" / "no_geometry.nii.gz").write_bytes(NO_GEOMETRY)
    code, document = predicted(bundle, tmp_path / "in", capsys)
    assert code == 0, document
    for name in (*SMALL, "no_geometry"):
        assert read_geometry(tmp_path / "out" / f"{name}.nii.gz") == read_geometry(tmp_path / "in" / f"{name}.nii.gz")
        assert set(np.unique(read_image([tmp_path / "out" / f"{name}.nii.gz"]).voxels)) <= {0, 3, 7}


def test_a_file_that_changes_between_reading_and_digesting_gets_no_output(toy, bundle, tmp_path, capsys, monkeypatch):
    """Otherwise the manifest would say that what was predicted is what lies there now."""
    shutil.copytree(toy.folder / "images", tmp_path / "in")
    names = sorted(path.name for path in (tmp_path / "in").iterdir())
    read = predict.read_inputs

    def read_while_another_writes(unit, *arguments, **options):
        inputs = read(unit, *arguments, **options)
        if unit.id == names[1].removesuffix(".nii.gz"):
            shutil.copy(tmp_path / "in" / names[0], tmp_path / "in" / names[1])
        return inputs

    monkeypatch.setattr(predict, "read_inputs", read_while_another_writes)
    code, document = predicted(bundle, tmp_path / "in", capsys)
    assert code == 4
    assert [(failure["unit"] + ".nii.gz", failure["code"]) for failure in document["failures"]] == [(names[1], "E_CHANGED")]
    assert sorted(path.name for path in (tmp_path / "out").glob("*.nii.gz")) == [names[0], *names[2:]]


def test_a_file_that_changes_while_it_is_measured_is_not_cached(toy, tmp_path, monkeypatch):
    unit = toy.workspace.units[0]
    path = unit.cases[0].inputs["image"][0]
    content = path.read_bytes()
    measure = fingerprint.measure_unit

    def measure_while_another_writes(*arguments):
        measured = measure(*arguments)
        path.write_bytes(content + b"\0")
        return measured

    monkeypatch.setattr(fingerprint, "measure_unit", measure_while_another_writes)
    try:
        with pytest.raises(ReadError) as caught:
            fingerprint.MeasureUnit(toy.task, toy.workspace.spec, tmp_path)(unit)
    finally:
        path.write_bytes(content)
    assert caught.value.code == "E_CHANGED"
    assert not list(tmp_path.iterdir())


def test_check_lists_every_bad_case_at_once_and_warns_of_odd_ones(tmp_path, capsys):
    (tmp_path / "spec.yaml").write_text(SPECS["segmentation"])
    write_cases(tmp_path, "segmentation")
    label = np.zeros(VOXELS.shape, np.uint8)
    label[3:6, 3:6, 3:6] = 7
    bad = {name: entry for name, entry in BAD.items() if entry.ending == ".nii.gz"}
    contents = {name: (entry.build(VOXELS), nifti_bytes(label)) for name, entry in bad.items()}
    moved = AFFINE.copy()
    moved[0, 3] += 5
    near = label.astype(np.float64) * 1.0000001
    sound = gzip.compress(nifti_bytes(VOXELS))
    integers = label.astype(np.int16)
    odd_labels = {"label_moved": nifti_bytes(label, moved), "label_smaller": nifti_bytes(label[1:]),
                  "label_300": nifti_bytes(integers * 300), "label_negative": nifti_bytes(-integers),
                  "label_fraction": nifti_bytes(label * 0.5)}
    contents |= {name: (sound, content) for name, content in odd_labels.items()}
    contents |= {"constant": (CONSTANT, nifti_bytes(label)), "near_integers": (sound, nifti_bytes(near)),
                 "no_geometry": (NO_GEOMETRY, gzip.decompress(forms(None, None)(label)))}
    for name, (image, target) in contents.items():
        (tmp_path / "images" / f"p9_{name}.nii.gz").write_bytes(image)
        (tmp_path / "labels" / f"p9_{name}.nii.gz").write_bytes(gzip.compress(target))
    capsys.readouterr()
    code = run(["check", "-d", str(tmp_path / "spec.yaml"), "-i", str(tmp_path), "--root", str(tmp_path / "home"), "--json"])
    document = json.loads(capsys.readouterr().out)
    found = {problem["case"].removeprefix("p9_"): problem["code"] for problem in document["problems"]}
    expected = {name: entry.code for name, entry in bad.items()} | {"label_moved": "E_GRID", "label_smaller": "E_GRID"}
    expected |= {name: "E_LABEL_VALUE" for name in ("label_300", "label_negative", "label_fraction")}
    assert code == 3 and found == expected
    assert {(warning["case"].removeprefix("p9_"), warning["code"]) for warning in document["warnings"]
            if warning["code"] != "W_COPY"} == {  # the sound images are one
        ("constant", "W_CONSTANT"), ("near_integers", "W_LABEL_ROUNDED"), ("no_geometry", "W_NO_GEOMETRY")}
    assert not (tmp_path / "home").exists()


def test_channels_on_different_grids_are_problems_of_their_case_alone(tmp_path):
    (tmp_path / "spec.yaml").write_text(SPECS["segmentation"].replace("[MRI]", "[T1, T2]").replace(
        '["images/{case}.nii.gz"]', '["images/{case}_0000.nii.gz", "images/{case}_0001.nii.gz"]'))
    moved = AFFINE.copy()
    moved[0, 3] += 5
    seconds = {"p1_same": nifti_bytes(VOXELS), "p2_moved": nifti_bytes(VOXELS, moved), "p3_larger": nifti_bytes(
        np.pad(VOXELS, ((0, 1), (0, 0), (0, 0)))), "p4_cut": nifti_bytes(VOXELS)[:-9]}
    label = np.select([VOXELS > 5.5, VOXELS < 4.5], [7, 3]).astype(np.uint8)
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    for name, content in seconds.items():
        (tmp_path / "images" / f"{name}_0000.nii.gz").write_bytes(gzip.compress(nifti_bytes(VOXELS)))
        (tmp_path / "images" / f"{name}_0001.nii.gz").write_bytes(gzip.compress(content))
        (tmp_path / "labels" / f"{name}.nii.gz").write_bytes(gzip.compress(nifti_bytes(label)))
    found = pipeline.check(open_toy("segmentation", tmp_path, tmp_path / "home"), executor=None).problems
    codes = {problem.unit: problem.code for problem in found}
    assert codes == {"p2_moved": "E_GRID", "p3_larger": "E_GRID", "p4_cut": "E_TRUNCATED"}
    for problem in found[:2]:
        assert f"{problem.unit}_0000.nii.gz" in problem.message and f"{problem.unit}_0001.nii.gz" in problem.message
