"""The numbers of each recipe, in one place: replace them here when a measurement says so.

A recipe holds what does not depend on the dataset. `NNUNET` repeats nnU-Net 2.8.1 and must never change; `CPU` and `CUDA`
are those of the default rule book.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from autoseg.core.plan import Augmentation, MemoryFormat, Optimization

NNUNET_TRAINER = "nnU-Net 2.8.1 trainer (nnUNetTrainer.py)"
HIPPOCAMPUS = "measured on Hippocampus folds, see benchmarks/README.md"
# Of the width in 2-D and the fewest steps only.
SUNNYBROOK = "measured on slices of SunnybrookLV, see benchmarks/README.md"


@dataclass(frozen=True)
class Recipe:
    """Width, optimiser, augmentation and inference of a rule book on one target.

    Attributes:
        source: where the numbers come from.
        because: why they suit the target, for the reasons of the plan.
        base_features: of the first stage; deeper stages double them.
        largest_features: per number of dimensions, as a multiple of `base_features`.
        kind: of the network.
        thin_first: the first stage has `base_features / thin_first`, the second `base_features`.
        starts_from_frequencies: outputs start from the frequencies of the labels.
        convs_encoder, convs_decoder: per stage; residual encoder: blocks.
        batch_dice: None: nnU-Net's rule (2-D, or where a low-resolution configuration exists).
        smooth: of the soft Dice.
        oversample_foreground: share of a batch drawn around a label.
        optimization: `iterations`, `iterations_per_epoch`, warm-up, average and precision are filled in by the schedule.
        long_optimization: replaces `optimization` for runs of `LONG_RUN` iterations and more; None: never.
        warmup_share: of the iterations, for `adamw` and `muon`.
        ema_share: horizon of the weight average / iterations, for `adamw` and `muon`; None: no average.
        augmentation: without `dummy_2d` and mirroring, which depend on the patch.
        long_augmentation: replaces it in runs that draw the dataset `MANY_PASSES` times and more; None: never.
        fits_rotation: the range of rotation follows from the patch by nnU-Net's rule instead of the augmentation.
        mirrors: axes of random mirroring in training: none, from right to left only, or all.
        mirrors_at_test: averaged mirroring in prediction by default.
        tile_step, gaussian_sigma: of the sliding window.
        batches_tiles: windows go through the network in batches of the training batch size instead of one by one.
        memory_format: where it is not measured.
    """

    source: str
    because: str
    base_features: int
    deep_supervision: bool
    batch_dice: bool | None
    optimization: Optimization
    long_optimization: Optimization | None
    warmup_share: float
    ema_share: float | None
    augmentation: Augmentation
    long_augmentation: Augmentation | None
    fits_rotation: bool
    mirrors: Literal["none", "left_right", "all"]
    mirrors_at_test: bool
    batches_tiles: bool
    memory_format: MemoryFormat = "contiguous"
    largest_features: tuple[tuple[int, int], ...] = ((2, 16), (3, 10))
    kind: Literal["plain_unet", "residual_unet"] = "plain_unet"
    thin_first: int = 1
    starts_from_frequencies: bool = False
    convs_encoder: int = 2
    convs_decoder: int = 2
    smooth: float = 1e-5
    oversample_foreground: float = 0.33
    tile_step: float = 0.5
    gaussian_sigma: float = 0.125

    def widest(self, dims: int) -> int:
        """Features at which doubling stops."""
        return self.base_features * dict(self.largest_features)[dims]


NNUNET_ITERATIONS = 250_000
NNUNET_ITERATIONS_PER_EPOCH = 250

NNUNET_SGD = Optimization(
    optimizer="sgd", learning_rate=1e-2, weight_decay=3e-5, iterations=NNUNET_ITERATIONS,
    iterations_per_epoch=NNUNET_ITERATIONS_PER_EPOCH, poly_power=0.9, schedule_steps_per_epoch=True, momentum=0.99,
    nesterov=True, gradient_clip_norm=12.0)

NNUNET_AUGMENTATION = Augmentation(
    rotation_probability=0.2, scaling_probability=0.2, scaling=(0.7, 1.4),
    noise_probability=0.1, noise_variance=(0.0, 0.1),
    blur_probability=0.2, blur_probability_per_channel=0.5, blur_sigma=(0.5, 1.0),
    brightness_probability=0.15, brightness=(0.75, 1.25),
    contrast_probability=0.15, contrast=(0.75, 1.25),
    low_resolution_probability=0.25, low_resolution_probability_per_channel=0.5, low_resolution_zoom=(0.5, 1.0),
    inverted_gamma_probability=0.1, gamma_probability=0.3, gamma=(0.7, 1.5))

NNUNET = Recipe(
    source=NNUNET_TRAINER,
    because="nnU-Net's fixed recipe, repeated exactly",
    base_features=32, deep_supervision=True, batch_dice=None,
    optimization=NNUNET_SGD, long_optimization=None, warmup_share=0.0, ema_share=None,
    augmentation=NNUNET_AUGMENTATION, long_augmentation=None, fits_rotation=True,
    mirrors="all", mirrors_at_test=True, batches_tiles=False)

# AdamW reaches a usable model in a few hundred iterations, where SGD with momentum 0.99 has hardly started.
SHORT_RUN_ADAMW = Optimization(
    optimizer="adamw", learning_rate=2e-3, weight_decay=1e-2, iterations=1, iterations_per_epoch=1, poly_power=0.9,
    schedule_steps_per_epoch=False, momentum=0.0, nesterov=False, betas=(0.9, 0.999), gradient_clip_norm=12.0)

# At a rate of 2e-3 Muon was 0.01 Dice ahead of AdamW after some 500 steps (one seed); AdamW at 1e-2 was not run to the end.
SHORT_RUN_MUON = Optimization(
    optimizer="muon", learning_rate=1e-2, weight_decay=1e-2, iterations=1, iterations_per_epoch=1, poly_power=0.9,
    schedule_steps_per_epoch=False, momentum=0.95, nesterov=True, betas=(0.9, 0.95), gradient_clip_norm=12.0)

# For runs that see every case some dozen times. Weak against strong is not settled: see benchmarks/README.md.
CPU_AUGMENTATION = Augmentation(
    rotation_probability=0.6, rotation_deg=(-15.0, 15.0), scaling_probability=0.6, scaling=(0.89, 1.13),
    noise_probability=0.1, noise_variance=(0.0, 0.3),
    brightness_probability=0.1, brightness=(0.75, 1.25),
    contrast_probability=0.1, contrast=(0.65, 1.5),
    gamma_probability=0.1, gamma=(0.7, 1.5))

# For longer runs: with weak changes the Dice of training cases rose to 0.914 after 1,600 steps, 0.03 above that of others.
CPU_STRONG_AUGMENTATION = Augmentation(
    rotation_deg=(-30.0, 30.0),
    rotation_probability=0.7, scaling_probability=0.7, scaling=(0.82, 1.22),
    elastic_probability=0.3, elastic_deviation_voxels=(0.0, 1.5),
    noise_probability=0.15, noise_variance=(0.0, 0.3),
    brightness_probability=0.15, brightness=(0.75, 1.25),
    contrast_probability=0.15, contrast=(0.65, 1.5),
    gamma_probability=0.15, gamma=(0.7, 1.5))

CPU = Recipe(
    source=HIPPOCAMPUS,
    because="a CPU affords a few hundred to a few thousand steps, so each must be cheap and count: few features at full "
            "resolution, where most of the time goes, and in 2-D at the coarse ones, residual blocks, Muon with warm-up and "
            "averaged weights, no mirroring, no extra outputs",
    base_features=32, deep_supervision=False, batch_dice=True,
    optimization=SHORT_RUN_MUON, long_optimization=None, warmup_share=0.05, ema_share=0.02,
    augmentation=CPU_AUGMENTATION, long_augmentation=CPU_STRONG_AUGMENTATION, fits_rotation=False,
    mirrors="none", mirrors_at_test=False, batches_tiles=True,
    kind="residual_unet", thin_first=4, starts_from_frequencies=True, convs_encoder=1, convs_decoder=1, smooth=1.0,
    memory_format="channels_last", largest_features=((2, 4), (3, 10)))

CUDA = Recipe(
    source="nnU-Net 2.8.1 network, augmentation and inference; optimiser of short runs " + HIPPOCAMPUS,
    because="nnU-Net's network and augmentation, proven on 23 datasets; the optimiser of a run follows from its length",
    base_features=32, deep_supervision=True, batch_dice=None,
    optimization=SHORT_RUN_ADAMW,
    long_optimization=replace(NNUNET_SGD, schedule_steps_per_epoch=False),
    warmup_share=0.05, ema_share=0.02,
    augmentation=NNUNET_AUGMENTATION, long_augmentation=None, fits_rotation=True,
    mirrors="all", mirrors_at_test=True, batches_tiles=True)

# A judgement between runs of 16 passes, which did well with weak augmentation, and one of 28, whose Dice on other cases ended
# lower than at three quarters; one seed each, differences near noise (benchmarks/README.md).
MANY_PASSES = 20

# A tenth of nnU-Net's schedule: beyond, SGD with momentum 0.99 has the length it was tuned for.
LONG_RUN = 25_000

# Without a time budget every voxel of the dataset is drawn this often: three times what took a U-Net of 16 features to a
# Dice of 0.89 on Hippocampus (1,200 steps of 4 patches are 30 passes over 160 cases).
PASSES_OVER_DATASET = 100
FEWEST_ITERATIONS = {"cpu": 2_500, "cuda": 10_000}
MOST_ITERATIONS = {"cpu": 20_000, "cuda": NNUNET_ITERATIONS}

# With a time budget: a warm-up of 5 % needs one step.
FLOOR_WITHIN_MINUTES = 20

# Epochs of the default book only say how often is logged and saved.
EPOCHS = 20
LONGEST_EPOCH = 250


@dataclass(frozen=True)
class Rung:
    """One size of a CPU candidate: voxels of a whole batch, and features of the second stage."""

    step_voxels: int
    base_features: int


# From cheap to dear; the climb starts at `START` (2^20 voxels: two patches of 80^3, or two of Hippocampus size).
LADDER = (Rung(2**17, 16), Rung(2**18, 24), Rung(2**19, 32), Rung(2**20, 32), Rung(2**20, 48), Rung(2**20, 64))
START = 3
# Precision and layout are timed on a cheap rung of the start's width.
ARITHMETIC = 1
# Down while fewer steps than these fit into the minutes; up while the next rung allows at least those. In equal time 540 cheap
# steps were far ahead of 215 dearer ones on Sunnybrook's slices, and 838 steps do well on Hippocampus.
TOO_FEW_ITERATIONS = 500
ENOUGH_ITERATIONS = 1_500
# A CPU does not run faster per sample with more of them: steps count more than large batches.
LARGEST_CPU_BATCH = {2: 32, 3: 2}
