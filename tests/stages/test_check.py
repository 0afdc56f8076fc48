from __future__ import annotations

from dataclasses import replace

import pytest
from toy_tasks.datasets import SPECS, open_toy, write_cases

from autoseg import pipeline
from autoseg.core.case import Unit
from autoseg.core.errors import DatasetError
from autoseg.core.progress import silent
from autoseg.core.spec import DatasetSpec, GroupingSpec
from autoseg.stages.check import divided_patients


@pytest.fixture
def checked(tmp_path):
    """What `autoseg check` says of a toy whose specification was changed."""
    def check(name, old, new):
        tmp_path.joinpath("spec.yaml").write_text(SPECS[name].replace(old, new))
        write_cases(tmp_path, name)
        return pipeline.check(open_toy(name, tmp_path, tmp_path / "home"), executor=None)
    return check


def test_a_channel_called_ct_that_is_none_is_one_warning_for_all_cases(checked):
    found = checked("segmentation", "[MRI]", "[CT]")
    assert [(warning.unit, warning.code) for warning in found.warnings] == [("p0_scan0 and 7 more", "W_MODALITY")]
    assert "not Hounsfield units" in found.warnings[0].message and found.problems == ()


def test_a_stated_normalization_is_not_questioned(checked):
    assert checked("segmentation", "[MRI]", "[{name: CT, normalization: zscore}]").warnings == ()


def test_ignored_values_are_known_and_said(checked):
    found = checked("regions", "x", "x")
    assert found.problems == found.warnings == ()
    assert any(line.startswith("ignored    5") for line in found.lines)


def test_regions_that_cannot_be_outputs_stop_the_check(checked):
    with pytest.raises(DatasetError, match="unclear which label"):
        checked("regions", "regions: {whole: [bright, rim], core: [bright]}", "regions: {core: [bright], whole: [bright, rim]}")


def test_problems_of_single_cases_stay_apart(checked):
    found = checked("regions", "ignore: 5", "")
    assert [problem.unit for problem in found.problems] == ["p0_scan1", "p1_scan3", "p2_scan5", "p3_scan7"]
    assert {replace(problem, unit="", message="").code for problem in found.problems} == {"E_LABEL_VALUE"}


def test_ids_that_look_as_if_patients_had_several_cases_are_one_warning(real_data, tmp_path):
    """Thirty patients of some 18 slices each; the folder's own dataset.json says nothing of patients."""
    folder = real_data / "Dataset202_SunnybrookLV"
    units = [Unit(name, (), name) for path in sorted((folder / "labelsTr").iterdir()) for name in [path.stem]]
    spec = pipeline.open_workspace(tmp_path, str(folder), None, silent).spec
    (warning,) = divided_patients(spec, [unit.id for unit in units], len(units))
    assert warning.code == "W_GROUPING" and "there are 30, folds divide them" in warning.message
    assert divided_patients(replace(spec, grouping=GroupingSpec(pattern="(.+)-IM")), [unit.id for unit in units], 30) == []


def test_numbered_cases_are_not_taken_for_patients():
    ids = [f"case_{number:03d}" for number in range(40)]
    assert divided_patients(DatasetSpec("x", "segmentation", ()), ids, 40) == []
