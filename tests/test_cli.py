"""The command line as a user types it: results, exit codes, start-up time's causes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from toy_tasks.datasets import SPECS, write_cases

from autoseg.cli.app import run
from autoseg.cli.run import parse_bytes
from autoseg.cli.verbs import VERBS
from autoseg.core.errors import UsageError
from autoseg.io.images import read_geometry, read_image
from autoseg.io.lock import locked

# They take seconds to import and no command needs them to print its help.
HEAVY = ("torch", "SimpleITK", "pandas", "sklearn", "scipy", "nibabel", "numpy", "blosc2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A toy dataset and a root in which one fold has been fitted by `autoseg fit`."""
    folder = tmp_path_factory.mktemp("cli")
    folder.joinpath("spec.yaml").write_text(SPECS["segmentation"])
    write_cases(folder, "segmentation")
    assert run(["fit", "-d", str(folder / "spec.yaml"), "-i", str(folder), "--minutes", "0.01", "--target", "cpu",
                "--memory", "4GB", "--root", str(folder / "home"), "--json"]) == 0
    return folder


def call(folder, capsys, *arguments):
    """Exit code and JSON document of a command below the folder's root."""
    capsys.readouterr()
    code = run([*arguments, "--root", str(folder / "home"), "--json"])
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("verb", ["", *(verb.__name__.rstrip("_") for verb in VERBS if verb.__name__ != "task")])
def test_help_imports_nothing_heavy(verb):
    script = ("import sys; from autoseg.cli.app import run\n"
              f"code = run({[verb, '--help'] if verb else ['--help']!r})\n"
              f"print('HEAVY', sorted(set(sys.modules) & set({HEAVY!r})), code)")
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "HEAVY [] 0" in finished.stdout
    assert "--help" in finished.stdout


def test_version_is_that_of_the_package(capsys):
    from importlib.metadata import version

    assert run(["--version"]) == 0
    assert capsys.readouterr().out.strip() == f"autoseg {version('autoseg')}"


def test_an_unknown_command_and_option_are_usage_errors_with_the_next_command(capsys):
    assert run(["trian"]) == 2
    assert "next: autoseg --help" in capsys.readouterr().err
    assert run(["train", "--epochs", "3"]) == 2


def test_evaluate_says_what_it_scores_of_every_shipped_task(capsys):
    assert run(["evaluate", "--help"]) == 0
    told = capsys.readouterr().out
    assert all(word in told for word in ("Dice", "segmentation", "AUC", "calibration", "classification"))


def test_datasets_lists_the_shipped_specifications(folder, capsys):
    code = run(["datasets", "--json"])
    document = json.loads(capsys.readouterr().out)
    assert code == 0 and {"Hippocampus", "BraTS"} <= {spec["name"] for spec in document["datasets"]}
    assert all(spec["source"] and spec["licence"] for spec in document["datasets"])


def test_datasets_in_short_fits_a_terminal_and_one_by_name_is_shown_in_full(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert run(["datasets"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    place = next(index for index, line in enumerate(lines) if line.startswith("Hippocampus"))
    assert lines[place].split(maxsplit=1)[1] == "MRI -> Anterior, Posterior" and "CC-BY-SA-4.0" in lines[place + 1]
    assert run(["datasets", "brats"]) == 0
    shown = capsys.readouterr().out
    for text in ("1 necrotic_core, 2 edema, 4 enhancing", "layout 'nnunet'", "1 edema, 2 necrotic_core, 3 enhancing",
                 "whole_tumour: necrotic_core + edema + enhancing", "imagesTs/* (a test case)", "arXiv:2107.02314"):
        assert text in shown
    assert run(["datasets", "HepaticVesel"]) == 3
    assert "Did you mean 'HepaticVessel'" in capsys.readouterr().err


def test_check_names_unused_files_once_per_reason(folder, tmp_path, capsys):
    for name in ("images", "labels"):
        shutil.copytree(folder / name, tmp_path / name)
    for name in ("a", "b", "c", "d", "e"):
        (tmp_path / f"{name}.txt").touch()
    assert run(["check", "-d", str(folder / "spec.yaml"), "-i", str(tmp_path), "--root", str(tmp_path / "home")]) == 0
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("not used")]
    assert line == "not used   a.txt, b.txt, c.txt and 2 more: matches no pattern of layout toy"


def test_usage_errors_are_json_too(capsys):
    assert run(["train", "--epochs", "3", "--json"]) == 2
    document = json.loads(capsys.readouterr().out)
    assert document["error"]["code"] == "E_USAGE" and document["command"] == "train"


def test_a_misspelt_dataset_names_the_nearest_one(tmp_path, capsys):
    assert run(["check", "-d", "Hipocampus", "--root", str(tmp_path)]) == 3
    assert "Hippocampus" in capsys.readouterr().err


def test_check_counts_cases_and_patients(folder, capsys):
    code, document = call(folder, capsys, "check", "-d", "ToyLabels")
    assert code == 0 and document["problems"] == []
    assert any("8, of 4 patients" in line for line in document["understood"])


def test_check_lists_every_problem_and_exits_3(folder, tmp_path, capsys):
    for name in ("images", "labels"):
        shutil.copytree(folder / name, tmp_path / name)
    first, second, third, *_ = sorted((tmp_path / "images").iterdir())
    first.write_bytes(first.read_bytes()[:-200])
    (tmp_path / "labels" / second.name).unlink()
    shutil.copy(sorted((tmp_path / "labels").iterdir())[-1], tmp_path / "labels" / third.name)
    code = run(["check", "-d", str(folder / "spec.yaml"), "-i", str(tmp_path), "--root", str(tmp_path / "home"), "--json"])
    document = json.loads(capsys.readouterr().out)
    assert code == 3
    assert {problem["case"] for problem in document["problems"]} == {
        path.name.removesuffix(".nii.gz") for path in (first, second, third)}
    assert not (tmp_path / "home").exists()


def test_bad_cases_stop_planning_with_one_message_and_nothing_planned(folder, tmp_path, capsys):
    for name in ("images", "labels"):
        shutil.copytree(folder / name, tmp_path / name)
    broken = sorted((tmp_path / "images").iterdir())[:2]
    for path in broken:
        path.write_bytes(path.read_bytes()[:-200])
    code = run(["plan", "-d", str(folder / "spec.yaml"), "-i", str(tmp_path), "--target", "cpu", "--root",
                str(tmp_path / "home")])
    message = capsys.readouterr().err
    assert code == 3 and all(path.name.removesuffix(".nii.gz") in message for path in broken)
    assert not list((tmp_path / "home").glob("*/plans/*/plan.json"))


def test_the_dataset_planned_last_is_remembered_and_explained(folder, capsys):
    code = run(["plan", "--minutes", "0.01", "--target", "cpu", "--memory", "4GB", "--explain", "--root", str(folder / "home")])
    text = capsys.readouterr().out
    assert code == 0
    assert "configurations.3d_fullres.patch_size" in text and "because" in text and "source" in text


def test_predict_and_evaluate_give_what_validation_gave(folder, tmp_path, capsys):
    code, fitted = call(folder, capsys, "train", "-d", "ToyLabels", "-f", "0")
    assert code == 0
    expected = {record["unit"]: record["scores"]["mean.dice"] for record in fitted["folds"]["0"]["records"]}
    for name in ("in", "labels"):
        (tmp_path / name).mkdir()
    for unit in expected:
        shutil.copy(folder / "images" / f"{unit}.nii.gz", tmp_path / "in")
        shutil.copy(folder / "labels" / f"{unit}.nii.gz", tmp_path / "labels")
    code, predicted = call(folder, capsys, "predict", "-d", "ToyLabels", "-i", str(tmp_path / "in"), "-o",
                           str(tmp_path / "out"), "--save-probabilities")
    assert code == 0 and set(predicted["cases"]) == set(expected)
    for unit in expected:
        assert read_geometry(tmp_path / "out" / f"{unit}.nii.gz") == read_geometry(tmp_path / "in" / f"{unit}.nii.gz")
        probabilities = read_image([tmp_path / "out" / f"{unit}_probabilities.nii.gz"]).voxels
        label = read_image([tmp_path / "out" / f"{unit}.nii.gz"]).voxels[0]
        assert probabilities.sum(axis=0) == pytest.approx(np.ones(label.shape), abs=1e-4)
        assert np.array_equal(np.array([0, 7, 3])[probabilities.argmax(axis=0)][label > 0], label[label > 0])
    code, scored = call(folder, capsys, "evaluate", "-d", "ToyLabels", "-p", str(tmp_path / "out"), "-l",
                        str(tmp_path / "labels"))
    assert code == 0
    bundle = json.loads((folder / "home" / "ToyLabels" / "bundles" / "0.01min" / "bundle.json").read_text())
    if not bundle["decisions"]["refinements"]:
        assert {case["unit"]: case["scores"]["mean.dice"] for case in scored["cases"]} == pytest.approx(expected)


def test_a_missing_prediction_is_a_failure_of_that_case_and_exit_4(folder, tmp_path, capsys):
    shutil.copytree(folder / "labels", tmp_path / "predictions")
    gone = sorted((tmp_path / "predictions").iterdir())[0]
    gone.unlink()
    code, document = call(folder, capsys, "evaluate", "-d", "ToyLabels", "-p", str(tmp_path / "predictions"), "-l",
                          str(folder / "labels"))
    assert code == 4 and document["status"] == "partial"
    assert [failure["unit"] for failure in document["failures"]] == [gone.name.removesuffix(".nii.gz")]
    assert document["summary"]["mean.dice"]["mean"] == 1.0 and document["summary"]["mean.dice"]["count"] == 7
    assert document["summary"]["mean.dice"]["groups"] == document["per_patient"]["mean.dice"]["count"] == 4


def test_fit_scores_cases_and_patients_and_the_page_shows_both(folder, capsys):
    code, fitted = call(folder, capsys, "train", "-d", "ToyLabels", "-f", "0")
    fold = fitted["folds"]["0"]
    values = [record["scores"]["mean.dice"] for record in fold["records"]]
    assert code == 0 and len(values) == 2 and len({record["group"] for record in fold["records"]}) == 1
    assert fold["per_patient"]["mean.dice"]["mean"] == pytest.approx(sum(values) / 2)
    assert (fold["summary"]["mean.dice"]["count"], fold["per_patient"]["mean.dice"]["count"]) == (2, 1)
    page = Path(fitted["report"]).read_text()
    assert 'id="patients"' in page and "Mean of patients" in page and "2 cases of 1 patient." in page
    assert "http://" not in page.replace("http://www.w3.org", "") and "https://" not in page


def test_a_second_run_on_a_folder_is_refused_with_the_name_of_the_first(folder, capsys):
    with locked(folder / "home" / "ToyLabels", "plan"):
        code, document = call(folder, capsys, "plan", "-d", "ToyLabels", "--target", "cpu", "--memory", "4GB")
    assert code == 7 and "'autoseg plan'" in document["error"]["message"] and "process" in document["error"]["message"]


def test_training_before_planning_says_what_to_type(tmp_path, capsys):
    assert run(["train", "-d", "Hippocampus", "--root", str(tmp_path)]) == 2
    assert "autoseg plan_and_preprocess -d Hippocampus" in capsys.readouterr().err


def test_a_fold_that_does_not_exist_lists_those_that_do(folder, capsys):
    code, document = call(folder, capsys, "train", "-d", "ToyLabels", "-f", "9")
    assert code == 2 and "0, 1, 2, 3" in document["error"]["message"]


def test_errors_are_json_with_code_and_hint_where_json_is_asked_for(tmp_path, capsys):
    code = run(["predict", "-b", str(tmp_path), "-i", str(tmp_path), "-o", str(tmp_path / "out"), "--json"])
    document = json.loads(capsys.readouterr().out)
    assert code == document["exit_code"] == 2
    assert document["schema"] == "autoseg.result/1" and document["status"] == "error" and document["error"]["hint"]


@pytest.mark.parametrize(("text", "expected"), [
    ("8GB", 8 * 10**9), ("512 MB", 512 * 10**6), ("1.5GiB", 3 * 2**29), ("2g", 2 * 10**9)])
def test_memory_is_read_with_its_unit(text, expected):
    assert parse_bytes(text) == expected


def test_a_task_of_ones_own_brings_its_own_commands(capsys):
    assert run(["task", "toy_tasks.intensity", "halve", "6", "--times", "2"]) == 0
    assert capsys.readouterr().out == "half of it is 1.5\n"
    assert run(["task", "toy_tasks.intensity", "--help"]) == 0
    assert "Halve a number." in capsys.readouterr().out
    assert run(["task", "segmentation", "anything"]) == 2
    assert "no commands of its own" in capsys.readouterr().err


def test_memory_without_a_unit_is_refused():
    with pytest.raises(UsageError, match="8GB"):
        parse_bytes("8")


def test_init_writes_a_specification_that_check_understands_and_never_overwrites(folder, tmp_path, capsys, monkeypatch):
    write_cases(tmp_path / "found", "segmentation")
    monkeypatch.chdir(tmp_path)
    assert run(["init", str(tmp_path / "found"), "--name", "Mine"]) == 0
    shown = capsys.readouterr().out
    assert f"next: autoseg check -d Mine.yaml -i {tmp_path / 'found'}" in shown
    written = (tmp_path / "Mine.yaml").read_text()
    assert written.count("# ?") - 1 == int(shown.split(" place")[0].rsplit(" ", 1)[1])
    code, document = call(folder, capsys, "check", "-d", "Mine.yaml", "-i", str(tmp_path / "found"))
    assert code == 0 and document["problems"] == []
    assert run(["init", str(tmp_path / "found"), "--name", "Mine"]) == 2
    assert "is not overwritten" in capsys.readouterr().err
    assert (tmp_path / "Mine.yaml").read_text() == written
    assert run(["init", str(tmp_path / "nothing")]) == 3
