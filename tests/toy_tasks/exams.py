"""A task outside the package: one number for an exam of several images, each seen whole; written as JSON, not as an image."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn
from toy_tasks.intensity import fit_baseline, fit_shift, notes, shift

from autoseg.core.budget import StepTime
from autoseg.core.case import Unit
from autoseg.core.errors import DatasetError
from autoseg.core.networks import Classifier
from autoseg.core.plan import Augmentation, Configuration, Inference, Loss, Optimization, Plan, Reason, Resampling
from autoseg.core.report import Estimate
from autoseg.core.task import Comparison, Description, Phase, Picture, Refinement, Task, as_predicted
from autoseg.io.images import read_image, split_ending
from autoseg.metrics.bootstrap import bootstrap_mean
from autoseg.planning.normalization import plan_inputs

IMAGES = 2  # of an exam that are trained on


@dataclass(frozen=True)
class Options:
    """This task has no options."""


def index(spec, cases):
    exams = {}
    for case in cases:
        exams.setdefault(case.id.partition("_")[0], []).append(case)
    return tuple(Unit(name, tuple(found), name) for name, found in exams.items())


def examine(units, spec):
    return ()


def facts(spec, units):
    return {"exams": str(len(units)), "images": str(sum(len(unit.cases) for unit in units))}


def read_target(unit, spec):
    paths = [case.targets["value"] for case in unit.cases if "value" in case.targets]
    return np.float32(np.mean([read_image([path]).voxels.mean() for path in paths])) if paths else None


def describe(unit, inputs, target):
    return Description(np.ones(next(iter(inputs.values())).geometry.shape, bool), {"images": len(inputs)})


def make_plan(spec, fingerprint, budget, request, probe):
    inputs, reasons = plan_inputs(spec.inputs, fingerprint)
    inputs = tuple(replace(entry, air="nothing") for entry in inputs)
    network = Classifier("plain_encoder", 3, 1, 1, (4,), ((1, 1, 1),), ((3, 3, 3),), (1,))
    shape = tuple(float(size) for size in np.median(fingerprint.shapes_after_crop, axis=0))
    configuration = Configuration(
        "whole", (1.0, 1.0, 1.0), shape, (6, 8, 10), 4, Resampling(), network, Loss({"mse": 1.0}), Augmentation(),
        Optimization("adamw", 1e-2, 0.0, iterations=20, iterations_per_epoch=10, schedule_steps_per_epoch=False),
        Inference(1.0, 0.125, 1, (), False), whole_image=True)
    draft = Plan(request.name, spec.name, spec.task, (0, 1, 2), inputs, {}, budget, {}, request.seed)
    if budget.seconds_per_step("whole") is None:
        seconds = probe.seconds(draft, configuration)
        probe.case_seconds(draft, configuration)
        budget = replace(budget, measured=(StepTime("whole", seconds),))
    toy = Reason("nothing", "small enough for a test", "this file")
    why = {"transpose": toy, "seed": toy, "configurations.whole": toy}
    return replace(draft, configurations={"whole": configuration}, budget=budget, reasons=reasons | why)


def prepare_target(target, record, configuration):
    return {"value": np.array([target], np.float32)}


def draw_batch(units, store, configuration, rng):
    chosen = [units[rng.integers(len(units))] for _ in range(configuration.batch_size)]
    images = [[store.array(case.id, "image") for case in unit.cases[:IMAGES]] for unit in chosen]
    values = [np.mean([store.array(case.id, "value")[0] for case in unit.cases]) for unit in chosen]
    return {"image": torch.from_numpy(np.array(images)), "value": torch.tensor(values, dtype=torch.float32),
            "cases": [unit.id for unit in chosen]}


def blank_batch(configuration):
    count = configuration.batch_size
    return {"image": torch.zeros(count, IMAGES, 1, *configuration.patch_size), "value": torch.zeros(count)}


class Reader(nn.Module):
    """One convolution, mean over places, one number; `offset` is moved by no phase, the averages of `scale` neither."""

    def __init__(self):
        super().__init__()
        self.scale = nn.BatchNorm3d(1)
        self.encoder = nn.Conv3d(1, 4, 3, padding=1)
        self.head = nn.Linear(4, 1)
        self.offset = nn.Parameter(torch.ones(1))

    def forward(self, image):
        return self.head(torch.relu(self.encoder(self.scale(image))).mean(dim=(2, 3, 4)))[:, 0] + self.offset


def step(network, batch):
    images = batch["image"]
    found = network(images.flatten(0, 1)).reshape(images.shape[:2]).mean(dim=1)
    return {"total": nn.functional.mse_loss(found, batch["value"])}


def build_network(configuration):
    return Reader()


def moved(network):
    return [*network.encoder.parameters(), *network.head.parameters()]


def rates(network):
    return [0.5 if parameter.ndim == 5 else 1.0 for parameter in moved(network)]


def phases(configuration):
    return (Phase("regression", moved, step, rates),)


def infer(networks, inputs, configuration, context):
    with torch.no_grad():
        found = [network(torch.from_numpy(image)[None]) for network in networks for image in inputs.values()]
    return float(torch.stack(found).mean())


def restore(raw, record, configuration, context):
    return np.float32(raw)


def json_of(path):
    return path.with_name(f"{split_ending(path)[0]}.json")


def write(prediction, spec, image, path):
    json_of(path).parent.mkdir(parents=True, exist_ok=True)
    json_of(path).write_text(json.dumps({"value": float(prediction)}))
    return (json_of(path),)


def read_prediction(path, spec):
    if not json_of(path).exists():
        raise DatasetError(f"no prediction {json_of(path)}")
    return np.float32(json.loads(json_of(path).read_text())["value"])


def row(prediction, spec, image):
    return {"value": float(prediction), "verdict": "=bright" if prediction > 0.3 else "-dark"}


def compare(predictions, references, spec):
    exams = {}
    for path in sorted(references.glob("*.nii.gz")):
        exams.setdefault(path.name.partition("_")[0], []).append(path)

    def pair(name, paths):
        def scores():
            target = np.float32(np.mean([read_image([path]).voxels.mean() for path in paths]))
            return score(read_prediction(predictions / f"{name}.json", spec), target, spec, None)

        return Comparison(name, name, scores)

    return tuple(pair(name, paths) for name, paths in exams.items())


def score(prediction, target, spec, image):
    return {"exam.accuracy": -abs(float(prediction) - float(target))}


def summarise(records, rng):
    """The headline, the root of the mean square, can be said of all exams only."""
    accuracy = [record.scores["exam.accuracy"] for record in records]
    value = -float(np.sqrt(np.mean(np.square(accuracy))))
    return {"exam.accuracy": bootstrap_mean(accuracy, rng), "exam.rms": Estimate(value, value, np.nan, np.nan, len(records))}


def apply_baseline(arrays, inputs, spec):
    return np.float32(arrays["mean"][0])


def average(prediction, spec, given):
    return (prediction + given.baseline) / 2


def refinements(spec):
    return (Refinement("shift", shift, "networks are biased", "", fit_shift),
            Refinement("average", average, "two models err in other places", "exam.accuracy", uses_baseline=True))


def figures(prediction, target, image, spec):
    plane = image.voxels[0, image.voxels.shape[1] // 2]
    grey = np.clip(plane * 20, 0, 255).astype(np.uint8)
    return (Picture(np.repeat(grey[:, :, None], 3, axis=2), f"read as {prediction:.2f}"),)


def charts(records, baseline, spec):
    return ()


TASK = Task("toy_tasks.exams", "exam.rms", "exam.accuracy", Options, index, examine, facts, read_target, describe, make_plan,
            prepare_target, draw_batch, blank_batch, build_network, phases, infer, restore, as_predicted, write,
            read_prediction, row, compare, score, summarise, fit_baseline, apply_baseline, refinements, figures, charts, notes,
            ())
