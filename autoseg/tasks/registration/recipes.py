"""Numbers of registration plans that follow from no dataset, in one place, each with its source."""

from __future__ import annotations

from dataclasses import dataclass

from autoseg.core.budget import Target
from autoseg.core.plan import Augmentation, Inference, MemoryFormat, Optimization
from autoseg.tasks.registration.spec import PairSource, SimilarityName

VOXELMORPH = "VoxelMorph 0.3.4 (Balakrishnan et al. 2019; Dalca et al. 2019)"
CONVEXADAM = "ConvexAdam 0.2.0 (Siebert et al. 2021)"
IDIR = "IDIR (Wolterink et al. 2022)"
SIMONOVSKY, DEEPSIM = "Simonovsky et al. 2016 (arXiv 1609.05396)", "DeepSim (Czolbe et al. 2021, arXiv 2011.05735)"


@dataclass(frozen=True)
class Rung:
    """One size of a network: voxels of its frame, and features of every stage."""

    voxels: int
    features: int


# From cheap to dear; VoxelMorph has 16 and 32 features on 2**22.8 voxels. The climb over minutes begins at `START`. There is no
# stage at full resolution, as the velocity has half of it: at 48 x 56 x 40 voxels it would take a third of a step (0.36 s with
# it, 0.24 s without; one core, EPYC, torch 2.13). Narrower networks save less, as likeness and warping do not depend on them.
LADDER = (Rung(2**14, 16), Rung(2**15, 16), *(Rung(2**power, 32) for power in range(16, 24)))
START = 3
# Features of the affine encoder, each of stride 2, as far as the frame can be halved.
AFFINE_FEATURES = (8, 16, 32, 32)
SMALLEST_EDGE = 4
# Passes of a network over each pair. On 16 pairs of Hippocampus's training cases (128 to train on, one seed, smoothness 0.25,
# 2026-11-22) 1,000 steps gave Dice 0.695 with one (0.19 s a step of one core), 0.727 with two (0.36 s), and 700 steps 0.709 with
# three (0.53 s). Without the gradient through what was warped before, three gave 0.713 after 1,000 steps (0.25 s). Twice the
# features below the finest stage had a lower loss in training (0.373 against 0.383) and no more Dice (0.724); batches of two
# pairs and half of the finest features gave 0.718 after 800 steps (0.43 s).
NETWORK_PASSES = 2
# When it answers and no labels were trained on, it looks once more, and both ways: on 16 pairs of Hippocampus's training cases
# a network of 5,243 steps had Dice 0.7722 with two passes (0.14 s of one core, deviation of the log Jacobian 0.47), 0.7732 both
# ways, 0.7740 with three, 0.7759 with three both ways (0.28 s, deviation 0.50), 0.7762 with four (0.36 s, 0.58). What labels
# have taught is lost with it: 0.884 became 0.840 (2026-11-22; pairs that these networks were trained on, so only the
# differences say something).
ANSWER_PASSES = 3

# Adam of VoxelMorph at twenty times its rate: runs are a hundredth as long, and decay to zero. With instance norms, which
# VoxelMorph lacks: on 16 pairs of Hippocampus's training cases (128 to train on, one seed, smoothness 1, one pass, with a stage
# at full resolution, 2026-11-22) 1,000 steps gave Dice 0.7005 with norms at 2e-3, and 1,500 steps 0.6979 without them at 1e-3.
# 4e-3 without norms and Muon were no better in 300.
OPTIMIZATION = Optimization(
    optimizer="adamw", learning_rate=2e-3, weight_decay=0.0, iterations=1, iterations_per_epoch=1, poly_power=0.9,
    schedule_steps_per_epoch=False, momentum=0.0, nesterov=False, betas=(0.9, 0.999), gradient_clip_norm=12.0,
    ema_decay=0.9)  # of a run of one step; a step with an average takes a little longer, and so do those that are timed
WARMUP_SHARE, EMA_SHARE = 0.05, 0.02
INFERENCE = Inference(tile_step=1.0, gaussian_sigma=0.125, tiles_per_batch=1, mirror_axes=(), mirror=False)
AUGMENTATION = Augmentation()
BATCH = 1
# For batches of one pair torch 2.13 leaves oneDNN for its own slower convolutions on a CPU (ATen/native/Convolution.cpp,
# `use_mkldnn`), unless channels come last: 0.344 against 0.375 s a step of two passes with 32 features at 48 x 56 x 40 voxels
# (one thread, EPYC, nothing else on the machine, 2026-11-22).
MEMORY_FORMAT: dict[Target, MemoryFormat] = {"cpu": "channels_last", "cuda": "contiguous"}
# Steps without a time budget: every image takes part so often, within these limits.
ROUNDS = 50
FEWEST_ITERATIONS: dict[Target, int] = {"cpu": 1_000, "cuda": 5_000}
MOST_ITERATIONS: dict[Target, int] = {"cpu": 10_000, "cuda": 100_000}

# Known deformations: root mean square lengths up to this share of what pairs have to be moved by, and deviations of the Gaussians
# that smooth them, in voxels (RegNet, Sokooti et al. 2017, draws fields of several scales).
DEFORMATION_SHARES, DEFORMATION_WIDTHS_VOXELS = (0.1, 1.0), (4, 8, 16)
# Weight of the smoothness beside each similarity: VoxelMorph's 1 for local correlation; ConvexAdam's 1.25 for MIND; VoxelMorph's
# 0.02 for squared differences of images between 0 and 1, for standardised ones, whose variance is some twenty times larger.
SMOOTHNESS: dict[SimilarityName, float] = {"lncc": 1.0, "mind": 1.25, "mse": 0.4, "mutual_information": 1.0, "features": 2.0,
                                          "patches": 4.0}
# Bracket around it, the frame on which it is tried (a pair takes some seconds of one core), and what a weight must keep to.
BRACKET = (0.25, 1.0, 4.0)
BRACKET_VOXELS = 2**17
# Bounds: of folds as comparisons of brains demand, and of one standard deviation of volumes, a factor of 1.8. On four training
# pairs of Hippocampus (2026-11-22, 60 steps at full resolution) the weights 0.25, 1 and 4 had Dice 0.773, 0.759 and 0.720, folds
# 0.019, 0.001 and 0 %, deviations 0.56, 0.39 and 0.23; MIND has more of both at the same Dice, diffeomorphic demons have a
# deviation of 0.2. Networks are smoother than pairs that are optimised one by one with the same weight (0.30 against 0.39).
MOST_FOLDED_PERCENT, LARGEST_DEVIATION = 0.1, 0.6
DICE_WEIGHT, MOST_DRAWN_LABELS = 1.0, 8

# Deviation of the Gaussian window of local correlation in mm, at least in voxels: GradICON has 5 voxels of 1.75 mm.
WINDOW_MM, SMALLEST_WINDOW_VOXELS, LARGEST_WINDOW_VOXELS = 4.0, 2.0, 5.0
# A line explains intensities where any function explains hardly more; CT is calibrated. Measured on coarse pairs (2026-11-22):
# other brains in one contrast 0.01 to 0.11 less (Hippocampus, FetalBrainSB, OASIS-TRT slices), up to 0.21 with tumours
# (BraTS15Sub); one brain in two contrasts 0.06 to 0.19 (FLAIR, T1 with contrast agent) and 0.22 (T1, T2). So two of six pairs
# of the former are taken for one contrast and need `similarity: mind`; with half the limit some pairs of FetalBrainSB would
# have MIND. What one specification describes alike of many patients has one contrast, and its anatomy bends the relation: there
# more is allowed.
LARGEST_GAP: dict[PairSource, float] = {"cohort": 0.2, "atlas": 0.1, "within_patient": 0.1, "table": 0.1}
# A network gets an affine part from these on; pairs that are optimised by themselves always have one.
AFFINE_OFFSET_VOXELS, AFFINE_SCALE = 3.0, 1.05
FEWEST_PAIRS = 30

# Voxels of a pair that is optimised by itself, and bytes that a step needs for each (local correlation keeps some sixty values).
PAIR_VOXELS: dict[Target, int] = {"cpu": 2**20, "cuda": 2**23}
PAIR_BYTES_PER_VOXEL = 400
# Instance optimisation: steps of Adam per level (shrink, shrink of the velocity), rates in voxels. At full resolution 30 steps
# gave 16 training pairs of Hippocampus a Dice of 0.7934, and 60 steps 0.7940 in 1.4 times the time (2026-11-22). A velocity at
# full resolution after them gave 40 pairs of seven OASIS-TRT slices 0.437 instead of 0.425 (smoothness 0.25, 2026-11-23), and
# those of Hippocampus 0.810 instead of 0.807 in 2.6 times the time, with a deviation of the log Jacobian above the bound
# (0.63): it is for slices.
PAIR_LEVELS = ((4, 4, 80), (2, 4, 80), (1, 2, 30))
FLAT_LEVEL = (1, 1, 30)
PAIR_RATE_VOXELS, AFFINE_RATE_VOXELS = 0.2, 0.3
# Without an affine stage the 40 pairs of slices had 0.428 instead of 0.437, those of Hippocampus 0.774 instead of 0.807.
PAIR_AFFINE = (2, 1, 100)
# Refining an answer on the pair itself. After training with labels it takes away what these taught: on 40 pairs of Hippocampus
# a Dice of 0.819 became 0.798 after 4,681 steps, so there it is left out. (After 700 steps it still added: 0.768 became 0.781
# on 16 pairs of training cases, 2026-11-22.)
REFINE_ITERATIONS, REFINE_RATE_VOXELS = 30, 0.1

IMPLICIT = {"implicit_widths": (256, 256, 256), "implicit_frequency": 32.0, "implicit_iterations": 1000, "implicit_rate": 1e-4,
            "implicit_regularizer": "jacobian", "implicit_blur": 2}
# Points for each step: IDIR's 10,000 take one core about a second, as derivatives along three axes go through the layers. A fifth
# of them took 0.14 s, and 1,000 steps left 0.56 mm of a known warp of 1.76 mm of a fetal brain (EPYC, 2026-11-22).
IMPLICIT_POINTS: dict[Target, int] = {"cpu": 2_000, "cuda": 10_000}
IMPLICIT_WEIGHT = 0.05

# Learned similarities. Of an encoder three resolutions are compared, and the smoothness beside them weighs twice what it weighs
# beside local correlation: DeepSim's scripts for brains (github.com/SteffenCzolbe/DeepSimRegistration) have 2 and 1.
FEATURE_STAGES = 3
# A classifier of patches: five layers of 3 voxels, the second of stride 2, which see 17 voxels (Simonovsky et al. 2016).
PATCH_STRIDES, PATCH_VOXELS = (1, 2, 1, 1, 1), 17
PATCH_FEATURES = (16, 16, 32, 32, 32)
PATCH_COUNT, PATCH_SHIFTS_VOXELS = 32, (1.0, 4.0)
# On 20 slices of FLAIR and T1 with contrast (BraTS 2015, four patients, 1 mm, 2026-11-22) a rate of 3e-3 left 24 % of the patches
# wrong after 600 steps and 20 % after 1,500. Slices of two other patients, moved by 2.56 mm on average, were then 1.92, 1.78 and
# 1.75 mm away with weights 1, 4 and 12 of the smoothness, at deviations of the log Jacobian of 0.27, 0.16 and 0.11; with MIND and
# its weight 1.61 mm, at 0.17.
PATCH_RATE, PATCH_ITERATIONS = 3e-3, 1_500
# Features at all places of a pair that is optimised with a learned similarity, and bytes for each: 64 voxels a side took one core
# 0.6 s a step with this classifier (30 features a voxel), 2.1 and 4.0 s with encoders of 42 and 84; 0.6, 1.2 and 1.9 kB a voxel.
LEARNED_FEATURES: dict[Target, int] = {"cpu": 2**23, "cuda": 2**28}
BYTES_PER_FEATURE = 20
