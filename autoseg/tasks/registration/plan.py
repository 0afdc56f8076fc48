"""The plan of a registration: what few coarse pairs ask for, and what memory and minutes allow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from autoseg.core.budget import Budget, Target
from autoseg.core.errors import DatasetError, ResourceError, UsageError, unknown_name
from autoseg.core.fingerprint import Fingerprint
from autoseg.core.networks import Registrar
from autoseg.core.plan import Configuration, Loss, Optimization, Plan, Reason, Resampling, Value
from autoseg.core.spec import DatasetSpec
from autoseg.core.task import PlanRequest, Probe, Starting
from autoseg.ops.pyramid import axis_factors, shrink_to
from autoseg.planning.air import cropped_as_planned
from autoseg.planning.budget import Meter, climb
from autoseg.planning.costs import cost_reasons, predicted
from autoseg.planning.explain import Reasons, below
from autoseg.planning.normalization import plan_inputs
from autoseg.planning.schedule import epoch_length, iterations_within
from autoseg.planning.spacing import Grid, grid_reason, plan_grid
from autoseg.planning.unet import channel_count
from autoseg.tasks.registration import learned, recipes
from autoseg.tasks.registration.bracket import choose_smoothness
from autoseg.tasks.registration.pilot import Pilots, coarse_of, find_pilots, pilot_key
from autoseg.tasks.registration.recipes import Rung
from autoseg.tasks.registration.spec import RegistrationOptions, SimilarityName, registration_options
from autoseg.tasks.registration.target import label_values
from autoseg.tasks.registration.why import explain

# Frames hold the images of all but the largest cases: what lies outside follows the border.
LARGEST_PERCENT = 95
NAME = "pairs"
# No bound on the memory of a step is known, so it is always predicted.
NO_BOUND = 2**62


@dataclass(frozen=True)
class Design:
    """What a configuration follows from.

    Attributes:
        grid: the model grid at full resolution.
        largest: voxels along each model axis that nearly all cases keep within, at that resolution.
        pairs: that can be trained on.
        method: as asked for, or by the number of pairs.
        start: weights of another model, of whose encoder features are compared.
        smoothness: its weight, once it was chosen; None: the published one.
    """

    spec: DatasetSpec
    options: RegistrationOptions
    grid: Grid
    largest: tuple[float, float, float]
    pairs: int
    dims: int
    method: str
    ct: bool
    labelled: bool
    target: Target
    start: Starting | None = None
    smoothness: float | None = None

    @property
    def trains(self) -> bool:
        """A network is trained; else every pair is answered by itself."""
        return self.method in ("network", "supervised")

    @property
    def learns_patches(self) -> bool:
        """What is alike is trained, and every pair answered by itself."""
        return self.options.similarity == "patches"

    @property
    def likeness_alone(self) -> bool:
        """A network learns from how alike images become, and from nothing else."""
        return self.method == "network" and not self.labels

    @property
    def channels(self) -> int:
        """Of each image."""
        return channel_count(self.spec)

    @property
    def labels(self) -> tuple[int, ...]:
        """Values of labels that are trained on."""
        learns = self.method == "network" and self.options.use_labels and self.labelled
        return label_values(self.spec) if learns else ()


def make_plan(spec: DatasetSpec, fingerprint: Fingerprint, budget: Budget, request: PlanRequest, probe: Probe) -> Plan:
    """The plan of a dataset, every value with its reason; its budget holds everything that was measured.

    Raises:
        DatasetError: several inputs, fewer than two cases, or channels that do not match.
        UsageError: a rule book or configuration that does not exist, or weights to start from whose images were prepared
            otherwise; a similarity that cannot be learned from what there is.
        ResourceError: the smallest step does not fit into the memory budget.
    """
    options = registration_options(spec)
    _require_plannable(spec, fingerprint, request)
    learned.require_learnable(options, request.start)
    inputs, input_reasons = plan_inputs(spec.inputs, fingerprint)
    inside = cropped_as_planned(fingerprint, inputs)
    ct = all(channel.scheme == "ct" for entry in inputs for channel in entry.channels)
    design = replace(_design(spec, options, inside, budget.target, ct=ct), start=request.start)
    if request.start is not None:
        learned.require_same_normalization(request.start, inputs)
    draft = Plan(request.name, spec.name, spec.task, design.grid.transpose, inputs, {}, budget, {}, request.seed)
    key = pilot_key(fingerprint, options)
    pilots, budget = find_pilots(probe, draft, coarse_of(_sketch(design)), budget, key)
    learned.require_aligned(options, pilots)
    meter = Meter(budget, probe, draft)
    trial = _draw(design, pilots, replace(recipes.LADDER[0], voxels=recipes.BRACKET_VOXELS), pilots.reach_mm)
    smoothness, why = choose_smoothness(trial, meter, pair_values(design.dims), partial(probe.pilots, draft), key)
    design = replace(design, smoothness=smoothness)
    configuration, chosen = _sized(design, pilots, meter) if design.trains else (_pair_sized(design, pilots, meter.budget), {})
    configuration = with_length(configuration, design, meter)
    costs = idle_costs(design)
    if design.trains or design.learns_patches:  # a learned similarity is too slow to be timed where no minutes are given
        timed = design.trains or budget.minutes is not None
        configuration = predicted(configuration, design.grid, meter, timed=timed, most=NO_BOUND)
        costs = cost_reasons(configuration, meter, most=NO_BOUND) | ({} if timed else learned.untimed_reasons())
    reasons = {"transpose": grid_reason(inside), **input_reasons,
               "seed": Reason(f"seed {request.seed} asked for", "the same seed repeats the same run", "command line"),
               **below(f"configurations.{NAME}", explain(configuration, design, pilots, meter.budget) | chosen | why | costs)}
    return replace(draft, configurations={NAME: configuration}, budget=meter.budget, reasons=reasons)


def _require_plannable(spec: DatasetSpec, fingerprint: Fingerprint, request: PlanRequest) -> None:
    if request.rules != "default":
        raise UsageError(f"rule book {request.rules!r} plans segmentations; a registration is planned by 'default'")
    for name in request.configurations:
        if name != NAME:
            raise UsageError(unknown_name(name, [NAME], "configuration"))
    if [entry.role for entry in spec.inputs] != ["image"]:
        raise DatasetError(f"dataset {spec.name!r} has the inputs {', '.join(entry.role for entry in spec.inputs)}; a "
                           "registration reads one input, which must be called image (several channels are channels of it)")
    if fingerprint.case_count < 2:
        raise DatasetError(f"dataset {spec.name!r} has {fingerprint.case_count} case(s); a pair needs two")
    if fingerprint.channel_count != channel_count(spec):
        raise DatasetError(f"dataset {spec.name!r}: the fingerprint was measured on {fingerprint.channel_count} channels and the "
                           f"specification has {channel_count(spec)}; measure it again")


def _design(spec: DatasetSpec, options: RegistrationOptions, fingerprint: Fingerprint, target: Target, *, ct: bool) -> Design:
    import numpy as np

    grid = plan_grid(fingerprint)
    extents = np.array(fingerprint.shapes_after_crop, float) * np.array(fingerprint.spacings_mm, float)
    wanted = np.percentile(extents, LARGEST_PERCENT, axis=0)[list(grid.transpose)] / np.array(grid.spacing_mm)
    flat = all(shape[grid.transpose[0]] == 1 for shape in fingerprint.shapes_after_crop)
    if not flat and any(shape[grid.transpose[0]] == 1 for shape in fingerprint.shapes_after_crop):
        raise DatasetError(f"dataset {spec.name!r} has slices and volumes; register images of the same dimensions",
                           code="E_GEOMETRY")
    cases = fingerprint.case_count
    pairs = cases * (cases - 1) if options.pairs == "cohort" else cases - 1
    many = pairs >= recipes.FEWEST_PAIRS and options.similarity != "patches"
    method = options.method if options.method != "auto" else "network" if many else "pair"
    largest = (float(wanted[0]), float(wanted[1]), float(wanted[2]))
    return Design(spec, options, grid, largest, pairs, 2 if flat else 3, method, ct,
                  fingerprint.properties.get("cases.label", 0) > 0, target)


def frame(design: Design, voxels: int, halvings: Sequence[int]) -> tuple[tuple[int, int, int], tuple[float, float, float]]:
    """Size and spacing of the frame that has at most about so many voxels; sizes are what the network's strides divide."""
    steps = coarsening(design, voxels)
    size, spacing = [], []
    for axis in range(3):
        spacing.append(design.grid.spacing_mm[axis] * steps[axis])
        divisor = 2**halvings[axis]
        size.append(math.ceil(design.largest[axis] / steps[axis] / divisor) * divisor if axis >= 3 - design.dims else 1)
    return (size[0], size[1], size[2]), (spacing[0], spacing[1], spacing[2])


def coarsening(design: Design, voxels: int) -> tuple[float, ...]:
    """By how much each axis is coarser in a frame of so many voxels than in the images; thick slices last."""
    own = design.grid.spacing_mm[3 - design.dims:]
    shrink = shrink_to(math.prod(design.largest[3 - design.dims:]) / voxels, own)
    return (*(1.0,) * (3 - design.dims), *axis_factors(shrink, own))


def halvings_of(design: Design, voxels: int, reach_mm: float) -> tuple[int, int, int]:
    """How often each axis is halved: until a voxel of the coarsest features is as large as what has to be found, at least twice.

    An axis keeps at least `SMALLEST_EDGE` voxels.
    """
    steps, found = coarsening(design, voxels), []
    for axis in range(3):
        if axis < 3 - design.dims:
            found.append(0)
            continue
        mm, size = design.grid.spacing_mm[axis] * steps[axis], design.largest[axis] / steps[axis]
        wanted = min(5, max(2, math.ceil(math.log2(max(reach_mm / mm, 1.0))) + 1))
        found.append(max(1, min(wanted, int(math.log2(max(size / recipes.SMALLEST_EDGE, 2.0))))))
    return (found[0], found[1], found[2])


def _sketch(design: Design) -> Configuration:
    """A configuration that knows its grid only; pilots are prepared by it."""
    return _draw(design, None, recipes.LADDER[0], 0.0)


def _pair_sized(design: Design, pilots: Pilots, budget: Budget) -> Configuration:
    """The configuration of pairs that are answered by themselves, as fine as time and memory allow."""
    def fine(voxels: int) -> Configuration:
        return _draw(design, pilots, replace(recipes.LADDER[0], voxels=voxels), pilots.reach_mm)

    part = fine(recipes.PAIR_VOXELS[budget.target]).network.similarity  # type: ignore[union-attr]
    return fine(learned.pair_voxels(part, budget.target, budget.memory_bytes))


def _sized(design: Design, pilots: Pilots, meter: Meter) -> tuple[Configuration, Reasons]:
    """The configuration of a network that fits into memory and, on a CPU, into the minutes."""
    target, minutes = meter.budget.target, meter.budget.minutes
    start = recipes.START if target == "cpu" else len(recipes.LADDER) - 1
    usable: list[Configuration] = []
    for rung in recipes.LADDER:
        one = _draw(design, pilots, rung, pilots.reach_mm)
        if usable and one.patch_size == usable[-1].patch_size and one.network == usable[-1].network:
            continue  # the whole of every case at its own resolution
        needed = meter.footprint(one).training_bytes
        if needed > meter.budget.memory_bytes:
            if not usable:
                raise ResourceError(f"configuration {NAME!r}: the smallest training step needs {needed / 1e9:.2f} GB, more than "
                                    f"the memory budget of {meter.budget.memory_bytes / 1e9:.2f} GB",
                                    hint=f"give at least --memory {needed / 1e9 + 0.01:.2f}GB")
            break
        usable.append(one)
        if minutes is None and len(usable) > start:
            break
    first = min(start, len(usable) - 1)
    if target == "cuda" or minutes is None:
        return usable[first], {}
    place = climb(len(usable), first, lambda rung: iterations_within(minutes, meter.seconds(usable[rung])))
    meter.seconds(usable[place])  # the cheapest may have been chosen unseen
    return usable[place], _size_reasons(usable, meter, minutes)


def idle_costs(design: Design) -> Reasons:
    """Why nothing is predicted of a plan that trains nothing."""
    reason = Reason(f"method {design.method}", "nothing is trained; the frame is as large as memory allows for a pair",
                    "tasks/registration/recipes.py")
    return dict.fromkeys(("predicted_peak_bytes", "predicted_inference_bytes", "predicted_seconds"), reason)


def with_length(configuration: Configuration, design: Design, meter: Meter) -> Configuration:
    """The same with the number of iterations: none where nothing is trained; else by minutes or by the number of cases."""
    if not (design.trains or design.learns_patches):
        return configuration
    target, minutes = meter.budget.target, meter.budget.minutes
    if minutes is None and design.learns_patches:
        count = recipes.PATCH_ITERATIONS
    elif minutes is None:
        wanted = math.ceil(recipes.ROUNDS * design.grid.case_count / configuration.batch_size)
        count = min(max(wanted, recipes.FEWEST_ITERATIONS[target]), recipes.MOST_ITERATIONS[target])
    else:
        count = iterations_within(minutes, meter.seconds(configuration))
    return replace(configuration, optimization=replace(
        configuration.optimization, iterations=count, iterations_per_epoch=epoch_length(count),
        warmup_iterations=math.ceil(recipes.WARMUP_SHARE * count),
        ema_decay=round(1 - 1 / max(10.0, recipes.EMA_SHARE * count), 6)))


def _size_reasons(timed: Sequence[Configuration], meter: Meter, minutes: float) -> Reasons:
    from autoseg.planning.budget import candidate_key

    known = {candidate_key(one): meter.budget.seconds_per_step(candidate_key(one)) for one in timed}
    times = "; ".join(f"{key}: {seconds:.4g} s per step" for key, seconds in known.items() if seconds is not None)
    reason = Reason(times, "from cheap to dear candidates, coarser and narrower while too few steps fit into "
                           f"{minutes:g} minutes", "candidates timed on this machine, see budget.json")
    return {"network.features": reason, "patch_size": reason, "spacing_mm": reason}


def similarity_of_pilots(design: Design, pilots: Pilots) -> SimilarityName:
    """Local correlation for CT of one patient, and where a line explains what there is to explain; else MIND.

    What is asked for goes first, and weights to start from bring their features. Squared differences and mutual information are
    for those who ask for them.
    """
    if design.options.similarity != "auto":
        return design.options.similarity
    if design.start is not None:
        return "features"
    if design.ct and design.options.pairs == "within_patient":
        return "lncc"
    return "lncc" if pilots.explained - pilots.linear < recipes.LARGEST_GAP[design.options.pairs] else "mind"


def wants_affine(pilots: Pilots, spacing_mm: float) -> bool:
    """Whether a network needs an affine part: pairs differ by more than small deformations after they were laid on each other."""
    return pilots.offset_mm > recipes.AFFINE_OFFSET_VOXELS * spacing_mm or pilots.scale > recipes.AFFINE_SCALE


def integration_steps(reach_mm: float, spacing_mm: float) -> int:
    """Doublings after which no step of the integration is longer than a quarter of a voxel."""
    return min(9, max(4, math.ceil(math.log2(max(reach_mm / spacing_mm / 0.25, 1.0)))))


def _draw(design: Design, pilots: Pilots | None, rung: Rung, reach_mm: float) -> Configuration:
    """A configuration of one rung, one iteration long; without pilots one that is only good for its grid."""
    halvings = halvings_of(design, rung.voxels, reach_mm)
    size, spacing = frame(design, rung.voxels, halvings)
    finest = min(spacing[3 - design.dims:])
    affine = pilots is not None and wants_affine(pilots, finest)
    network = _network(design, rung, halvings, size, affine=affine, steps=integration_steps(reach_mm, finest))
    similarity = "lncc" if pilots is None else similarity_of_pilots(design, pilots)
    part = learned.similarity_network(design, size, similarity)
    terms = {"similarity": 1.0, "smoothness": recipes.SMOOTHNESS[similarity]}
    if design.method == "supervised":
        terms = {"end_point": 1.0, "smoothness": terms["smoothness"]}
    if design.method == "implicit":
        terms["smoothness"] = recipes.IMPLICIT_WEIGHT
    if design.smoothness is not None:
        terms["smoothness"] = design.smoothness
    if design.labels:
        terms["dice"] = recipes.DICE_WEIGHT
    shape = tuple(want * have / mm for want, have, mm in
                  zip(design.grid.median_shape, design.grid.spacing_mm, spacing, strict=True))
    return Configuration(
        name=NAME, spacing_mm=spacing, median_shape=(shape[0], shape[1], shape[2]), patch_size=size,
        batch_size=recipes.BATCH, resampling=Resampling(), network=replace(network, similarity=part), loss=Loss(terms),
        start=learned.start_of(design.start) if design.start is not None and part is not None else None,
        augmentation=recipes.AUGMENTATION, optimization=_one_step(design),
        inference=replace(recipes.INFERENCE, memory_format=recipes.MEMORY_FORMAT[design.target]),
        task_values=learned.fitted_values(_values(design, pilots, similarity, finest), part, size, spacing))


def _one_step(design: Design) -> Optimization:
    """A run of one step, or of none where nothing is trained."""
    run = replace(recipes.OPTIMIZATION, memory_format=recipes.MEMORY_FORMAT[design.target])
    if design.method in ("pair", "implicit"):
        run = replace(run, iterations=0, ema_decay=None)
    return replace(run, learning_rate=recipes.PATCH_RATE) if design.learns_patches else run


def _network(design: Design, rung: Rung, halvings: tuple[int, int, int], size: tuple[int, int, int], *, affine: bool,
             steps: int) -> Registrar:
    """VoxelMorph's U-Net from half of the resolution, which is the velocity's, down to where the last axis cannot be halved.

    A frame that can be halved only once keeps a stage at full resolution, so that there is something to go back to.
    """
    dims = design.dims
    own = halvings[3 - dims:]
    halved = [tuple(2 if stage < most else 1 for most in own) for stage in range(max(own))]
    strides = halved if len(halved) > 1 else [(1,) * dims, *halved]
    count = len(strides)
    edge = min(side for side in size[3 - dims:])
    layers = max(1, min(len(recipes.AFFINE_FEATURES), int(math.log2(max(edge / recipes.SMALLEST_EDGE, 2.0)))))
    return Registrar(
        kind="voxelmorph", dims=dims, in_channels=design.channels,  # type: ignore[arg-type]
        features=(rung.features,) * count, strides=tuple(strides), kernel_sizes=((3,) * dims,) * count,
        convs_encoder=(1,) * count, convs_decoder=(1,) * (count - 1), integration_steps=steps, passes=recipes.NETWORK_PASSES,
        affine_features=recipes.AFFINE_FEATURES[:layers] if affine else (), norm="instance",
        answer_passes=recipes.ANSWER_PASSES if design.likeness_alone else recipes.NETWORK_PASSES,
        both_ways=design.likeness_alone)


def _values(design: Design, pilots: Pilots | None, similarity: SimilarityName, finest_mm: float) -> dict[str, Value]:
    window = min(recipes.LARGEST_WINDOW_VOXELS, max(recipes.SMALLEST_WINDOW_VOXELS, recipes.WINDOW_MM / finest_mm))
    values: dict[str, Value] = {
        "method": design.method, "alignment": "centres" if pilots is None else pilots.alignment,
        "any_two": design.options.pairs == "cohort", "similarity": similarity, "window_voxels": round(window, 3),
        "drawn_labels": min(recipes.MOST_DRAWN_LABELS, len(design.labels)),
        "refine_iterations": refine_iterations(design),
        "refine_rate_voxels": recipes.REFINE_RATE_VOXELS}
    if design.labels:
        values["label_values"] = design.labels
    if design.method == "supervised":
        reach = max(finest_mm, 0.0 if pilots is None else pilots.reach_mm)
        least, most = (round(reach * share, 3) for share in recipes.DEFORMATION_SHARES)
        values |= {"deformation_least_mm": least, "deformation_most_mm": most,
                   "deformation_widths_voxels": recipes.DEFORMATION_WIDTHS_VOXELS}
    if design.method == "pair":
        values |= pair_values(design.dims)
    if design.method == "implicit":
        values |= {**recipes.IMPLICIT, "implicit_points": recipes.IMPLICIT_POINTS[design.target]}  # type: ignore[dict-item]
    return values


def refine_iterations(design: Design) -> int:
    """Steps by which an answer is improved on the pair itself; none after labels were trained on, of which they know nothing."""
    if not design.trains:
        return 0
    if design.options.refine_iterations is not None:
        return design.options.refine_iterations
    return 0 if design.labels else recipes.REFINE_ITERATIONS


def pair_values(dims: int) -> dict[str, Value]:
    """How a pair of slices or volumes is optimised by itself."""
    levels = (*recipes.PAIR_LEVELS, recipes.FLAT_LEVEL) if dims == 2 else recipes.PAIR_LEVELS
    return {"pair_levels": levels, "pair_rate_voxels": recipes.PAIR_RATE_VOXELS, "pair_affine": recipes.PAIR_AFFINE,
            "affine_rate_voxels": recipes.AFFINE_RATE_VOXELS}
