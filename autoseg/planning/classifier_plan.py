"""Configurations of a task that sees images whole: size, network, batch and length from data, memory and minutes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from autoseg.core.errors import ResourceError, UsageError, unknown_name
from autoseg.core.fingerprint import Fingerprint
from autoseg.core.networks import Classifier, Start
from autoseg.core.plan import Configuration, Inference, Loss, Optimization, Precision, Resampling, Value
from autoseg.core.task import PlanRequest, Starting
from autoseg.planning import classifier_recipes as recipes
from autoseg.planning.budget import Meter, candidate_key, climb
from autoseg.planning.classifier import (
    INCEPTION_V3_SIDE,
    PARAMETERS_PER_PATIENT,
    Wish,
    classifier_parameters,
    largest_width,
    last_map,
    plan_densenet121,
    plan_inception_v3,
    plan_norm,
    plan_resnet,
    plan_vit,
)
from autoseg.planning.classifier_recipes import ImageRung
from autoseg.planning.classifier_start import STARTS, start_grid, start_network, start_of
from autoseg.planning.classifier_why import explain
from autoseg.planning.costs import cost_reasons, predicted
from autoseg.planning.explain import Reasons, below
from autoseg.planning.recipes import CPU
from autoseg.planning.schedule import epoch_length, iterations_within
from autoseg.planning.spacing import Grid
from autoseg.planning.spread import plan_changes
from autoseg.planning.whole_image import SMALL_SIDE, WholeGrid, plan_whole_grid

# Bytes that no step exceeds for each value that a convolution writes, for each parameter, and at all: as in planning/fitting.py.
MOST_BYTES_PER_VALUE, MOST_BYTES_PER_PARAMETER, MOST_BYTES_AT_ALL = 48, 72, 5 * 10**8
# Where no bound is known, memory is always predicted.
NO_BOUND = 2**62

FRESH = ("resnet", "resnet_small", "resnet_se", "resnet_cbam", "densenet121", "inception_v3", "vit")


@dataclass(frozen=True)
class Wanted:
    """What a task wants of its network.

    Attributes:
        task_values: planned values that only the task understands.
        shared_output: the outputs are thresholds between grades.
        reasons: of outputs, loss and task values, relative to a configuration.
    """

    in_channels: int
    out_channels: int
    loss_terms: dict[str, float]
    task_values: dict[str, Value]
    output_bias: tuple[float, ...] = ()
    shared_output: bool = False
    reasons: Reasons = field(default_factory=dict)


@dataclass(frozen=True)
class Design:
    """What configurations follow from.

    Attributes:
        shape, spacing_mm: medians of the whole images, model axis order.
        units: that are trained on and validated.
        lesions: shorter sides of lesions, in thousandths of the image's shorter side.
        localise: heat maps are wanted.
        channels, classes: their names.
        two_valued: the images are masks.
    """

    shape: tuple[float, float, float]
    spacing_mm: tuple[float, float, float]
    units: int
    lesions: tuple[int, ...]
    localise: bool
    fingerprint: Fingerprint
    channels: tuple[str, ...]
    classes: tuple[str, ...]
    two_valued: bool
    wanted: Wanted

    @property
    def patients(self) -> int:
        """What capacity follows from: several images of a patient are no independent evidence."""
        return self.fingerprint.patient_count


@dataclass(frozen=True)
class Drawn:
    """A configuration and what it was drawn from."""

    configuration: Configuration
    grid: WholeGrid
    reasons: Reasons


def draw_configurations(design: Design, request: PlanRequest, meter: Meter) -> tuple[dict[str, Configuration], Reasons]:
    """All configurations that were asked for, the first the one to begin with, and reasons with full paths.

    Raises:
        UsageError: a configuration that does not exist, or that these images or weights do not allow.
        ResourceError: the smallest step does not fit into the memory budget.
    """
    rung, chosen = choose_rung(design, meter)
    configurations: dict[str, Configuration] = {}
    reasons: Reasons = {}
    for name in plan_names(design, request, rung):
        drawn = fitted(design, name, rung, meter, request.start)
        drawn = with_length(drawn, design, meter)
        most = most_bytes(drawn.configuration)
        grid = Grid((0, 1, 2), drawn.grid.spacing_mm, drawn.grid.median_shape, drawn.grid.median_shape[0], design.units)
        timed = meter.budget.minutes is not None or not configurations
        configurations[name] = predicted(drawn.configuration, grid, meter, timed=timed, most=most)
        why = drawn.reasons | cost_reasons(configurations[name], meter, most=most)
        if name not in STARTS:
            why |= chosen
        reasons |= below(f"configurations.{name}", why)
    return configurations, reasons


def plan_names(design: Design, request: PlanRequest, rung: ImageRung) -> tuple[str, ...]:
    """Names of the configurations: those asked for, else neighbours among which `select` chooses on out-of-fold scores."""
    known = (*FRESH, *STARTS)
    for name in request.configurations:
        if name not in known:
            raise UsageError(unknown_name(name, list(known), "configuration"))
        if name in STARTS and request.start is None:
            raise UsageError(f"configuration {name!r} starts from the weights of another model, and none were given",
                             hint="autoseg plan_and_preprocess --start BUNDLE")
    if request.configurations:
        return request.configurations
    if request.start is not None:
        return (*STARTS, "resnet")
    if rung is recipes.CUDA_RUNG and _suits_densenet(design, rung):
        return ("densenet121", "resnet")
    return ("resnet", "resnet_small")


def choose_rung(design: Design, meter: Meter) -> tuple[ImageRung, Reasons]:
    """The size to train: on a GPU one for all; on a CPU the one whose steps make the most of the minutes."""
    budget = meter.budget
    if budget.target == "cuda":
        return recipes.CUDA_RUNG, {}
    if budget.minutes is None:
        return recipes.LADDER[recipes.START], {}
    minutes = budget.minutes
    ladder = _distinct(design, meter)
    first = next((place for place, rung in enumerate(ladder) if recipes.LADDER.index(rung) >= recipes.START), len(ladder) - 1)
    candidates: dict[int, Configuration] = {}

    def candidate(place: int) -> Configuration:
        if place not in candidates:
            candidates[place] = fitted(design, "resnet", ladder[place], meter, None).configuration
        return candidates[place]

    place = climb(len(ladder), first, lambda rung: iterations_within(minutes, meter.seconds(candidate(rung))))
    return ladder[place], size_reasons([candidate(rung) for rung in sorted(candidates)], meter, minutes)


def _distinct(design: Design, meter: Meter) -> list[ImageRung]:
    """Rungs without those that come to the same configuration as a later one."""
    last = {candidate_key(draw(design, "resnet", rung, meter, None).configuration): rung for rung in recipes.LADDER}
    return sorted(last.values(), key=recipes.LADDER.index)


def size_reasons(timed: list[Configuration], meter: Meter, minutes: float) -> Reasons:
    """Why the network is as wide, deep and finely sampled as it is, where candidates were timed."""
    from autoseg.core.plan import Reason
    from autoseg.planning.recipes import ENOUGH_ITERATIONS, TOO_FEW_ITERATIONS

    known = {candidate_key(one): meter.budget.seconds_per_step(candidate_key(one)) for one in timed}
    times = "; ".join(f"{key}: {seconds:.4g} s per step" for key, seconds in known.items() if seconds is not None)
    reason = Reason(times, f"from cheap to dear candidates: smaller while fewer than {TOO_FEW_ITERATIONS} steps fit into "
                           f"{minutes:g} "
                    f"minutes, larger while the next one still allows {ENOUGH_ITERATIONS}; no more parameters than the patients "
                    "allow",
                    "candidates timed on this machine, see budget.json")
    return {"network.features": reason, "network.blocks": reason}


def fitted(design: Design, name: str, rung: ImageRung, meter: Meter, start: Starting | None) -> Drawn:
    """A configuration whose batch is halved until the predicted peak fits into the memory budget.

    Raises:
        ResourceError: a step of two images does not fit.
    """
    drawn = draw(design, name, rung, meter, start)
    budget = meter.budget.memory_bytes
    if most_bytes(drawn.configuration) <= budget:
        return drawn
    while (needed := meter.footprint(drawn.configuration).training_bytes) > budget:
        batch = drawn.configuration.batch_size
        if batch <= recipes.SMALLEST_BATCH:
            raise ResourceError(
                f"configuration {name!r}: the smallest training step, {batch} images of {drawn.configuration.patch_size} voxels "
                f"(model axes), needs {needed / 1e9:.2f} GB, more than the memory budget of {budget / 1e9:.2f} GB",
                hint=f"give at least --memory {needed / 1e9 + 0.01:.2f}GB")
        drawn = draw(design, name, rung, meter, start, most=max(recipes.SMALLEST_BATCH, batch // 2))
    return drawn


def draw(design: Design, name: str, rung: ImageRung, meter: Meter, start: Starting | None, *, most: int | None = None) -> Drawn:
    """A configuration of one rung, one iteration long.

    Args:
        most: images of a batch at most; None: as the recipe says.
    """
    target = meter.budget.target
    pixels = rung.pixels if design.shape[0] < 2 else rung.voxels
    grid, of_dims, of_size = plan_whole_grid(design.shape, design.spacing_mm, most_voxels=pixels, lesions=design.lesions)
    is_start = name in STARTS and start is not None
    if is_start and start is not None:
        grid = start_grid(grid, start)
    kind = "volume" if grid.size[0] > 1 else "small" if max(grid.size) <= SMALL_SIDE else "picture"
    batch = min(recipes.BATCH[target][kind], max(recipes.SMALLEST_BATCH, int(design.units * recipes.LARGEST_SHARE)))
    batch = batch if most is None else min(batch, most)
    network = start_network(start, _wish(design, grid, rung, batch)) if is_start and start is not None \
        else fresh_network(name, design, grid, rung, batch)
    planned_start: Start | None = start_of(start, name) if is_start and start is not None else None
    changes, of_changes = plan_changes(design.fingerprint, dims=grid.dims, slices=grid.slices, channels=design.channels,
                                       classes=design.classes, two_valued=design.two_valued)
    precision: Precision = "fp16" if target == "cuda" else "bf16" if meter.budget.supports_bf16 else "fp32"
    optimization = replace(recipes.OPTIMIZERS[target], precision=precision, memory_format=CPU.memory_format if target == "cpu"
                           else "contiguous")
    configuration = Configuration(
        name=name, spacing_mm=grid.spacing_mm, median_shape=(float(grid.size[0]), float(grid.size[1]), float(grid.size[2])),
        patch_size=grid.size, batch_size=batch, network=network,
        resampling=Resampling(separate_z_ratio=1e6, low_pass_from=recipes.LOW_PASS_FROM),
        loss=Loss(dict(design.wanted.loss_terms)), augmentation=changes, optimization=optimization,
        inference=Inference(tile_step=1.0, gaussian_sigma=CPU.gaussian_sigma, tiles_per_batch=1, mirror_axes=changes.mirror_axes,
                            mirror=False, precision=precision, memory_format=optimization.memory_format),
        whole_image=True, start=planned_start, task_values=dict(design.wanted.task_values))
    why = explain(configuration, grid, design.units, of_dims, of_size, meter.budget, patients=design.patients)
    reasons = why | of_changes | design.wanted.reasons
    return Drawn(configuration, grid, reasons)


def fresh_network(name: str, design: Design, grid: WholeGrid, rung: ImageRung, batch: int) -> Classifier:
    """The network of a configuration that begins with fresh weights.

    Raises:
        UsageError: the images are too small for it.
    """
    wish = _wish(design, grid, rung, batch)
    if name == "inception_v3" and min(grid.sides) < INCEPTION_V3_SIDE:
        raise UsageError(f"Inception-v3 needs images of at least {INCEPTION_V3_SIDE} pixels, and the plan's have {grid.sides}; "
                         "plan "
                         "resnet instead")
    small = max(width for width in recipes.WIDTHS if width <= max(min(recipes.WIDTHS), wish.base_features // 2))
    builders: dict[str, Callable[[], Classifier]] = {
        "resnet": lambda: plan_resnet(grid, wish),
        "resnet_small": lambda: plan_resnet(grid, replace(wish, base_features=small, blocks=1)),
        "resnet_se": lambda: plan_resnet(grid, replace(wish, attention="squeeze_excitation")),
        "resnet_cbam": lambda: plan_resnet(grid, replace(wish, attention="cbam")),
        "densenet121": lambda: plan_densenet121(grid, wish),
        "inception_v3": lambda: plan_inception_v3(grid, wish),
        "vit": lambda: plan_vit(grid, wish)}
    return builders[name]()


def _wish(design: Design, grid: WholeGrid, rung: ImageRung, batch: int) -> Wish:
    wanted = design.wanted
    wish = Wish(wanted.in_channels, wanted.out_channels, rung.base_features, rung.blocks, plan_norm(batch),
                localise=design.localise, shared_output=wanted.shared_output, output_bias=wanted.output_bias)
    width = min(rung.base_features, largest_width(grid, wish, design.patients, recipes.WIDTHS))
    return replace(wish, base_features=width)


def _suits_densenet(design: Design, rung: ImageRung) -> bool:
    """Pictures that are large enough, and patients enough for DenseNet-121's seven million parameters."""
    grid, *_ = plan_whole_grid(design.shape, design.spacing_mm, most_voxels=rung.pixels, lesions=design.lesions)
    if grid.size[0] > 1 or max(grid.size) <= SMALL_SIDE:
        return False
    network = plan_densenet121(grid, Wish(design.wanted.in_channels, design.wanted.out_channels))
    return classifier_parameters(network) <= PARAMETERS_PER_PATIENT * design.patients


def with_length(drawn: Drawn, design: Design, meter: Meter) -> Drawn:
    """The same with the number of iterations, from the minutes or else from the dataset."""
    from autoseg.core.plan import Reason

    configuration, budget = drawn.configuration, meter.budget
    batch, target = configuration.batch_size, budget.target
    if budget.minutes is None:
        wanted = math.ceil(recipes.PASSES * design.units / batch)
        count = min(max(wanted, recipes.FEWEST_ITERATIONS[target]), recipes.MOST_ITERATIONS[target])
        why = Reason(f"{design.units} units, batch {batch}, no minutes given",
                     f"every unit is seen {recipes.PASSES} times, within {recipes.FEWEST_ITERATIONS[target]} to "
                     f"{recipes.MOST_ITERATIONS[target]} iterations on "
                     f"{target}", "100 epochs of MedMNIST's recipe (Yang et al. 2023)")
    else:
        seconds = meter.seconds(configuration)
        count = iterations_within(budget.minutes, seconds)
        why = Reason(f"{budget.minutes:g} minutes, {seconds:.4g} s per step", "minutes x 60 / seconds per step",
                     "measured on this machine, see budget.json")
    reasons = drawn.reasons | {"optimization.iterations": why}
    return replace(drawn, configuration=replace(configuration, optimization=lasting(configuration.optimization, count)),
                   reasons=reasons)


def lasting(optimization: Optimization, iterations: int) -> Optimization:
    """The optimisation for so many iterations: warm-up and average are shares of the run."""
    return replace(optimization, iterations=iterations, iterations_per_epoch=epoch_length(iterations),
                   warmup_iterations=math.ceil(recipes.WARMUP_SHARE * iterations),
                   ema_decay=round(1 - 1 / max(10.0, recipes.EMA_SHARE * iterations), 6))


def most_bytes(configuration: Configuration) -> int:
    """Bytes that a training step surely keeps below, without a prediction; a huge number where nothing is known."""
    network = configuration.network
    if not isinstance(network, Classifier) or network.kind != "resnet" or network.attention != "none":
        return NO_BOUND
    sides = [float(side) for side in configuration.patch_size[-network.dims:]]
    images = configuration.batch_size * (configuration.patch_size[0] if network.slices else 1)
    values = 0.0
    for features, stride, blocks in zip(network.features, network.strides, network.blocks, strict=True):
        sides = [side / step for side, step in zip(sides, stride, strict=True)]
        values += math.prod(sides) * features * (2 * blocks + 1)
    return int(values * images * MOST_BYTES_PER_VALUE + classifier_parameters(network) * MOST_BYTES_PER_PARAMETER
               + MOST_BYTES_AT_ALL)


__all__ = ["Design", "Wanted", "draw_configurations", "last_map"]
