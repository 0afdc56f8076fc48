"""Plans that somebody edited, that come from the future, or that want to run code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autoseg.core.errors import IncompatibleError, ReadError
from autoseg.core.networks import Classifier, Start
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


CLASSIFIER = {"kind": "densenet", "dims": 3, "in_channels": 1, "out_channels": 2, "features": [8, 16], "growth": 4,
              "strides": [[1, 1, 1], [2, 2, 2]], "kernel_sizes": [[3, 3, 3], [3, 3, 3]], "blocks": [2, 2]}
START = {"weights": "start.safetensors", "sha256": "0" * 64, "parts": ["encoder."]}


def test_a_classifier_of_whole_images_is_read_whatever_their_size(tmp_path):
    plan = read_plan(edited(tmp_path, {f"{FULL}.network": CLASSIFIER, f"{FULL}.patch_size": [41, 57, 39],
                                       f"{FULL}.whole_image": True, f"{FULL}.start": START}))
    configuration = plan.configurations["3d_fullres"]
    assert isinstance(configuration.network, Classifier) and configuration.network.blocks == (2, 2)
    assert configuration.whole_image and configuration.start == Start(START["weights"], START["sha256"], ("encoder.",))


@pytest.mark.parametrize(("key", "value", "words"), [
    ("network.blocks", [2], ["features has 2 stages", "blocks"]),
    ("network.blok", [2], ["network.blok", "Did you mean", "blocks"]),
    ("network.features", [8, 0], ["network.features", "greater than or equal to 1"]),
    ("network.growth", 0, ["a densenet grows by 1 or more"]), ("network.slices", True, ["dims is 3"]),
    ("network.bottleneck", True, ["bottleneck is for a resnet"]), ("network.kernel_sizes.0", [2, 3, 3], ["must be odd"]),
    ("network.output_bias", [0.5], ["output_bias has 1 values"]), ("start.weights", "../../etc/passwd", ["beside the plan"]),
    ("start.weights", "/x.safetensors", ["beside the plan"]), ("start.weights", "start.pt", [".safetensors file"]),
    ("start.sha256", "abc", ["no SHA-256 digest"]), ("start.parts", [], ["start.parts must name"]),
    ("start.parts", [""], ["start.parts must name"]), ("start.rate_decay", 0.0, ["rate_decay", "greater than 0"]),
])
def test_an_edited_classifier_is_refused_by_key(tmp_path, key, value, words):
    first = json.loads(edited(tmp_path, {f"{FULL}.network": CLASSIFIER, f"{FULL}.start": START}).read_text())
    entry = first["configurations"]["3d_fullres"]
    *above, last = key.split(".")
    for step in above:
        entry = entry[step]
    entry[int(last) if isinstance(entry, list) else last] = value
    (tmp_path / "plan.json").write_text(json.dumps(first))
    with pytest.raises(IncompatibleError) as caught:
        read_plan(tmp_path / "plan.json")
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_network_for_every_voxel_cannot_see_images_of_one_size(tmp_path):
    with pytest.raises(IncompatibleError, match="whole_image is for networks that answer with a vector"):
        read_plan(edited(tmp_path, {f"{FULL}.whole_image": True}))
    with pytest.raises(IncompatibleError, match=r"key 'configurations.3d_fullres.network.kind' is missing"):
        read_plan(edited(tmp_path, {f"{FULL}.network": {key: value for key, value in CLASSIFIER.items() if key != "kind"}}))
