"""Units of several cases: every case is measured and stored once, units are trained on, predicted and scored."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_tasks.datasets import make_toy

from autoseg import pipeline
from autoseg.cli.app import run as command
from autoseg.core.case import Case, Unit, single_units
from autoseg.core.errors import DatasetError, IncompatibleError
from autoseg.core.geometry import Geometry
from autoseg.core.image import Image
from autoseg.core.networks import Start
from autoseg.core.progress import silent
from autoseg.core.report import Failure
from autoseg.core.task import Context, PlanRequest
from autoseg.io.atomic import sha256_file
from autoseg.io.images import read_image, write_volume
from autoseg.stages.fingerprint import digest_unit
from autoseg.stages.folds import copied_units
from autoseg.stages.limits import largest_case_voxels, model_shape, store_bytes
from autoseg.stages.prepare import grid_hash, prepare_inputs, read_inputs, stored_inputs, stored_record
from autoseg.stages.train import fresh_network, predict_unit, seeded_network


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return make_toy("toy_tasks.exams", tmp_path_factory.mktemp("exams"))


def test_cases_of_units_are_units_once_each_in_their_order():
    a, b, c = (Case(name, "p", {}, stratum="s") for name in "abc")
    units = (Unit("1", (b, a), "p"), Unit("2", (a, c), "p"))
    assert single_units(units) == tuple(Unit(case.id, (case,), "p", "s") for case in (b, a, c))


def test_every_case_is_measured_and_stored_once(toy):
    assert len(toy.workspace.units) == 4 and all(len(unit.cases) == 2 for unit in toy.workspace.units)
    assert toy.workspace.fingerprint.case_count == 8
    names = [unit.id for unit in single_units(toy.workspace.units)]
    assert len(names) == 8 and all(toy.store.is_recorded(name) for name in names)
    assert sorted(sum((fold.validation for fold in toy.workspace.folds()), ())) == ["p0", "p1", "p2", "p3"]


def test_whole_images_have_the_planned_size_whatever_their_own(toy):
    for unit in single_units(toy.workspace.units):
        grid = read_image(unit.cases[0].inputs["image"]).geometry
        record = toy.store.record(unit.id)
        assert toy.store.shape(unit.id, "image") == (1, 6, 8, 10) and record.crop_box == tuple((0, size) for size in grid.shape)
        extent = np.multiply(record.model_shape, record.model_spacing_mm)
        assert extent == pytest.approx(np.multiply(grid.shape, grid.spacing_mm))


def test_a_constant_frame_stays_part_of_a_whole_image(toy):
    voxels = np.zeros((1, 12, 16, 20), np.float32)
    voxels[:, 6:, 8:, 10:] = 5
    image = Image.canonical(voxels, Geometry((12, 16, 20), (2.0, 1.0, 0.5)))
    inputs = tuple(replace(entry, channels=(replace(entry.channels[0], scheme="none"),)) for entry in toy.plan.inputs)
    arrays, record = prepare_inputs({"image": image}, replace(toy.plan, inputs=inputs), toy.configuration)
    corner = arrays["image"][0, :2, :2, :2]
    assert record.model_spacing_mm == (4.0, 2.0, 1.0) and np.abs(corner).max() < 1 and arrays["image"][0, 5, 7, 9] > 4


def test_prepared_files_and_the_store_give_the_same_arrays_under_the_same_names(toy):
    unit = toy.workspace.units[1]
    arrays, record = prepare_inputs(read_inputs(unit, toy.workspace.spec), toy.plan, toy.configuration)
    stored = stored_inputs(toy.store, unit, toy.plan)
    assert list(arrays) == list(stored) == ["image", "image@1"]
    assert all(np.array_equal(arrays[name], stored[name]) for name in arrays)
    assert not np.array_equal(arrays["image"], arrays["image@1"])
    assert record == stored_record(toy.store, unit)
    assert replace(record, further=()) == toy.store.record(unit.cases[0].id)
    assert record.further == (toy.store.record(unit.cases[1].id),)


def test_a_prediction_sees_all_images_of_an_exam(toy):
    run = pipeline.make_run(toy.workspace, toy.plan, "whole", "0")
    unit, network = toy.workspace.units[0], seeded_network(run).eval()
    both = predict_unit(run, network, unit, run.configuration, Context())
    single = [predict_unit(run, network, one, run.configuration, Context()) for one in single_units([unit])]
    assert both == pytest.approx(np.mean(single), rel=1e-5) and single[0] != single[1]


def test_the_grid_of_whole_images_depends_on_their_size_and_not_on_spacings(toy):
    def name(configuration, spacings):
        return grid_hash(toy.plan, configuration, toy.workspace.spec, spacings)

    one, other = [(1.0, 1.0, 1.0)], [(2.0, 1.0, 3.0)]
    assert name(toy.configuration, one) == name(toy.configuration, other)
    assert name(replace(toy.configuration, patch_size=(6, 8, 12)), one) != name(toy.configuration, one)


def test_disk_and_memory_of_whole_images_follow_from_their_planned_size(toy):
    assert model_shape((15, 18, 21), (1.0, 1.0, 1.0), toy.plan, toy.configuration) == (6, 8, 10)
    assert store_bytes(toy.workspace.fingerprint, toy.plan, toy.configuration) == 8 * 6 * 8 * 10 * 5
    huge = replace(toy.configuration, patch_size=(600, 800, 100))
    assert largest_case_voxels(toy.workspace.units, [huge]) == 600 * 800 * 100
    assert largest_case_voxels(toy.workspace.units, [toy.configuration]) == 16 * 18 * 21


def test_a_digest_covers_all_cases_and_what_is_known_of_them(toy):
    unit = toy.workspace.units[0]
    first, second = unit.cases
    known = replace(unit, cases=(first, replace(second, values={"age": "70"})))
    older = replace(unit, cases=(first, replace(second, values={"age": "71"})))
    digests = [digest_unit(found) for found in (unit, known, older, replace(unit, cases=(first,)))]
    assert len(set(digests)) == 4


def test_a_changed_second_image_is_noticed(toy, tmp_path):
    folder = tmp_path / "changed"
    shutil.copytree(toy.folder, folder)
    workspace = replace(toy.workspace, data=folder, layout=replace(toy.workspace.layout, root=folder / "home"))
    assert pipeline.make_run(workspace, toy.plan, "whole", "0").sources == toy.workspace.sources
    path = workspace.units[0].cases[1].inputs["image"][0]
    image = read_image([path])
    write_volume(path, image.voxels + 1, image)
    again = replace(workspace, origin=workspace.origin)
    with pytest.raises(IncompatibleError, match=r"1 case\(s\) changed"):
        pipeline.make_run(again, toy.plan, "whole", "0")
    changed = {name for name, digest in again.sources.items() if digest != toy.workspace.sources[name]}
    assert changed == {"p0"}


def test_copies_keep_the_units_that_hold_them_together():
    units = [Unit(name, tuple(Case(case, name, {}) for case in cases), name) for name, cases in
             (("x", ("a", "b")), ("y", ("c",)), ("z", ("d",)))]
    assert copied_units(units, [("a", "d"), ("a", "b"), ("c", "gone")]) == (("x", "z"),)


def test_a_prediction_is_made_anew_when_any_image_of_its_exam_changes(toy, tmp_path):
    pipeline.train(toy.workspace, toy.plan, "whole", "0", device="cpu", workers=0, should_stop=lambda: False)
    pipeline.select(toy.workspace, toy.plan)
    shutil.copytree(toy.folder / "images", tmp_path / "in")

    def predicted():
        pipeline.predict(toy.workspace.layout.bundle("toy"), tmp_path / "in", tmp_path / "out", Context(),
                         trusted_task="toy_tasks.exams", progress=silent)
        return {path.name: path.read_text() for path in (tmp_path / "out").glob("p*.json") if path.stem in ("p0", "p1")}

    before = predicted()
    manifest = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert list(manifest["finished"]["p0"]["inputs"]) == ["p0_scan0/p0_scan0.nii.gz", "p0_scan1/p0_scan1.nii.gz"]
    image = read_image([tmp_path / "in" / "p0_scan1.nii.gz"])
    write_volume(tmp_path / "in" / "p0_scan1.nii.gz", image.voxels[:, ::-1] ** 2, image)
    after = predicted()
    assert after["p0.json"] != before["p0.json"] and after["p1.json"] == before["p1.json"]
    (tmp_path / "in" / "p1_scan3.nii.gz").unlink()
    assert predicted()["p1.json"] != before["p1.json"]


def test_planning_refuses_what_the_task_finds_wrong_with_all_units_and_warns_of_the_rest(toy, tmp_path, caplog):
    found = (Failure("p0 and 3 more", "W_TOY", "is odd"), Failure("class x", "E_TOY", "has one case"))
    workspace = replace(toy.workspace, layout=replace(toy.workspace.layout, root=tmp_path))

    class Odd:
        """The workspace with another opinion of its task."""

        def __getattr__(self, name):
            if name == "task":
                return replace(workspace.task, examine=lambda units, spec: found)
            return getattr(workspace, name)

    understood = pipeline.check(Odd(), executor=None)
    assert ("E_TOY" in [problem.code for problem in understood.problems]
            and "W_TOY" in [warning.code for warning in understood.warnings])
    assert "exams      4" in understood.lines and "images     8" in understood.lines
    with pytest.raises(DatasetError, match=r"class x: has one case \[E_TOY\]"):
        pipeline.plan(Odd(), toy.plan.budget, PlanRequest("toy"), executor=None)
    assert not (tmp_path / "ToyExams" / "fingerprint").exists()
    found = found[:1]
    pipeline.plan(Odd(), toy.plan.budget, PlanRequest("toy"), executor=None)
    assert "p0 and 3 more is odd [W_TOY]" in caplog.text


def test_a_plan_may_start_from_a_bundle_whose_weights_lie_beside_it(toy, tmp_path):
    pipeline.train(toy.workspace, toy.plan, "whole", "0", device="cpu", workers=0, should_stop=lambda: False)
    pipeline.select(toy.workspace, toy.plan)
    bundle = toy.workspace.layout.bundle("toy")
    seen = []

    def make_plan(spec, fingerprint, budget, request, probe):
        seen.append(request.start)
        made = toy.task.make_plan(spec, fingerprint, budget, replace(request, start=None), probe)
        start = Start(request.start.weights, request.start.sha256, ("encoder.",))
        return replace(made, configurations={"whole": replace(made.configurations["whole"], start=start)})

    class Starts:
        """The workspace with a task that takes encoders."""

        def __getattr__(self, name):
            return replace(toy.task, make_plan=make_plan) if name == "task" else getattr(toy.workspace, name)

    plan = pipeline.plan(Starts(), toy.plan.budget, PlanRequest("started"), executor=None, start=bundle)
    folder = toy.workspace.layout.plan("started")
    [start] = seen
    assert start.inputs == toy.plan.inputs and start.spacing_mm == toy.configuration.spacing_mm
    assert start.network == toy.configuration.network and "ToyExams" in start.source and "fold 0" in start.source
    assert sha256_file(folder / start.weights) == start.sha256 == sha256_file(bundle / "members" / "whole_fold_0.safetensors")
    run = pipeline.make_run(toy.workspace, replace(plan, specification=""), "whole", "1")
    torch_only = pipeline.load_predictor(bundle, Context(engine="torch"), trusted_task="toy_tasks.exams")
    begun, given = fresh_network(run), torch_only._networks[0]
    assert torch.equal(begun.encoder.weight, given.encoder.weight) and not torch.equal(begun.head.weight, given.head.weight)
    (folder / start.weights).unlink()
    assert pipeline.plan(Starts(), toy.plan.budget, PlanRequest("started"), executor=None, start=bundle) == plan
    assert (folder / start.weights).is_file()  # put back


def test_a_segmentation_that_cannot_start_from_weights_says_so_and_leaves_nothing(tmp_path, capsys):
    from toy_tasks.datasets import SPECS, write_cases

    golden = Path(__file__).parents[1] / "golden" / "bundle_format_2" / "bundle"
    tmp_path.joinpath("spec.yaml").write_text(SPECS["segmentation"])
    write_cases(tmp_path, "segmentation")
    code = command(["plan", "-d", str(tmp_path / "spec.yaml"), "-i", str(tmp_path), "--root", str(tmp_path / "home"), "--start",
                    str(golden)])
    assert code == 2 and "trained from fresh weights" in capsys.readouterr().err
    assert not list(tmp_path.glob("home/ToyLabels/plans/*/*.safetensors"))
