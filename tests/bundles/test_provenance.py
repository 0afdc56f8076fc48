"""Every output says how it was made, and the log says who made it when; no path is written down."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from bundles.conftest import ORIGIN

from autoseg import pipeline
from autoseg.cli.app import run
from autoseg.cli.audit import spoken
from autoseg.core.progress import silent
from autoseg.core.provenance import Manifest
from autoseg.core.task import Context
from autoseg.io.atomic import hash_values
from autoseg.io.audit import LOG, read_chain
from autoseg.io.bundles import read_bundle
from autoseg.io.manifests import MANIFEST
from autoseg.io.values import read_json, read_value
from autoseg.stages.select import run_select

CANARY = "ZZPHI_CANARY"


def digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def given(home, tmp_path):
    """Two images and their references in folders that are called like a patient."""
    for name in ("images", "labels"):
        (tmp_path / CANARY / name).mkdir(parents=True)
        for path in sorted((home.folder / name).iterdir())[:2]:
            shutil.copy(path, tmp_path / CANARY / name)
    return tmp_path / CANARY


def predict(home, given, out, *more):
    root = out.parent / "root"
    root.mkdir(exist_ok=True)
    return run(["predict", "-b", str(home.bundle), "-i", str(given / "images"), "-o", str(out), "--root", str(root), *more])


def test_predictions_name_bundle_plan_inputs_outputs_versions_seed_and_command(home, given, tmp_path):
    assert predict(home, given, tmp_path / "out", "--tile-step=0.75", "--device", "cpu") == 0
    manifest = read_value(tmp_path / "out" / MANIFEST, Manifest)
    names = sorted(path.name for path in (given / "images").iterdir())
    plan = home.workspace.plan("toy")
    assert manifest.stage == "predict" and manifest.seed == plan.seed and manifest.plan == hash_values(plan)
    assert manifest.bundle == digest(home.bundle / "bundle.json")
    assert manifest.inputs == {f"{name.removesuffix('.nii.gz')}/{name}": digest(given / "images" / name) for name in names}
    assert manifest.outputs == {name: digest(tmp_path / "out" / name) for name in (*names, "predictions.csv")}
    assert manifest.origin.command == "autoseg predict -b PATH -i PATH -o PATH --root PATH --tile-step=0.75 --device cpu"
    assert set(manifest.origin.versions) == {"python", "autoseg", "torch", "numpy", "scipy"}
    assert manifest.settings["tile_step"] == "0.75" and manifest.settings["signature"] == "not signed"


def test_the_same_run_writes_the_same_manifest_and_one_with_nothing_to_do_keeps_it(home, given, tmp_path):
    assert predict(home, given, tmp_path / "a", "--device", "cpu") == predict(home, given, tmp_path / "b", "--device", "cpu") == 0
    before = (tmp_path / "a" / MANIFEST).read_bytes()
    assert before == (tmp_path / "b" / MANIFEST).read_bytes()
    assert predict(home, given, tmp_path / "a", "--device=cpu") == 0
    assert (tmp_path / "a" / MANIFEST).read_bytes() == before


def test_runs_and_plans_and_bundles_have_a_manifest(home):
    layout, plan = home.workspace.layout, home.workspace.plan("toy")
    fold = read_value(layout.run("toy", "3d_fullres", "0") / MANIFEST, Manifest)
    assert fold.origin == ORIGIN and fold.plan == hash_values(plan) and fold.settings["fold"] == "0"
    assert fold.inputs == {unit: home.workspace.sources[unit] for unit in home.workspace.units_by_id}
    weights = "training/model.safetensors"
    assert fold.outputs[weights] == digest(layout.run("toy", "3d_fullres", "0") / weights)
    made = read_value(layout.plan("toy") / MANIFEST, Manifest)
    assert made.inputs == {"fingerprint.json": digest(layout.fingerprint / "fingerprint.json")} and made.seed == 0
    bundle = read_value(home.bundle / MANIFEST, Manifest)
    assert bundle.inputs["run 3d_fullres fold 0"] == fold.settings["run"] and bundle.origin == ORIGIN
    assert read_json(home.bundle / "bundle.json")["digests"][MANIFEST] == digest(home.bundle / MANIFEST)
    assert not any(unit in (home.bundle / MANIFEST).read_text() for unit in home.workspace.units_by_id)


def test_no_case_id_leaves_with_a_bundle(home, tmp_path):
    workspace, plan = home.workspace, home.workspace.plan("toy")
    spec = replace(workspace.spec, exclude=("p9_scan18",))
    runs = pipeline.all_runs(workspace, plan)
    run_select(workspace.task, spec, plan, workspace.fingerprint, workspace.units_by_id, runs, tmp_path, fold_count=4,
               baseline=None, context=Context(), progress=silent)
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert read_bundle(tmp_path).members
    assert not [name for name in ("p9_scan18", *workspace.units_by_id) if name.encode() in written]


def test_a_report_has_a_manifest(home):
    page = pipeline.report(home.workspace, home.workspace.plan("toy"), {})
    manifest = read_value(page.parent / MANIFEST, Manifest)
    assert manifest.outputs == {"report.html": digest(page)} and list(manifest.inputs) == ["runs/toy/3d_fullres/fold_0"]


def test_an_evaluation_keeps_its_scores_with_a_manifest_only_where_it_is_told_to(home, given, tmp_path):
    assert predict(home, given, tmp_path / "out") == 0
    command = ["evaluate", "-d", "ToyLabels", "-p", str(tmp_path / "out"), "-l", str(given / "labels"), "--root", str(home.root)]
    assert run(command) == 0
    assert run([*command, "-o", str(tmp_path / "out")]) == 2  # the predictions' own manifest must not be replaced
    assert run([*command, "-o", str(tmp_path / "scores")]) == 0
    manifest = read_value(tmp_path / "scores" / MANIFEST, Manifest)
    names = [path.name for path in sorted((given / "labels").iterdir())]
    assert manifest.inputs == {**{f"predictions/{name}": digest(tmp_path / "out" / name) for name in [*names, MANIFEST]},
                               **{f"references/{name}": digest(given / "labels" / name) for name in names}}
    assert len(read_json(tmp_path / "scores" / "scores.json")["records"]) == 2


def test_the_log_says_who_when_what_and_how_it_ended_and_holds_the_digest_of_the_manifest(home, given, tmp_path):
    assert predict(home, given, tmp_path / "out") == 0
    assert predict(home, given, tmp_path / "out", "--tile-step", "7") == 2
    assert run(["predict", "-b", str(tmp_path / "nothing"), "-i", "x", "-o", "y", "--root", str(tmp_path / "root")]) == 2
    first, second, third = map(json.loads, (tmp_path / "root" / LOG).read_text().splitlines())
    assert read_chain(tmp_path / "root" / LOG).problems == ()
    assert (first["exit_code"], first["error"], first["made"]) == (0, None, {"predictions": digest(tmp_path / "out" / MANIFEST)})
    assert (second["exit_code"], second["error"]) == (2, "E_USAGE") and third["exit_code"] == 2
    assert first["who"] and first["host"] and first["process"] == os.getpid() and first["when"].endswith("+00:00")


def test_the_log_lies_in_the_output_folder_where_there_is_no_root_folder(home, given, tmp_path):
    assert run(["predict", "-b", str(home.bundle), "-i", str(given / "images"), "-o", str(tmp_path / "out"), "--root",
                str(tmp_path / "none")]) == 0
    assert not (tmp_path / "none").exists() and read_chain(tmp_path / "out" / LOG).lines == 1


def test_a_command_that_wrote_a_part_is_logged_and_one_that_failed_before_is_not(home, given, tmp_path):
    next((given / "images").iterdir()).write_bytes(b"cut")
    asked = ["predict", "-i", str(given / "images"), "--root", str(tmp_path / "none"), "-o", str(tmp_path / "out")]
    (tmp_path / "out").mkdir()
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "bundle.json").write_text("{}")
    assert run([*asked, "-b", str(tmp_path / "bundle")]) == 5 and not list((tmp_path / "out").iterdir())
    assert run([*asked, "-b", str(home.bundle)]) == 4
    assert json.loads((tmp_path / "out" / LOG).read_text())["exit_code"] == 4


def test_a_command_that_only_looks_leaves_no_line(home, tmp_path):
    shutil.copytree(home.root, tmp_path / "root", ignore=shutil.ignore_patterns(LOG))
    for command in (["info", "-d", "ToyLabels"], ["check", "-d", "ToyLabels"], ["datasets"]):
        assert run([*command, *([] if command == ["datasets"] else ["--root", str(tmp_path / "root")])]) == 0
    assert not (tmp_path / "root" / LOG).exists()


def test_a_log_that_cannot_be_written_does_not_change_how_the_command_ends(home, given, tmp_path, caplog):
    (tmp_path / "root" / LOG).mkdir(parents=True)
    assert predict(home, given, tmp_path / "out") == 0
    assert "the command is missing in" in caplog.text


def test_no_path_is_written_into_manifest_log_or_bundle(home, given, tmp_path):
    assert predict(home, given, tmp_path / "out") == 0
    written = [*(tmp_path / "out").iterdir(), *(tmp_path / "root").iterdir(), *home.bundle.rglob("*")]
    assert not [path for path in written if path.is_file() and (CANARY.encode() in path.read_bytes()
                                                                or str(tmp_path).encode() in path.read_bytes())]


@pytest.mark.parametrize(("typed", "written"), [
    (["predict", "-i", "/data/Smith^John", "-oout", "--bundle=b/Smith"], "autoseg predict -i PATH -oPATH --bundle=PATH"),
    (["train", "-d", "Hippocampus", "-f", "0,1", "-c3d_fullres", "--minutes", "20"],
     "autoseg train -d Hippocampus -f 0,1 -c3d_fullres --minutes 20"),
    (["train", "-d", "Smith John", "--plan", "../Smith"], "autoseg train -d PATH --plan PATH"),
    (["export", "Smith.autoseg", "--sign", "key"], "autoseg export PATH --sign PATH"),
    (["fit", "-d", "tests", "--seed=3", "--json"], "autoseg fit -d PATH --seed=3 --json"),  # a folder that is there
    ([], "autoseg"),
])
def test_a_command_is_written_down_without_its_paths(typed, written, monkeypatch):
    monkeypatch.chdir(Path(__file__).resolve().parents[2])
    assert spoken(typed) == written


def verified(folder, capsys, *more):
    capsys.readouterr()
    code = run(["verify", str(folder), "--json", *more])
    return code, json.loads(capsys.readouterr().out)


def test_verify_finds_a_prediction_that_was_changed_or_removed(home, given, tmp_path, capsys):
    assert predict(home, given, tmp_path / "out") == 0
    assert verified(tmp_path / "out", capsys)[0] == 0
    first, second = sorted((tmp_path / "out").glob("*.nii.gz"))
    first.write_bytes(second.read_bytes())
    second.unlink()
    code, document = verified(tmp_path / "out", capsys)
    assert code == 8 and document["problems"] == [f"{first.name} differs from what was written", f"{second.name} is missing"]


def test_verify_follows_the_log_and_checks_a_bundle(home, given, bundle, tmp_path, capsys):
    for _ in range(3):
        assert predict(home, given, tmp_path / "out") == 0
    code, document = verified(tmp_path / "root", capsys)
    assert code == 0 and read_chain(tmp_path / "root" / LOG).head in document["found"][LOG]
    log = tmp_path / "root" / LOG
    log.write_text(log.read_text().replace('"exit_code": 0', '"exit_code": 3', 1))
    code, document = verified(tmp_path / "root", capsys)
    assert code == 8 and "line 2 does not follow line 1" in document["problems"][0]
    assert verified(bundle, capsys)[0] == 0
    (bundle / "model_card.md").write_text("# safe for patients\n")
    assert verified(bundle, capsys)[0] == 8
    assert verified(tmp_path / "nothing", capsys)[0] == 2


def test_verify_finds_that_a_bundle_has_lost_its_list_of_files(bundle, capsys):
    (bundle / "bundle.json").unlink()
    (bundle / "plan.json").unlink()
    code, document = verified(bundle, capsys)
    assert code == 8 and "bundle.json is missing" in document["problems"][0]


@pytest.mark.parametrize("place", ["file/out", "file", "a" * 300])
def test_an_output_that_can_be_no_folder_is_refused_in_a_sentence(home, given, tmp_path, capsys, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("not a folder")
    capsys.readouterr()
    assert run(["predict", "-b", str(home.bundle), "-i", str(given / "images"), "-o", place]) == 6
    said = capsys.readouterr().err
    assert "Traceback" not in said and "bug" not in said and "name another folder" in said
    assert not list(tmp_path.glob("autoseg-error-*"))


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname"])
def test_verify_opens_nothing_outside_the_folder(tmp_path, capsys, name):
    (tmp_path / "out").mkdir()
    (tmp_path / "outside").write_text("x")
    (tmp_path / "out" / MANIFEST).write_text(json.dumps(
        {"stage": "predict", "origin": {}, "outputs": {name: "0" * 64}}))
    code, document = verified(tmp_path / "out", capsys)
    assert code == 8 and document["error"]["code"] == "E_PATH_ESCAPE"
