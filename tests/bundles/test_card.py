"""The model card: its numbers are those of the run's own files, and its texts are only texts."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from autoseg.cli.app import run
from autoseg.core.bundle import Decisions
from autoseg.core.provenance import Manifest
from autoseg.core.report import Record, Report
from autoseg.io.bundles import read_bundle
from autoseg.io.manifests import MANIFEST
from autoseg.io.values import read_json, read_value
from autoseg.stages.card import CardFacts, model_card, text
from autoseg.stages.trained import Trained


def facts(home, records=None, **changes):
    """What the card of the toy is made of, with other records or other values."""
    workspace, plan = home.workspace, home.workspace.plan("toy")
    folder = workspace.layout.run("toy", "3d_fullres", "0")
    report = read_value(folder / "summary.json", Report) if records is None else Report(tuple(records), {})
    runs = [Trained("3d_fullres", "0", folder, report)]
    manifest = read_value(home.bundle / MANIFEST, Manifest)
    values = CardFacts(workspace.task, workspace.spec, plan, workspace.fingerprint, workspace.units_by_id, runs, runs,
                       Decisions(), None, manifest)
    return replace(values, **changes)


def rows(card):
    """First cell of every table row -> its other cells."""
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in card.splitlines() if line.startswith("| ")]
    return {first: rest for first, *rest in cells}


def test_scores_are_those_of_the_run(home):
    card = read_bundle(home.bundle).card
    layout = home.workspace.layout
    records = read_json(layout.run("toy", "3d_fullres", "0") / "summary.json")["records"]
    values = [record["scores"]["dark.dice"] for record in records]
    assert rows(card)["dark.dice"][:1] == [f"{np.mean(values):.4f}"]
    baseline = read_json(layout.baseline("0") / "summary.json")["records"]
    assert f"mean.dice: {np.mean([record['scores']['mean.dice'] for record in baseline]):.4f}" in card


def test_cases_patients_spacings_shapes_and_intensities_are_those_of_the_images(home):
    from autoseg.io.images import read_image

    card = read_bundle(home.bundle).card
    images = [read_image([path]) for path in sorted((home.folder / "images").iterdir())]
    shapes = np.array([image.geometry.shape for image in images])
    assert "- 8 cases of 4 patients" in card
    assert rows(card)["spacing, mm (z, y, x)"] == ["1 x 1 x 1"] * 3
    assert rows(card)["shape, voxels (z, y, x), without empty margins"] == [
        " x ".join(f"{size:g}" for size in measure(shapes, axis=0)) for measure in (np.min, np.median, np.max)]
    means = []
    for path, image in zip(sorted((home.folder / "labels").iterdir()), images, strict=True):
        means.append(image.voxels[0][read_image([path]).voxels[0] > 0].mean())
    assert float(rows(card)["MRI"][1]) == pytest.approx(np.mean(means), rel=1e-3)


def test_intervals_are_over_patients_and_absent_where_one_patient_says_nothing(home):
    many = [Record(f"case{number}", {"mean.dice": number / 10}, f"patient{number // 2}") for number in range(8)]
    shown = rows(model_card(facts(home, many)))["mean.dice"]
    assert shown[0] == "0.3500" and shown[3] == "4"  # the last table with that row is the one of patients
    lower, upper = map(float, shown[1].split(" to "))
    assert 0.05 <= lower < 0.35 < upper <= 0.65
    one = rows(model_card(facts(home, [Record("a", {"mean.dice": 0.5}, "p"), Record("b", {"mean.dice": 0.7}, "p")])))
    assert one["mean.dice"] == ["0.6000", "none: too few", "0.6000", "1"]


def test_limits_follow_from_the_numbers(home):
    few = model_card(facts(home))
    assert "Scores rest on 1 patient" in few and "no case from elsewhere was scored" in few
    enough = model_card(facts(home, [Record(f"c{n}", {"mean.dice": 0.5 + n / 100}, "") for n in range(20)]))
    assert "Scores rest on" not in enough and "mean.dice from 0.5000 to 0.6900" in enough
    nothing = model_card(facts(home, []))
    assert "nothing is known about how well this model does" in nothing
    whole = facts(home)
    second = Trained("3d_fullres", "all", whole.members[0].folder, Report((), {}))
    card = model_card(replace(whole, members=[*whole.members, second]))
    assert "which nobody scored" in card and "the mean of 2 networks" in card and "model on all data was not scored" in card


def test_how_it_predicts_says_what_was_decided_and_why(home):
    decided = Decisions(("largest_component.bright",), ("tile step 1: kept",), tile_step=1.0, mirror=True)
    card = model_card(facts(home, decisions=decided))
    assert "- tile step: 1, by cross-validation" in card and "- mirroring: on, by cross-validation" in card
    assert "- precision: fp32, as planned" in card and "post-processing: largest_component.bright" in card
    assert "- tile step 1: kept" in card


def test_texts_of_a_specification_are_no_markdown_and_no_html(home):
    spec = replace(home.workspace.spec, description="<script>alert(1)</script> | # title\n## Intended use\x1b[2J [a](http://x)")
    card = model_card(facts(home, spec=spec))
    assert "<script>" not in card.replace("\\<", "") and "\x1b" not in card and card.count("\n## Intended use") == 1
    assert text("a|b *c* _d_ surface_dice") == r"a\|b \*c\* \_d\_ surface_dice"


def test_info_shows_the_card_and_who_signed(home, bundle, tmp_path, capsys):
    assert run(["info", "-d", "ToyLabels", "--root", str(home.root)]) == 0
    shown = capsys.readouterr().out
    assert "Not a medical device" in shown and "signature  not signed" in shown and read_bundle(home.bundle).digest in shown
    assert run(["info", "-b", str(home.bundle), "--root", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["card"] == read_bundle(home.bundle).card


def test_a_card_cannot_move_the_cursor_of_a_terminal(bundle, tmp_path, capsys):
    from bundles.hostile import rewrite

    rewrite(bundle, "model_card.md", b"# card\x1b[2J\x1b]0;title\x07\r\xc2\x9b1m\n")
    assert run(["info", "-b", str(bundle), "--root", str(tmp_path)]) == 0
    assert not {"\x1b", "\x07", "\r", "\x9b"} & set(capsys.readouterr().out)
