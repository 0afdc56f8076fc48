"""Peak memory of predicting one case, as `autoseg predict` does it: a process of its own for each configuration and engine.

Used by `benchmarks.memory`. What counts is the growth of resident memory from before the bundle is loaded to the end.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from autoseg.core.budget import Budget
from autoseg.core.bundle import Bundle, Decisions, Member
from autoseg.core.case import Case, Unit
from autoseg.core.fingerprint import sum_fingerprints
from autoseg.core.geometry import Geometry, Shape
from autoseg.core.image import Image
from autoseg.core.plan import Configuration, InputPlan, Normalization, Plan
from autoseg.core.progress import silent
from autoseg.core.spec import ChannelSpec, DatasetSpec, InputSpec, LabelSpec, LayoutSpec
from autoseg.core.task import Context, Engine
from autoseg.io.images import write_label_map
from autoseg.tasks import load_task
from benchmarks.resident import peak_bytes, reset_peak, resident_bytes

ENGINES: tuple[Engine, ...] = ("torch", "openvino")
WEIGHTS = "weights.safetensors"
LARGEST_INTENSITY = 4000


def measure_apart(module: str, arguments: list[str], configuration: Configuration, shape: Shape, what: str) -> int:
    """Bytes that a new process, `python -m module --folder FOLDER arguments`, measured by `measure`.

    Args:
        shape: of the case, on the model grid, z y x; an image of 16-bit integers, one file per channel.
    """
    with TemporaryDirectory() as temporary:
        write_files(Path(temporary), configuration, shape)
        done = subprocess.run([sys.executable, "-m", module, "--folder", temporary, *arguments], capture_output=True,
                              text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{what} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def write_files(folder: Path, configuration: Configuration, shape: Shape) -> None:
    """Weights and a case of noise for `measure`."""
    from autoseg.nn.weights import save_weights

    save_weights(folder / WEIGHTS, load_task("segmentation").build_network(configuration))
    like = Image.canonical(np.zeros((1, *shape), np.float32), Geometry(shape, (1.0, 1.0, 1.0)))
    for channel in range(configuration.network.in_channels):
        noise = np.random.default_rng(channel).integers(1, LARGEST_INTENSITY, shape, dtype=np.int16)
        write_label_map(folder / f"case_{channel:04d}.nii.gz", noise, like)


def measure(configuration: Configuration, folder: Path, engine: Engine, threads: int) -> int:
    """Growth of this process' memory while it loads the network and predicts the case in `folder`, in bytes."""
    from autoseg.training.device import prepare_allocator

    prepare_allocator()  # as the command line does, before torch takes memory
    import torch

    import autoseg.stages.predict  # noqa: F401  imported before memory is looked at

    torch.set_num_threads(threads)
    before = resident_bytes()
    reset_peak()
    predict_case(configuration, folder, engine)
    return peak_bytes() - before


def predict_case(configuration: Configuration, folder: Path, engine: Engine) -> None:
    """Predicts the case that `write_files` wrote, as the command line does; the label map is in `out`, below `folder`."""
    from autoseg.stages.predict import Predictor, run_predict

    bundle = bundle_of(replace(configuration, inference=replace(configuration.inference, tile_step=1.0)))
    predictor = Predictor.load(folder, bundle, load_task("segmentation"), Context("cpu", engine=engine))
    case = Case("case", "case", {"image": tuple(sorted(folder.glob("case_*.nii.gz")))})
    manifest = run_predict(predictor, [Unit(case.id, (case,), case.group)], folder / "out", refused=(), progress=silent)
    if manifest.failures:
        raise SystemExit(manifest.failures[0].message)


def bundle_of(configuration: Configuration) -> Bundle:
    """A bundle of one network, as it lies in memory."""
    network = configuration.network
    channels = tuple(ChannelSpec(f"MRI{number}") for number in range(network.in_channels))
    labels = tuple(LabelSpec(f"label{number}", number) for number in range(1, network.out_channels))
    spec = DatasetSpec("Trial", "segmentation", (LayoutSpec("trial", {"image": ("{case}.nii.gz",)}),),
                       (InputSpec("image", "image", channels),), labels)
    named = replace(configuration, task_values={"label_count": len(labels)})
    plan = Plan("trial", spec.name, spec.task, (0, 1, 2), (InputPlan("image", (Normalization("zscore"),) * len(channels)),),
                {named.name: named}, Budget("cpu", 1), {})
    return Bundle(spec, plan, (Member(named.name, "0", WEIGHTS, ""),), Decisions(), sum_fingerprints([], len(channels)), "")
