"""The planner on the label table of ChestX-ray14, which comes with the torchxrayvision wheel; no image is needed."""

from __future__ import annotations

import csv
import gzip
import io
import subprocess
import sys
import zipfile

import pytest
from tasks.classification.sets import make_spec

from autoseg.core.budget import Budget, CaseTime
from autoseg.core.case import Case
from autoseg.core.errors import DatasetError
from autoseg.core.fingerprint import Fingerprint, Moments
from autoseg.core.task import PlanRequest, Probe
from autoseg.planning.splits import make_folds
from autoseg.tasks.classification.plan import make_plan
from autoseg.tasks.classification.spec import index_units

WHEEL = "torchxrayvision==1.5.7"
SPEC = make_spec({"column": "Finding Labels", "name": "findings", "negative": ["No Finding"]}, localise=False)
GIGABYTES = 10**9


@pytest.fixture(scope="module")
def tables(request):
    """Rows of the label table and of the table of boxes; the wheel is unpacked, never installed."""
    folder = request.config.cache.mkdir("torchxrayvision")
    if not list(folder.glob("*.whl")):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), WHEEL]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=180)
        except (subprocess.SubprocessError, OSError) as error:
            pytest.skip(f"no package registry can be reached for {WHEEL}: {error}")
    found = []
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        for name in ("Data_Entry_2017_v2020.csv.gz", "BBox_List_2017.csv.gz"):
            text = gzip.decompress(wheel.read(f"torchxrayvision/data/{name}")).decode()
            found.append(list(csv.DictReader(io.StringIO(text))))
    return found


@pytest.fixture(scope="module")
def fingerprint(tables):
    """What would be counted of the images, which all have 1024 x 1024 pixels."""
    labels, boxes = tables
    count = len(labels)
    properties = {"sides.1x1024x1024": count}
    for row in labels:
        key = f"target.findings={row['Finding Labels']}"
        properties[key] = properties.get(key, 0) + 1
    for row in boxes:
        key = f"lesion.{round(1000 * min(float(row['w']), float(row['h]'])) / 1024)}"
        properties[key] = properties.get(key, 0) + 1
    moments = Moments(1024**2, 120.0, 120.0**2 + 60.0**2, 0.0, 255.0, (0.0, 20.0, 70.0, 120.0, 170.0, 220.0, 255.0))
    return Fingerprint(((1, 1024, 1024),) * count, ((1.0, 0.375, 0.375),) * count, (1.0,) * count, ((moments,),) * count,
                       ({100: 2**40},), properties)


@pytest.fixture(scope="module")
def configuration(fingerprint):
    probe = Probe(lambda *_: 0.2, lambda _: (4 * GIGABYTES, GIGABYTES),
                  lambda *_: CaseTime("", 0.01, 0.01, 1e6, (1.0, 1.0, 1.0), 1.0, 0.01, 0.01))
    made = make_plan(SPEC, fingerprint, Budget("cuda", 11 * GIGABYTES), PlanRequest("test"), probe)
    return made.configurations["densenet121"]


def test_classes_weigh_the_clipped_root_of_their_odds(configuration):
    values = configuration.task_values
    weights = {name: values[f"findings.weight.{place}"] for place, name in enumerate(values["findings.classes"])}
    assert len(weights) == 14
    assert weights["Hernia"] == 10.0  # 111,893 / 227 = 493, whose root is 22
    assert weights["Infiltration"] == pytest.approx((92226 / 19894) ** 0.5, abs=1e-3)
    assert weights["Pneumonia"] == pytest.approx((110689 / 1431) ** 0.5, abs=1e-3)


def test_the_input_is_large_enough_for_nodules(configuration, tables):
    nodules = sorted(min(float(row["w"]), float(row["h]"])) for row in tables[1] if row["Finding Label"] == "Nodule")
    assert configuration.patch_size == (1, 512, 512)
    assert nodules[len(nodules) // 10] / 1024 * 512 >= 8


def test_chexnets_network_is_planned(configuration):
    network = configuration.network
    assert (network.kind, network.blocks, network.growth, network.out_channels) == ("densenet", (1, 6, 12, 24, 16), 32, 14)
    assert configuration.loss.terms == {"binary_cross_entropy": 1.0}
    assert configuration.augmentation.mirror_axes == ()


def test_no_patient_is_on_both_sides_of_a_fold(tables):
    cases = [Case(row["Image Index"], row["Patient ID"], {"image": ()}, values={"Finding Labels": row["Finding Labels"]})
             for row in tables[0][:4000]]
    units = index_units(SPEC, cases)
    group = {unit.id: unit.group for unit in units}
    folds = make_folds(units)
    assert len(folds) == 5 and len(set(group.values())) < len(units)
    for fold in folds:
        assert not {group[name] for name in fold.train} & {group[name] for name in fold.validation}


def test_a_random_split_of_images_is_refused_because_it_divides_patients(tables):
    spec = make_spec({"column": "Finding "
                                "Labels", "negative": ["No Finding"]}, official_split={"column": "split", "test": ["test"]})
    cases = [Case(row["Image Index"], row["Patient ID"], {"image": ()},
                  values={"Finding Labels": row["Finding Labels"], "split": "test" if place % 5 == 0 else "train"})
             for place, row in enumerate(tables[0])]
    with pytest.raises(DatasetError, match="on both sides"):
        index_units(spec, cases)
