"""Plans that somebody edited, that come from the future, or that want to run code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autoseg.core.errors import IncompatibleError, ReadError
from autoseg.io.plans import read_plan

GOLDEN = Path(__file__).resolve().parents[1] / "tasks" / "segmentation" / "golden" / "hippocampus_nnunet_format_1.json"
FULL = "configurations.3d_fullres"


def edited(folder, changes):
    """The golden plan with the values at dotted paths replaced."""
    document = json.loads(GOLDEN.read_text())
    for place, value in changes.items():
        *above, last = place.split(".")
        entry = document
        for key in above:
            entry = entry[int(key) if isinstance(entry, list) else key]
        entry[int(last) if isinstance(entry, list) else last] = value
    (folder / "plan.json").write_text(json.dumps(document))
    return folder / "plan.json"


def test_a_sound_plan_is_read(tmp_path):
    assert read_plan(edited(tmp_path, {})).name == "nnunet"


@pytest.mark.parametrize(("place", "value", "words"), [
    ("format", 3, ["format 3", "update autoseg"]), ("format", 0, ["format 0"]),
    ("extra", 1, ["'extra'", "not known"]), (f"{FULL}.patchsize", [8, 8, 8], ["patchsize", "Did you mean", "patch_size"]),
    (f"{FULL}.network.kind", "os.system", ["network.kind", "os.system", "plain_unet"]),
    (f"{FULL}.network.kind", "torch.hub.load", ["plain_unet"]), (f"{FULL}.network.norm", "builtins.eval", ["norm"]),
    (f"{FULL}.optimization.optimizer", "subprocess.Popen", ["optimizer"]),
    (f"{FULL}.optimization.precision", "fp8", ["precision"]),
    (f"{FULL}.spacing_mm", [-1.0, 1.0, 1.0], ["spacing_mm", "-1", "greater than 0"]),
    (f"{FULL}.spacing_mm", [1.0, 0.0, 1.0], ["spacing_mm", "greater than 0"]),
    (f"{FULL}.spacing_mm", [1.0, None, 1.0], ["spacing_mm"]), (f"{FULL}.patch_size", [0, 8, 8], ["patch_size"]),
    (f"{FULL}.patch_size", [40, 57, 40], ["multiple of the product of all strides"]),
    (f"{FULL}.patch_size", [40, 56], ["patch_size"]), (f"{FULL}.batch_size", 0, ["batch_size"]),
    (f"{FULL}.batch_size", 2.5, ["batch_size"]), (f"{FULL}.network.strides.1", [2, 2], ["strides must give 3 numbers"]),
    (f"{FULL}.network.strides.1", [0, 2, 2], ["strides"]), (f"{FULL}.network.kernel_sizes.0", [2, 3, 3], ["must be odd"]),
    (f"{FULL}.network.features", [32], ["features has 1 stages"]), (f"{FULL}.network.features", [], ["features has 0 stages"]),
    (f"{FULL}.network.in_channels", 2, ["takes 2 channels, and inputs has 1"]),
    (f"{FULL}.network.output_bias", [0.0, 1.0], ["output_bias has 2 values"]),
    (f"{FULL}.inference.tile_step", 0.0, ["tile_step"]), (f"{FULL}.inference.tile_step", 1e-9, ["less than one voxel"]),
    (f"{FULL}.augmentation.rotation_probability", 1.5, ["rotation_probability"]),
    (f"{FULL}.optimization.iterations", -1, ["iterations"]), (f"{FULL}.optimization.learning_rate", "inf", ["learning_rate"]),
    ("configurations.2d.patch_size", [2, 56, 40], ["two-dimensional"]), ("transpose", [0, 0, 2], ["once each"]),
    ("transpose", [0, 1, 3], ["once each"]),
])
def test_an_edited_plan_is_refused_by_file_and_key(tmp_path, place, value, words):
    path = edited(tmp_path, {place: value})
    with pytest.raises(IncompatibleError) as caught:
        read_plan(path)
    assert caught.value.exit_code == 5 and str(caught.value).startswith(str(path))
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(("text", "code"), [
    ("", "E_JSON"), ("[" * 10_000, "E_DOCUMENT"), ('{"name": "a", "name": "b"}', "E_JSON"), ('{"a": NaN}', "E_JSON"),
    ('{"a": 1e999}', "E_DOCUMENT")])
def test_a_damaged_plan_is_refused(tmp_path, text, code):
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(ReadError, match=r"plan\.json") as caught:
        read_plan(tmp_path / "plan.json")
    assert caught.value.code == code


@pytest.mark.parametrize("document", ["[]", "1", "null", '"plan"', "{}"])
def test_a_document_that_is_no_plan_is_refused(tmp_path, document):
    (tmp_path / "plan.json").write_text(document)
    with pytest.raises(IncompatibleError, match=r"plan\.json"):
        read_plan(tmp_path / "plan.json")
