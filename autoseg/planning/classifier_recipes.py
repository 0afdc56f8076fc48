"""Sizes, optimisers and lengths of networks that see whole images, in one place."""

from __future__ import annotations

from dataclasses import dataclass

from autoseg.core.budget import Target
from autoseg.core.plan import Optimization, Reason
from autoseg.planning.recipes import SHORT_RUN_ADAMW, SHORT_RUN_MUON


@dataclass(frozen=True)
class ImageRung:
    """One size of a network: pixels of a picture, voxels of a volume, features of the first stage, blocks per stage."""

    pixels: int
    voxels: int
    base_features: int
    blocks: int


# From cheap to dear; the climb over minutes begins at `START`. 64^3 voxels are AdrenalMNIST3D's, 224^2 pixels CheXNet's.
LADDER = (ImageRung(64**2, 2**14, 8, 1), ImageRung(96**2, 2**15, 16, 1), ImageRung(128**2, 2**16, 16, 2),
          ImageRung(128**2, 2**17, 32, 2), ImageRung(192**2, 2**18, 32, 2), ImageRung(224**2, 2**18, 64, 2))
START = 2
# On a GPU: CheXNet's pictures (Rajpurkar et al. 2017), volumes of 128^3.
CUDA_RUNG = ImageRung(224**2, 2**21, 64, 2)
WIDTHS = (8, 16, 32, 64)

# Images of a step by dimensions: a step on a CPU costs as much per image whatever their number, and steps count; MedMNIST's
# recipe has 128 on a GPU (Yang et al. 2023), CheXNet 16.
BATCH: dict[Target, dict[str, int]] = {"cpu": {"small": 32, "picture": 16, "volume": 8},
                                       "cuda": {"small": 128, "picture": 32, "volume": 8}}
SMALLEST_BATCH = 2
# No batch holds more than this share of the units, so that batches differ.
LARGEST_SHARE = 0.25

# Up to a factor of two every old voxel lies between two neighbouring new ones and has weight in one; beyond it, voxels are
# skipped and fine patterns come back as coarse ones.
LOW_PASS_FROM = 2.0

# Every unit is seen at least so often; without a time budget as often as in MedMNIST's recipe (100 epochs).
PASSES = 100
FEWEST_ITERATIONS: dict[Target, int] = {"cpu": 500, "cuda": 2_000}
MOST_ITERATIONS: dict[Target, int] = {"cpu": 10_000, "cuda": 100_000}
WARMUP_SHARE = 0.05
EMA_SHARE = 0.02

OPTIMIZERS: dict[Target, Optimization] = {"cpu": SHORT_RUN_MUON, "cuda": SHORT_RUN_ADAMW}
OPTIMIZER_REASON = Reason("short runs", "Muon for convolutions and AdamW for the rest on a CPU, AdamW on a GPU, warmed up over "
                          "5 % of the run, decayed to zero, weights averaged over 2 % of it",
                          "planning/recipes.py; on AdrenalMNIST3D at 32^3, one minute of a core, a split inside the training "
                          "part "
                          "and one seed, Muon reached an AUC of 0.81 and AdamW 0.73")
# Howard and Ruder 2018 (arXiv 1801.06146), section 3.2: rates of earlier layers fall by 2.6 a layer; a stage holds several
# layers, and 0.75 a stage is inside the range of 0.65 to 0.9 that later work takes.
RATE_DECAY = 0.75
