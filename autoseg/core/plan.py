"""The plan: every value that later stages obey, each with its reason.

All types are frozen pydantic dataclasses that refuse unknown keys: a misspelt key fails when the file is read. Names of
things to build (`kind`, `scheme`) are closed choices; a plan never names a class or a module to import.
"""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from autoseg.core.budget import Budget
from autoseg.core.errors import UsageError, unknown_name
from autoseg.core.networks import LEFT_OUT_IF_NONE, Classifier, Network, Registrar, Start
from autoseg.core.plan_rules import (
    Axis,
    Count,
    NotNegative,
    Order,
    Positive,
    Range,
    Share,
)
from autoseg.core.spec import STRICT

# 2: classifiers, whole images, weights to start from. Plans of format 1 have none of these and are read as they are.
PLAN_FORMAT = 2

Air = Literal["zero", "corners", "nothing"]
Scheme = Literal["ct", "zscore", "rescale_to_0_1", "rgb_to_0_1", "none"]
Precision = Literal["fp32", "bf16", "fp16"]
MemoryFormat = Literal["contiguous", "channels_last"]
# Texts before numbers: read from a list, the names "0" and "1" would become numbers, while numbers never become texts.
Value = int | float | bool | str | tuple[str, ...] | tuple[int, ...] | tuple[tuple[int, ...], ...] | None


@dataclass(frozen=True, config=STRICT)
class Normalization:
    """How one channel is normalised, before resampling.

    Attributes:
        scheme: see `ops.normalize`.
        use_mask: z-score inside the mask of what is not air only; the rest becomes 0.
        mean, std, lower, upper: dataset values for `ct`, in the unit of the image.
    """

    scheme: Scheme
    use_mask: bool = False
    mean: float | None = None
    std: NotNegative | None = None
    lower: float | None = None
    upper: float | None = None


@dataclass(frozen=True, config=STRICT)
class InputPlan:
    """One input role.

    Attributes:
        channels: the normalisation of each.
        air: images are cropped to what is not air: `zero`, or the value in the `corners` of each channel (`ops.crop`);
            `nothing` is air where the whole image is wanted.
    """

    role: str
    channels: tuple[Normalization, ...]
    air: Air = "zero"


@dataclass(frozen=True, config=STRICT)
class Resampling:
    """Spline orders along the sharp axes and, where it is treated apart, along the coarse axis.

    Attributes:
        image_order, image_order_z: for images.
        target_order, target_order_z: for label maps (one-hot, linear, threshold 0.5) and other targets.
        output_order, output_order_z: for logits on the way back.
        separate_z_ratio: largest / smallest spacing above which the coarse axis is resampled apart.
        low_pass_from: an axis of an image that shrinks by more than this factor is blurred first (`ops.operators`); None: none.
    """

    image_order: Order = 3
    image_order_z: Order = 0
    target_order: Order = 1
    target_order_z: Order = 0
    output_order: Order = 1
    output_order_z: Order = 0
    separate_z_ratio: Positive = 3.0
    # Left out of files and digests where it is None, so that plans and runs of earlier versions stay what they were.
    low_pass_from: Positive | None = field(default=None, metadata=LEFT_OUT_IF_NONE)


@dataclass(frozen=True, config=STRICT)
class Loss:
    """Weighted terms of the loss; the task knows the terms by name.

    Attributes:
        terms: name -> weight.
        batch_dice: Dice over the batch as one sample instead of per sample.
        smooth: added to numerator and denominator of the soft Dice.
    """

    terms: dict[str, NotNegative]
    batch_dice: bool = False
    smooth: NotNegative = 1e-5


@dataclass(frozen=True, config=STRICT)
class Augmentation:
    """Probability and range of every random change; a probability of 0 switches it off.

    Attributes:
        rotation_deg: (low, high) per axis; `dummy_2d` rotates within slices of axis 0 only.
        scaling: (low, high) factor.
        elastic_deviation_voxels: (low, high) of the standard deviation of random displacements, drawn on a coarse grid and
            interpolated.
        noise_variance, blur_sigma, brightness, contrast, low_resolution_zoom, gamma: (low, high).
        mirror_axes: spatial axes (model order) that are mirrored with probability one half each.
        left_right_axis: the model axis that runs from right to left in the patient, where mirroring it swaps labels.
        mirror_pairs: pairs of label indices that are swapped when that axis is mirrored (left and right kidney).
    """

    dummy_2d: bool = False
    rotation_probability: Share = 0.0
    rotation_deg: Range = (0.0, 0.0)
    scaling_probability: Share = 0.0
    scaling: Range = (1.0, 1.0)
    elastic_probability: Share = 0.0
    elastic_deviation_voxels: Range = (0.0, 0.0)
    noise_probability: Share = 0.0
    noise_variance: Range = (0.0, 0.0)
    blur_probability: Share = 0.0
    blur_probability_per_channel: Share = 0.0
    blur_sigma: Range = (0.0, 0.0)
    brightness_probability: Share = 0.0
    brightness: Range = (1.0, 1.0)
    contrast_probability: Share = 0.0
    contrast: Range = (1.0, 1.0)
    low_resolution_probability: Share = 0.0
    low_resolution_probability_per_channel: Share = 0.0
    low_resolution_zoom: Range = (1.0, 1.0)
    inverted_gamma_probability: Share = 0.0
    gamma_probability: Share = 0.0
    gamma: Range = (1.0, 1.0)
    mirror_axes: tuple[Axis, ...] = ()
    left_right_axis: Axis | None = None
    mirror_pairs: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, config=STRICT)
class Optimization:
    """How the weights are found; training obeys `iterations` and never reads a clock.

    Attributes:
        optimizer: `muon` moves convolution kernels by orthogonalised momentum and everything else as `adamw`.
        momentum: of `sgd` and `muon`; betas: of `adamw` and of what `muon` moves as AdamW.
        schedule: `poly`: learning_rate * (1 - t)**poly_power, stepped every `iterations_per_epoch`, after a linear
            warm-up over `warmup_iterations`.
        ema_decay: weights of the model are an exponential moving average over steps; None: the last weights.
        precision: of the forward pass.
    """

    optimizer: Literal["sgd", "adamw", "muon"]
    learning_rate: NotNegative
    weight_decay: NotNegative
    iterations: Annotated[int, Field(ge=0)]
    iterations_per_epoch: Count
    schedule: Literal["poly"] = "poly"
    poly_power: NotNegative = 0.9
    schedule_steps_per_epoch: bool = True
    momentum: Share = 0.99
    nesterov: bool = True
    betas: tuple[Share, Share] = (0.9, 0.999)
    warmup_iterations: Annotated[int, Field(ge=0)] = 0
    gradient_clip_norm: Positive | None = 12.0
    ema_decay: Share | None = None
    precision: Precision = "fp32"
    memory_format: MemoryFormat = "contiguous"


@dataclass(frozen=True, config=STRICT)
class Inference:
    """How a whole case is predicted.

    Attributes:
        tile_step: distance of windows / patch size, in (0, 1].
        gaussian_sigma: width of the window weights / patch size.
        tiles_per_batch: windows that go through the network together.
        mirror_axes: spatial axes that test-time mirroring may use: those that training mirrored.
        mirror: mirroring is on unless the user says otherwise.
        left_right_axis: the model axis that runs from right to left in the patient, where mirroring it swaps outputs.
        mirror_pairs: pairs of outputs (channels) that are swapped back when that axis is mirrored.
    """

    tile_step: Annotated[float, Field(gt=0, le=1)]
    gaussian_sigma: Positive
    tiles_per_batch: Count
    mirror_axes: tuple[Axis, ...]
    mirror: bool
    precision: Precision = "fp32"
    memory_format: MemoryFormat = "contiguous"
    left_right_axis: Axis | None = None
    mirror_pairs: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, config=STRICT)
class Durations:
    """Seconds that a configuration is predicted to take on the machine that was measured, in one process.

    Attributes:
        preprocess: all cases.
        training: the optimisation steps of one fold.
        validation: prediction of the fold's validation cases.
        case: prediction of one case, the median of all, reading and preparing it included.
    """

    preprocess: float
    training: float
    validation: float
    case: float


@dataclass(frozen=True, config=STRICT)
class Configuration:
    """One way to solve the task: grid, patch, network and schedule.

    Attributes:
        spacing_mm: of the model grid, model axis order; None keeps each case's own (axis 0 of a 2-D configuration).
        median_shape: median over cases of the shape on the model grid.
        patch_size: model axis order; a 2-D configuration has patch_size[0] = 1.
        oversample_foreground: share of a batch that is drawn around a target; its last positions.
        whole_image: a case is resampled to `patch_size` voxels whatever its spacing, and seen whole.
        start: weights to start from; None: fresh ones.
        task_values: planned values that only the task understands.
        predicted_peak_bytes: peak memory of training; None where it surely fits and nothing was predicted.
        predicted_inference_bytes: peak memory of predicting the median case.
        predicted_seconds: None where nothing was measured.
    """

    name: str
    spacing_mm: tuple[Positive | None, Positive, Positive]
    median_shape: tuple[Positive, Positive, Positive]
    patch_size: tuple[Count, Count, Count]
    batch_size: Count
    resampling: Resampling
    network: Annotated[Network | Classifier | Registrar, Field(discriminator="kind")]
    loss: Loss
    augmentation: Augmentation
    optimization: Optimization
    inference: Inference
    oversample_foreground: Share = 0.0
    whole_image: bool = False
    start: Start | None = None
    task_values: dict[str, Value] = field(default_factory=dict)
    predicted_peak_bytes: int | None = None
    predicted_inference_bytes: int | None = None
    predicted_seconds: Durations | None = None


@dataclass(frozen=True, config=STRICT)
class Reason:
    """Why a planned value is what it is.

    Attributes:
        inputs: what it was derived from, with the numbers.
        because: the rule in words.
        source: paper, file or measurement that the rule comes from.
    """

    inputs: str
    because: str
    source: str


@dataclass(frozen=True, config=STRICT)
class Plan:
    """Everything that later stages obey.

    Attributes:
        transpose: model axis a is canonical axis transpose[a].
        specification: digest of what the plan follows from in the dataset's specification; empty in plans of before.
        fingerprint: digest of the measurements that it follows from; empty in plans of before.
        reasons: path of a planned value (`configurations.3d_fullres.patch_size`) -> why; a path covers what lies below.
    """

    name: str
    dataset: str
    task: str
    transpose: tuple[int, int, int]
    inputs: tuple[InputPlan, ...]
    configurations: dict[str, Configuration]
    budget: Budget
    reasons: dict[str, Reason]
    seed: int = 0
    format: int = PLAN_FORMAT
    specification: str = ""
    fingerprint: str = ""

    def configuration(self, name: str) -> Configuration:
        """The configuration called `name`.

        Raises:
            UsageError: there is none; the message lists those there are.
        """
        if name not in self.configurations:
            raise UsageError(unknown_name(name, list(self.configurations), f"configuration of plan {self.name!r}:"))
        return self.configurations[name]


def unexplained_values(plan: Plan) -> list[str]:
    """Paths of planned values that no reason covers; empty for a sound plan."""
    from dataclasses import asdict

    explained = set(plan.reasons)
    paths = []
    for key in ("transpose", "inputs", "configurations", "seed"):
        paths += _leaves(asdict(plan)[key], key)
    return [path for path in paths if not any(path == e or path.startswith(e + ".") for e in explained)]


def _leaves(value: Any, path: str) -> list[str]:
    if isinstance(value, dict):
        return [leaf for key, child in value.items() for leaf in _leaves(child, f"{path}.{key}")]
    return [path]
