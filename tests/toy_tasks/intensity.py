"""A task outside the package: predict an intensity for every voxel. Another target, loss and score than segmentation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import nn

from autoseg.core.budget import StepTime
from autoseg.core.case import Unit
from autoseg.core.plan import Augmentation, Configuration, Inference, Loss, Network, Optimization, Plan, Reason, Resampling
from autoseg.core.report import Estimate, Failure
from autoseg.core.task import Comparison, Description, Phase, Picture, Refinement, Task, as_predicted
from autoseg.core.verb import Verb
from autoseg.inference.averaging import averaged
from autoseg.inference.sliding_window import predict_logits
from autoseg.io.images import read_image, write_volume
from autoseg.metrics.bootstrap import bootstrap_mean
from autoseg.nn.build import build_network as build
from autoseg.ops.crop import crop, paste
from autoseg.ops.patches import random_box, read_padded
from autoseg.ops.resample import resample
from autoseg.planning.normalization import plan_inputs


@dataclass(frozen=True)
class Options:
    """This task has no options."""


def index(spec, cases):
    return tuple(Unit(case.id, (case,), case.group) for case in cases)


def read_target(unit, spec):
    path = unit.cases[0].targets.get("intensity")
    return None if path is None else read_image([path]).voxels[0]


def describe(unit, inputs, target):
    return Description(np.ones(target.shape, bool), {"voxels": target.size})


def make_plan(spec, fingerprint, budget, request, probe):
    inputs, reasons = plan_inputs(spec.inputs, fingerprint)
    shape = tuple(np.median(fingerprint.shapes_after_crop, axis=0))
    patch = tuple(int(size) // 4 * 4 for size in shape)
    network = Network("plain_unet", 3, 1, 1, (4, 8), ((1, 1, 1), (2, 2, 2)), ((3, 3, 3),) * 2, (1, 1), (1,), False)
    configuration = Configuration(
        "whole", (1.0, 1.0, 1.0), shape, patch, 2, Resampling(), network, Loss({"mse": 1.0}), Augmentation(),
        Optimization("adamw", 1e-2, 0.0, iterations=20, iterations_per_epoch=10, schedule_steps_per_epoch=False),
        Inference(0.5, 0.125, 1, (), False))
    draft = Plan(request.name, spec.name, spec.task, (0, 1, 2), inputs, {}, budget, {}, request.seed)
    if budget.seconds_per_step("whole") is None:
        budget = replace(budget, measured=(StepTime("whole", probe.seconds(draft, configuration)),))
    toy = Reason("nothing", "small enough for a test", "this file")
    why = {"transpose": toy, "seed": toy, "configurations.whole": toy}
    return replace(draft, configurations={"whole": configuration}, budget=budget, reasons=reasons | why)


def prepare_target(target, record, configuration):
    turned = crop(target, record.crop_box).transpose(record.transpose)
    return {"intensity": resample(turned[None], record.model_shape, order=1)}


def draw_batch(units, store, configuration, rng):
    batch = {"image": [], "intensity": []}
    for _ in range(configuration.batch_size):
        case_id = units[rng.integers(len(units))].cases[0].id
        shape = store.shape(case_id, "image")[1:]
        box = random_box(shape, configuration.patch_size, rng)
        for name, patches in batch.items():
            patches.append(read_padded(partial(store.array, case_id, name), box, shape))
    return {name: torch.from_numpy(np.stack(patches)) for name, patches in batch.items()}


def blank_batch(configuration):
    shape = (configuration.batch_size, 1, *configuration.patch_size)
    return {"image": torch.zeros(shape), "intensity": torch.zeros(shape)}


def mse_step(network, batch):
    return {"total": nn.functional.mse_loss(network(batch["image"]), batch["intensity"])}


def build_network(configuration):
    return build(configuration.network)


def phases(configuration):
    return (Phase("regression", lambda network: network.parameters(), mse_step),)


def infer(networks, inputs, configuration, context):
    rules = configuration.inference
    return predict_logits(averaged(networks), torch.from_numpy(inputs["image"]), patch_size=configuration.patch_size,
                          tile_step=rules.tile_step, gaussian_sigma=rules.gaussian_sigma, tiles_per_batch=1,
                          out_channels=1, dims=3).numpy()


def restore(raw, record, configuration, context):
    values = resample(raw, record.turned_shape, order=1)[0].transpose(np.argsort(record.transpose))
    return paste(values, record.crop_box, record.canonical.shape, 0.0)


def write(prediction, spec, image, path):
    write_volume(path, prediction[None].astype(np.float32), image)
    return (path,)


def read_prediction(path, spec):
    return read_image([path]).voxels[0]


def score(prediction, target, spec, image):
    return {"voxels.accuracy": -float(np.abs(prediction - target).mean())}


def summarise(records, rng):
    """The headline, how the worst case does, can be said of all cases only."""
    accuracy = [record.scores["voxels.accuracy"] for record in records]
    worst = Estimate(min(accuracy), min(accuracy), np.nan, np.nan, len(records))
    return {"voxels.accuracy": bootstrap_mean(accuracy, rng), "voxels.worst": worst}


def fit_baseline(samples, spec, rng):
    return {"mean": np.array([np.mean([target.mean() for _, _, target in samples])])}


def apply_baseline(arrays, inputs, spec):
    return np.full(inputs["image"].geometry.shape, arrays["mean"][0], np.float32)


def clip_at_zero(prediction, spec, given):
    return np.maximum(prediction, 0)


def shift(prediction, spec, given):
    return prediction + np.float32(given.fitted["shift"])


def fit_shift(pairs, spec):
    return {"shift": float(np.mean([(target - prediction).mean() for prediction, target in pairs]))}


def average(prediction, spec, given):
    return (prediction + given.baseline) / 2


def refinements(spec):
    return (Refinement("not_negative", clip_at_zero, "intensities are not negative", "voxels.accuracy"),
            Refinement("shift", shift, "networks are biased", "voxels.accuracy", fit_shift),
            Refinement("average", average, "two models err in other places", "voxels.accuracy", uses_baseline=True))


def examine(units, spec):
    return () if len(units) > 1 else (Failure("1 case", "E_TOY", "one case is too few"),)


def facts(spec, units):
    return {"toys": str(len(units))}


def row(prediction, spec, image):
    return {"mean": float(prediction.mean()), "verdict": "=bright" if prediction.mean() > 0.3 else "dark"}


def compare(predictions, references, spec):
    def pair(path):
        def scores():
            target = read_image([path]).voxels[0]
            return score(read_prediction(predictions / path.name, spec), target, spec, None)

        return Comparison(path.name.removesuffix(".nii.gz"), "", scores)

    return tuple(pair(path) for path in sorted(references.glob("*.nii.gz")))


def charts(records, baseline, spec):
    return (f"<svg role='img' aria-label='{len(records)} beside {len(baseline)}'></svg>",)


def notes(spec):
    return ("Accuracies are negative errors.",)


def figures(prediction, target, image, spec):
    grey = np.clip(prediction[len(prediction) // 2] * 255, 0, 255).astype(np.uint8)
    return (Picture(np.repeat(grey[:, :, None], 3, axis=2), "middle slice"),)


def halve(value: float, times: int = 1) -> str:
    """An extra command."""
    return f"half of it is {value / 2**times}"


TASK = Task("toy_tasks.intensity", "voxels.worst", "voxels.accuracy", Options, index, examine, facts, read_target, describe,
            make_plan, prepare_target, draw_batch, blank_batch, build_network, phases, infer, restore, as_predicted, write,
            read_prediction, row, compare, score, summarise, fit_baseline, apply_baseline, refinements, figures, charts, notes,
            (Verb("halve", "Halve a number.", halve),))
