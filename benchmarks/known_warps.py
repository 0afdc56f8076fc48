"""Errors of displacements under warps that are known: by similarity between two contrasts, and of the implicit representation.

    python -m benchmarks.known_warps --data FOLDER --part contrast
    python -m benchmarks.known_warps --data FOLDER --part implicit

One of two images that lie on each other is moved by a smooth random displacement, so that the right answer is known everywhere.
`--data` holds the folders `Dataset105_FetalBrainSB`, `Dataset106_BraTS15Sub` and `dicom`. The learned similarity of `contrast` is
planned and trained for `--minutes` by `autoseg plan_and_preprocess` and `autoseg train -f 0`. Every warp is a row of the ledger
`<work>/known_warps.json`: a run that was stopped measures only what is missing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from autoseg.core.budget import Budget
from autoseg.core.case import Unit
from autoseg.core.fingerprint import sum_fingerprints
from autoseg.core.image import Image
from autoseg.core.plan import Plan
from autoseg.core.spec import DatasetSpec
from autoseg.core.task import Inputs, PlanRequest
from autoseg.io.atomic import hash_values
from autoseg.io.dataset import scan
from autoseg.io.images import read_image
from autoseg.io.specs import load_spec
from autoseg.stages.prepare import prepare_inputs, read_inputs
from autoseg.tasks.registration import TASK, recipes
from autoseg.tasks.registration.output import Registration
from autoseg.tasks.registration.spec import SimilarityName
from benchmarks.ledger import Ledger, source_digest
from benchmarks.registration import Solve, parser_of_parts, run_part, solver, timed, trained

FORMULAS: tuple[SimilarityName, ...] = ("lncc", "mind", "mutual_information")
# FLAIR (0000) and T1 with contrast agent (0001) as images of their own.
CONTRASTS = """\
format: 1
name: Contrasts
task: registration
inputs:
  image:
    channels: [MRI]
layouts:
  nnunet:
    inputs: {image: "imagesTr/{group:brats_*}_{contrast:000?}.nii.gz"}
    case_id: "{group}_{contrast}"
    leave_out:
      "labelsTr/*": label maps, which nothing learns from here
options:
  pairs: within_patient
  fixed: "_0001$"
  similarity: patches
"""


def main() -> None:
    parser = parser_of_parts(__doc__, PARTS)
    parser.add_argument("--warps", type=int, default=3, help="displacements of each pair, drawn with the seeds from 0 on")
    run_part(parser.parse_args(), PARTS, "known_warps.json")


def implicit(options: argparse.Namespace, ledger: Ledger) -> None:
    """One fetal brain to itself under a known warp, by a network of coordinates and by optimisation."""
    spec = load_spec("FetalBrainPairs")
    case = scan(spec, options.data / "Dataset105_FetalBrainSB").cases[0]
    image = next(iter(read_inputs(Unit(case.id, (case,), case.group), spec).values()))
    ways = [by_formula(method, "lncc") for method in ("pair", "implicit")]
    known_warps(ledger, "known warp of a fetal brain", image, image, ways, options.warps)


def contrast(options: argparse.Namespace, ledger: Ledger) -> None:
    """Two contrasts of one patient under a known warp, by similarity.

    The learned one knows FLAIR and T1 with contrast agent, so it takes part in a pair of these only, of a patient whom it has
    not seen.
    """
    folder = options.data / "dicom" / "mr_brain_PGBM-003"
    t1, t2 = (read_series(folder / name, options.work / f"{name}.nii.gz") for name in ("T1pre_reg", "T2_reg"))
    ways = [by_formula("pair", similarity) for similarity in FORMULAS]
    known_warps(ledger, "T2 to T1 under a known warp", t1, t2, ways, options.warps)
    spec = options.work / "Contrasts.yaml"
    spec.parent.mkdir(parents=True, exist_ok=True)
    spec.write_text(CONTRASTS)
    workspace, plan, predictor = trained(spec, options.data / "Dataset106_BraTS15Sub", options.work, options.minutes)
    post, flair = read_inputs(workspace.units_by_id[workspace.folds()[0].validation[0]], workspace.spec).values()
    known_warps(ledger, "FLAIR to T1 with contrast agent under a known warp", post, flair, in_one_frame(plan, predictor),
               options.warps)


def read_series(folder: Path, copy: Path) -> Image:
    """A DICOM series by SimpleITK, through a NIfTI file that is kept."""
    import SimpleITK as sitk

    if not copy.exists():
        copy.parent.mkdir(parents=True, exist_ok=True)
        files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
        sitk.WriteImage(sitk.Cast(sitk.ReadImage(files), sitk.sitkFloat32), str(copy))
    return read_image([copy])


PARTS = {"contrast": contrast, "implicit": implicit}


@dataclass(frozen=True)
class Way:
    """A way to register two images.

    Attributes:
        digest: of what it was made from.
        prepare: images -> what registers them.
    """

    name: str
    digest: str
    prepare: Callable[[Inputs], Solve]


def _stay(images: Inputs) -> Registration:
    return Registration(np.zeros((3, *images["image"].geometry.shape), np.float32))


UNREGISTERED = Way("not registered", "zero", lambda inputs: _stay)


def by_formula(method: str, similarity: str) -> Way:
    spec = replace(load_spec("FetalBrainPairs"), labels=(),
                   options={"method": method, "similarity": similarity, "pairs": "table"})

    def prepare(inputs: Inputs) -> Solve:
        plan = plan_of_images(spec, inputs)
        return solver(plan, plan.configurations["pairs"], [])

    return Way(f"{method}, {similarity}", hash_values(spec), prepare)


def in_one_frame(plan: Plan, predictor: Any) -> list[Way]:
    """What a bundle has learned of likeness, and the formulas with their own smoothness, all in the frame of its plan."""
    known = predictor.configuration

    def way(similarity: SimilarityName) -> Way:
        loss = replace(known.loss, terms={"similarity": 1.0, "smoothness": recipes.SMOOTHNESS[similarity]})
        one = replace(known, task_values=known.task_values | {"similarity": similarity}, loss=loss)
        return Way(f"pair, {similarity}", hash_values(one, predictor.bundle.digest),
                   lambda _: solver(plan, one, predictor._networks))

    return [way(similarity) for similarity in (*FORMULAS, "patches")]


def known_warps(ledger: Ledger, name: str, fixed: Image, other: Image, ways: Sequence[Way], count: int) -> None:
    """The second image, moved by known smooth displacements, to the first: mean distance of what is found from each, in mm.

    Everywhere, and within what is brighter than the mean, as air says nothing about how it moved. Without registration, too.
    """
    unlabelled = replace(load_spec("FetalBrainPairs"), labels=())
    inside = fixed.voxels[0] > fixed.voxels[0].mean()
    for seed in range(count):
        truth, moved = warped(fixed, other, seed)
        inputs = {"image": fixed, "image@1": moved}
        for way in (UNREGISTERED, *ways):
            key, digest = f"{name}, {way.name}: warp {seed}", hash_values(source_digest(), way.digest)
            if ledger.has(key, digest):
                continue
            found, seconds = timed(way.prepare(inputs), inputs)
            errors = np.linalg.norm(found.displacement - truth.displacement, axis=0)
            ledger.add(key, digest, {"scores": {**TASK.score(found, truth, unlabelled, fixed), **seconds,
                                                "inside.end_point_error_mm": float(errors[inside].mean())}})
            print(key, file=sys.stderr, flush=True)


def warped(fixed: Image, other: Image, seed: int) -> tuple[Registration, Image]:
    """A displacement that is known, and the other image on the fixed one's grid, moved so that it is the answer."""
    import torch

    from autoseg.augment.deformations import DeformationRules, draw_velocity, integration_steps
    from autoseg.nn.warp import exponential
    from autoseg.ops.displacement import from_voxels, warp

    velocity = draw_velocity(fixed.geometry.shape, fixed.geometry.spacing_mm, DeformationRules((3.0, 3.0), (15.0, 30.0)),
                             np.random.default_rng(seed))
    steps = integration_steps(velocity)
    there, back = (exponential(torch.from_numpy(sign * velocity)[None], steps)[0].numpy() for sign in (1, -1))
    on_grid = warp(other.voxels, other.geometry, None, fixed.geometry, interpolation="linear", outside=None)
    moved = warp(on_grid, fixed.geometry, from_voxels(back, fixed.geometry), fixed.geometry, interpolation="linear", outside=None)
    return Registration(from_voxels(there, fixed.geometry)), replace(fixed, voxels=moved)


def plan_of_images(spec: DatasetSpec, inputs: Inputs) -> Plan:
    """The plan of one pair in memory."""
    from autoseg.core.fingerprint import CaseFingerprint, measure_channel
    from autoseg.core.modality import intensity_kind
    from autoseg.core.task import Probe

    cases = []
    for image in inputs.values():
        moments, histogram = measure_channel(image.voxels[0].ravel())
        cases.append(CaseFingerprint(image.geometry.shape, image.geometry.spacing_mm, 1.0, (moments,), (histogram,), {},
                                     (intensity_kind(image.voxels[0]),)))

    def refuse(*asked: object) -> Any:
        raise AssertionError("a plan that trains nothing measures no step")

    probe = Probe(refuse, refuse, refuse, lambda plan, configuration: [prepare_inputs(inputs, plan, configuration)])
    return TASK.make_plan(spec, sum_fingerprints(cases, 1), Budget("cpu", 8 * 10**9), PlanRequest("benchmark"), probe)


if __name__ == "__main__":
    main()
