"""Registration without learning on real pairs: overlap, landmarks, folding, seconds; what a network has to beat.

    python -m benchmarks.classical_registration --data FOLDER --set hippocampus --pairs 40 --methods centred affine demons bspline

`--data` is the folder of the set: Hippocampus and FetalBrainSB in nnU-Net v2 raw layout (the latter with `landmarks/`), or the
OASIS-TRT slices with `images/` and `labels/`. Every pair and method is in `<work>/classical_registration.json` once it is
measured and is not repeated unless what it is made with changed. Pairs are the same whatever is measured with them:
`pairs_of`.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.core.image import Image
from autoseg.inference.classical import (
    AffineMethod,
    BSplineMethod,
    DemonsMethod,
    register_affine,
    register_bspline,
    register_demons,
)
from autoseg.io.atomic import hash_values, sha256_file
from autoseg.io.images import read_image, read_label_map
from autoseg.io.landmarks import paired, read_landmarks
from autoseg.metrics.deformation import folded_share, log_jacobian_deviation, target_registration_errors_mm
from autoseg.metrics.overlap import dice
from autoseg.metrics.surface import hausdorff_mm, surface_distances
from autoseg.ops.displacement import affine_displacement, jacobian_determinant, warp_labels
from benchmarks.ledger import REPOSITORY, Ledger, markdown
from benchmarks.measure import begin, describe_machine

METHODS = ("centred", "affine", "demons", "bspline")
COLUMNS = {"dice": 4, "hd95_mm": 2, "tre_mm": 2, "folded_percent": 4, "sd_log_jacobian": 3, "seconds": 2}


@dataclass(frozen=True)
class Recipe:
    """The methods on one set: the affine one was compared on eight Hippocampus pairs of other cases, the rest are guesses."""

    affine: AffineMethod
    demons: DemonsMethod
    bspline: BSplineMethod


SMALL = Recipe(AffineMethod("moments", "correlation", 100, (4, 2), (2.0, 1.0), 32, 1.0),
               DemonsMethod("diffeomorphic", (60,), (1,), 1.5, 0.0, False),
               BSplineMethod("correlation", 6, 20, (1,), (0.0,), 32, 1.0))
RECIPES = {
    "hippocampus": SMALL,
    # Volumes of 4 million voxels that lie together in the world: fewer of them for the metric, and coarse steps first.
    "fetal": Recipe(replace(SMALL.affine, start="positions", sampled_share=0.2),
                    replace(SMALL.demons, iterations=(60, 40, 20), shrink_factors=(4, 2, 1)),
                    replace(SMALL.bspline, mesh_size=8, shrink_factors=(4,), smoothing_voxels=(2.0,), sampled_share=0.5)),
    "oasis": Recipe(replace(SMALL.affine, start="positions"),
                    replace(SMALL.demons, iterations=(60, 40, 20), shrink_factors=(4, 2, 1)),
                    replace(SMALL.bspline, mesh_size=12, shrink_factors=(2,), smoothing_voxels=(1.0,))),
}


@dataclass(frozen=True)
class Scan:
    """One image, its label map (Z, Y, X) and, where there is one, its file of landmarks."""

    image: Image
    labels: NDArray
    landmarks: Path | None


def main() -> None:
    begin()
    options = parse_options()
    ledger = Ledger(options.work / "classical_registration.json")
    pairs = pairs_of(options.set, options.data)[:options.pairs]
    machine = describe_machine()
    for pair in [] if options.table else pairs:
        measure_pair(pair, options, ledger)
    print(", ".join(f"{name} {value}" for name, value in machine.items()))
    print(render(pairs, options, ledger))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the set")
    parser.add_argument("--set", choices=tuple(RECIPES), default="hippocampus")
    parser.add_argument("--pairs", type=int, default=40, help="that many of the set's pairs, from the first on")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=["centred", "affine", "demons"],
                        help="B-spline takes longest")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "benchmarks/.work", help="folder for results")
    parser.add_argument("--table", action="store_true", help="show what is there, run nothing")
    options = parser.parse_args()
    options.work, options.data = options.work.resolve(), options.data.resolve()
    return options


def pairs_of(name: str, data: Path) -> list[tuple[str, str]]:
    """Pairs (fixed, moving) of a set, always the same.

    Hippocampus: the validation cases of fold 0 in an order drawn with seed 0, each with the next one. FetalBrainSB: weeks two
    apart, the earlier one fixed. OASIS: all slices as Hippocampus.
    """
    if name == "fetal":
        names = [path.name.removesuffix(".nii.gz") for path in (data / "labelsTr").glob("fetalSB_GA*.nii.gz")]
        weeks = {int(name.removeprefix("fetalSB_GA").split("_")[0]): name for name in names}
        return [(weeks[week], weeks[week + 2]) for week in sorted(weeks) if week + 2 in weeks]
    if name == "oasis":
        return in_a_ring([path.name.removesuffix(".nii.gz") for path in (data / "labels").glob("*.nii.gz")])
    from autoseg.io.dataset import scan
    from autoseg.io.specs import load_spec
    from autoseg.planning.splits import make_folds
    from autoseg.tasks import load_task

    spec = load_spec("Hippocampus")
    units = load_task(spec.task).index(spec, scan(spec, data).cases)
    return in_a_ring(make_folds(units)[0].validation)


def in_a_ring(names: Sequence[str], seed: int = 0) -> list[tuple[str, str]]:
    """Each name with the next one in an order drawn at random: every case is fixed once and moving once."""
    order = np.random.default_rng(seed).permutation(sorted(names)).tolist()
    return list(zip(order, [*order[1:], order[0]], strict=True))


def measure_pair(pair: tuple[str, str], options: argparse.Namespace, ledger: Ledger) -> None:
    """Registers a pair by the methods that were asked for and not yet measured."""
    inputs = {method: hash_values(made_with(), asdict(RECIPES[options.set])) for method in options.methods}
    if all(ledger.has(key_of(options.set, method, pair), inputs[method]) for method in options.methods):
        return
    fixed, moving = (read_scan(options.set, options.data, name) for name in pair)
    for method, (displacement, seconds) in registered(fixed.image, moving.image, RECIPES[options.set], options.methods):
        result = {**scores(fixed, moving, displacement), "seconds": seconds}
        ledger.add(key_of(options.set, method, pair), inputs[method], result)
        print(f"{pair[0]} {pair[1]} {method}: Dice {result['dice']:.4f}, {seconds:.1f} s", file=sys.stderr, flush=True)


def key_of(name: str, method: str, pair: tuple[str, str]) -> str:
    return f"{name}/{method}/{pair[0]}/{pair[1]}"


def made_with() -> str:
    """Digest of the source files that a displacement depends on: what was measured with others is measured again."""
    names = ("inference/classical.py", "io/itk.py", "ops/displacement.py", "ops/sampling.py", "metrics/overlap.py",
             "metrics/surface.py", "metrics/deformation.py")
    return hash_values([sha256_file(REPOSITORY / "autoseg" / name) for name in names])[:16]


def read_scan(name: str, data: Path, case: str) -> Scan:
    images, labels, ending = ("images", "labels", "") if name == "oasis" else ("imagesTr", "labelsTr", "_0000")
    image = read_image([data / images / f"{case}{ending}.nii.gz"])
    landmarks = data / "landmarks" / f"{case}.nii.gz"
    return Scan(image, read_label_map(data / labels / f"{case}.nii.gz", reference=image.geometry).voxels[0],
                landmarks if landmarks.exists() else None)


def registered(fixed: Image, moving: Image, recipe: Recipe, methods: Sequence[str]):
    """Method, displacement and seconds of each method, one after the other; what refines an affine map counts its seconds too."""
    still = replace(recipe.affine, start="centres" if recipe.affine.start == "moments" else recipe.affine.start, iterations=0)
    if "centred" in methods:
        matrix, seconds = timed(lambda: register_affine(fixed, moving, still))
        yield "centred", (affine_displacement(matrix, fixed.geometry), seconds)
    if set(methods) <= {"centred"}:
        return
    affine, before = timed(lambda: register_affine(fixed, moving, recipe.affine))
    if "affine" in methods:
        yield "affine", (affine_displacement(affine, fixed.geometry), before)
    if "demons" in methods:
        displacement, seconds = timed(lambda: register_demons(fixed, moving, affine, recipe.demons))
        yield "demons", (displacement, before + seconds)
    if "bspline" in methods:
        displacement, seconds = timed(lambda: register_bspline(fixed, moving, affine, recipe.bspline))
        yield "bspline", (displacement, before + seconds)


def timed(call: Callable[[], NDArray]) -> tuple[NDArray, float]:
    started = time.perf_counter()
    result = call()
    return result, round(time.perf_counter() - started, 3)


def scores(fixed: Scan, moving: Scan, displacement: NDArray) -> dict[str, Any]:
    """Means over the labels that both scans have, the landmarks, and what the Jacobian says."""
    warped = warp_labels(moving.labels, moving.image.geometry, displacement, fixed.image.geometry, interpolation="linear")
    values = sorted(set(np.unique(fixed.labels).tolist()) & set(np.unique(moving.labels).tolist()) - {0})
    masks = [(warped == value, fixed.labels == value) for value in values]
    distances = [hausdorff_mm(surface_distances(*both, fixed.image.geometry.spacing_mm)) for both in masks if both[0].any()]
    determinants = jacobian_determinant(displacement, fixed.image.geometry)
    found = {"dice": statistics.fmean(dice(*both) for both in masks),
             "hd95_mm": statistics.fmean(distances) if distances else math.nan,
             "folded_percent": 100 * folded_share(determinants), "sd_log_jacobian": log_jacobian_deviation(determinants)}
    if fixed.landmarks and moving.landmarks:
        points = paired(read_landmarks(fixed.landmarks, fixed.image), read_landmarks(moving.landmarks, moving.image),
                        "the pair")[1:]
        found["tre_mm"] = float(target_registration_errors_mm(*points, displacement, fixed.image.geometry).mean())
    return found


def render(pairs: Sequence[tuple[str, str]], options: argparse.Namespace, ledger: Ledger) -> str:
    """A table with a line per method: mean over pairs, for Dice with its standard error, of seconds the median."""
    rows = []
    for method in METHODS:
        found = [result for pair in pairs if (result := ledger.result(key_of(options.set, method, pair))) is not None]
        if found:
            rows.append([method, str(len(found)), *(cell(found, column) for column in COLUMNS)])
    return markdown([options.set, "pairs", *COLUMNS], rows) if rows else "nothing is measured yet"


def cell(found: Sequence[dict[str, Any]], column: str) -> str:
    values = [result[column] for result in found if result.get(column) is not None]
    if not values:
        return ""
    if column == "seconds":
        return f"{statistics.median(values):.{COLUMNS[column]}f}"
    mean = f"{statistics.fmean(values):.{COLUMNS[column]}f}"
    return f"{mean} ± {statistics.stdev(values) / math.sqrt(len(values)):.4f}" if column == "dice" and len(values) > 1 else mean


if __name__ == "__main__":
    main()
