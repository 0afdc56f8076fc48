"""Planning of similarities that are learned: of the network that says how alike two images are, and of what trains it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from autoseg.core.budget import Target
from autoseg.core.errors import DatasetError, UsageError
from autoseg.core.networks import Classifier, Network, SimilarityNetwork, Start
from autoseg.core.plan import Configuration, InputPlan, Reason, Value
from autoseg.core.task import Starting
from autoseg.ops.pyramid import axis_factors
from autoseg.planning.explain import Reasons
from autoseg.tasks.registration import recipes
from autoseg.tasks.registration.pilot import Pilots
from autoseg.tasks.registration.spec import RegistrationOptions

if TYPE_CHECKING:
    from autoseg.tasks.registration.plan import Design

# Where weights go that come from another model: `nn.registrar.PairRegistrar.similarity`, and what U-Nets call their stages.
PART, ENCODER = "similarity.", "encoder."
# Encoders of U-Nets, by the kinds of networks that have one.
ENCODERS: dict[str, Literal["plain_encoder", "residual_encoder"]] = {
    "plain_unet": "plain_encoder", "residual_unet": "residual_encoder", "plain_encoder": "plain_encoder",
    "residual_encoder": "residual_encoder"}
# Voxels along an axis of the coarsest features that are compared: of one, an instance norm leaves nothing.
FEWEST_PLACES = 2
# Sides of a level over those of a patch: with a single patch, what moves at the border is not seen.
LEAST_ROOM = 1.5


def require_learnable(options: RegistrationOptions, start: Starting | None) -> None:
    """Raises a UsageError where options, and weights to start from, do not go together."""
    asked = options.similarity
    if start is not None and asked not in ("auto", "features"):
        raise UsageError(f"weights to start from give a registration its similarity, and 'similarity: {asked}' takes none",
                         hint="write 'similarity: features' into the options, or plan without --start")
    if start is None and asked == "features":
        raise UsageError("'similarity: features' compares what a trained network sees in two images, and no network was given",
                         hint="--start BUNDLE, a segmentation of such images; or another similarity in the options")
    if options.method == "implicit" and (asked == "patches" or start is not None):
        raise UsageError("method 'implicit' compares single points of two images, and a learned similarity needs what lies "
                         "around them", hint="take 'method: pair', or another similarity")
    if asked != "patches":
        return
    if options.method not in ("auto", "pair"):
        raise UsageError(f"with 'similarity: patches' training learns what is alike, and every pair is then optimised by itself; "
                         f"'method: {options.method}' would have to train a registration as well",
                         hint="take 'method: pair' (or leave it to auto), or another similarity")
    if options.pairs not in ("within_patient", "table"):
        raise UsageError("'similarity: patches' learns from images that lie on each other, such as other contrasts of a patient, "
                         f"and 'pairs: {options.pairs}' brings patients together",
                         hint="take 'pairs: within_patient' or 'pairs: table', or another similarity")


def require_aligned(options: RegistrationOptions, pilots: Pilots) -> None:
    """Raises a DatasetError where patches are to be learned from pairs that do not lie on each other as they are."""
    if options.similarity != "patches" or pilots.alignment == "positions":
        return
    found = "do not overlap in the world" if pilots.positions_correlation <= -1 else (
        f"correlate less where they lie in the world ({pilots.positions_correlation:.2f}) than with their centres together "
        f"({pilots.centres_correlation:.2f})")
    raise DatasetError(f"'similarity: patches' learns from pairs that lie on each other, and of {pilots.pairs:g} pairs that were "
                       f"looked at the images {found}", code="E_NOT_ALIGNED",
                       hint="align the images of each pair first and write them on one grid, list only such pairs in a table, or "
                            "take another similarity (mind, mutual_information)")


def similarity_network(design: Design, size: Sequence[int], similarity: str) -> SimilarityNetwork | None:
    """What is learned of likeness; None where a formula says it.

    Args:
        size: of the frame.
    """
    if similarity == "features":
        assert design.start is not None
        return encoder_of(design)
    return _classifier(design, size) if similarity == "patches" else None


def encoder_of(design: Design) -> SimilarityNetwork:
    """The first stages of the encoder of the model to start from.

    Raises:
        UsageError: it is no U-Net's, or sees other images than the registration does.
    """
    start = design.start
    assert start is not None
    other = start.network
    special = isinstance(other, Classifier) and (other.slices or other.attention != "none")
    if not isinstance(other, (Network, Classifier)) or other.kind not in ENCODERS or special:
        raise UsageError(f"{start.source} has a network of kind {other.kind!r}; features are compared of the encoder of a U-Net, "
                         "such as a segmentation has", hint="start from a segmentation of such images")
    if other.dims != design.dims:
        raise UsageError(f"{start.source} has a network of {other.dims} dimensions, and these images need one of {design.dims}",
                         hint="start from another model, or take another similarity")
    if other.in_channels != design.channels:
        raise UsageError(f"{start.source} reads {other.in_channels} channel(s), and these images have {design.channels}",
                         hint="start from a model of the same channels, or take another similarity")
    blocks = other.blocks if isinstance(other, Classifier) else other.convs_encoder
    stages = min(recipes.FEATURE_STAGES, len(other.features))
    return SimilarityNetwork(ENCODERS[other.kind], other.dims, other.in_channels, other.features[:stages], other.strides[:stages],
                             other.kernel_sizes[:stages], blocks[:stages], other.norm)


def require_same_normalization(start: Starting, inputs: Sequence[InputPlan]) -> None:
    """Raises a UsageError where the other model saw intensities of another kind."""
    schemes = [[channel.scheme for entry in found for channel in entry.channels] for found in (start.inputs, inputs)]
    if schemes[0] != schemes[1]:
        raise UsageError(f"{start.source} normalises its channels by {', '.join(schemes[0])}, and this plan by "
                         f"{', '.join(schemes[1])}; its features would be those of other intensities",
                         hint="say in both specifications what the channels are (CT, MRI), or take another similarity")


def start_of(start: Starting) -> Start:
    """The encoder's weights, into the part that is compared; it stays as it is."""
    return Start(start.weights, start.sha256, (ENCODER,), trained="fresh", into=PART)


def _classifier(design: Design, size: Sequence[int]) -> SimilarityNetwork:
    """Simonovsky's classifier; along an axis that has no room for its patch it sees single voxels.

    Raises:
        DatasetError: there is room along one axis only.
    """
    own = size[3 - design.dims:]
    wide = [side >= recipes.PATCH_VOXELS for side in own]
    if sum(wide) < 2:
        raise DatasetError(f"'similarity: patches' sees patches of {recipes.PATCH_VOXELS} voxels along two axes or more, and the "
                           f"images have {' x '.join(map(str, own))} voxels", code="E_GEOMETRY",
                           hint="take another similarity for images this small")
    return SimilarityNetwork(
        "patches", design.dims, design.channels, recipes.PATCH_FEATURES,  # type: ignore[arg-type]
        tuple(tuple(stride if has else 1 for has in wide) for stride in recipes.PATCH_STRIDES),
        tuple(tuple(3 if has else 1 for has in wide) for _ in recipes.PATCH_STRIDES), (1,) * len(recipes.PATCH_STRIDES))


def fitted_values(values: Mapping[str, Value], network: SimilarityNetwork | None, size: Sequence[int],
                  spacing_mm: Sequence[float]) -> dict[str, Value]:
    """The values of a configuration, with levels on which its learned similarity has room, and what trains a classifier.

    Args:
        size, spacing_mm: of the frame.
    """
    if network is None:
        return dict(values)
    most = largest_shrink(network, size[3 - network.dims:], spacing_mm[3 - network.dims:])
    found = dict(values)
    if "pair_levels" in found:
        found["pair_levels"] = tuple(level for level in recipes.PAIR_LEVELS if level[0] <= most)
    if found.get("pair_affine"):
        found["pair_affine"] = (min(recipes.PAIR_AFFINE[0], most), *recipes.PAIR_AFFINE[1:])
    if network.kind == "patches":
        least, largest = recipes.PATCH_SHIFTS_VOXELS
        found |= {"pair_affine": None, "patch_count": recipes.PATCH_COUNT, "patch_least_shift_voxels": least,
                  "patch_largest_shift_voxels": largest}
    return found


def largest_shrink(network: SimilarityNetwork, own: Sequence[int], spacing_mm: Sequence[float]) -> int:
    """By how much a pair may be shrunken so that patches, or places of the coarsest features, have room; at least 1.

    Args:
        own, spacing_mm: of the frame along the axes that the network sees.
    """
    needed = tuple(LEAST_ROOM * side if side > 1 else 1 for side in network.patch) if network.kind == "patches" else tuple(
        FEWEST_PLACES * math.prod(column) if side > 1 else 1
        for side, column in zip(own, zip(*network.strides, strict=True), strict=True))
    return max(1, max((shrink for shrink in {level[0] for level in recipes.PAIR_LEVELS} if all(
        round(side / factor) >= least for side, factor, least in
        zip(own, axis_factors(shrink, spacing_mm), needed, strict=True))), default=1))


def pair_voxels(network: SimilarityNetwork | None, target: Target, memory_bytes: int) -> int:
    """Most voxels of a pair that is optimised by itself: half a minute to three minutes of one core, and what fits into memory.

    Time and memory of a learned similarity go with its features at all places.
    """
    if network is None:
        return min(recipes.PAIR_VOXELS[target], memory_bytes // recipes.PAIR_BYTES_PER_VOXEL)
    kept = features_per_voxel(network)
    needed = recipes.PAIR_BYTES_PER_VOXEL + recipes.BYTES_PER_FEATURE * kept
    return min(recipes.PAIR_VOXELS[target], int(recipes.LEARNED_FEATURES[target] / kept), int(memory_bytes / needed))


def features_per_voxel(network: SimilarityNetwork) -> float:
    """Features after all convolutions, at all places, for each voxel of an image."""
    kept, places = 0.0, 1.0
    for features, stride, blocks in zip(network.features, network.strides, network.blocks, strict=True):
        places /= math.prod(stride)
        kept += features * places * (2 * blocks if network.kind == "residual_encoder" else blocks)
    return kept


def similarity_reasons(configuration: Configuration, design: Design) -> Reasons:
    """Reasons of what a learned similarity adds to a plan, or changes in it; nothing for a formula."""
    network = configuration.network.similarity  # type: ignore[union-attr]
    if network is None:
        return {}
    asked = f"asked for: {design.options.similarity}"
    patches = network.kind == "patches"
    weighed = recipes.SMOOTHNESS["patches" if patches else "features"]
    rule = "measured, see tasks/registration/recipes.py" if patches else \
        "as DeepSim's scripts for brains have it, twice what it is beside local correlation"
    common = {"loss.terms.smoothness": Reason(asked, f"smoothness {weighed:g} beside it: {rule}; derivatives are in mm by mm",
                                              recipes.SIMONOVSKY if patches else recipes.DEEPSIM)}
    if "pair_levels" in configuration.task_values:
        common["task_values.pair_levels"] = Reason(
            f"frame {configuration.patch_size}", "levels of the optimisation on which what is compared has room",
            recipes.CONVEXADAM)
    own = _patch_reasons if patches else _feature_reasons
    return common | own(configuration, design, network, asked)


def untimed_reasons() -> Reasons:
    """Why a plan that learns patches without a time budget predicts no seconds."""
    return {"predicted_seconds": Reason(
        "no minutes given", "not measured: optimising a pair with a learned similarity takes a minute or so; a time budget "
        "(--minutes) measures it", "a plan without a time budget is made in a minute or two")}


def _patch_reasons(configuration: Configuration, design: Design, network: SimilarityNetwork, asked: str) -> Reasons:
    trained = "a classifier of patches is trained on pairs as they lie; then every pair is optimised by itself with it"
    drawn = Reason(asked, "half of the patches are moved away, on one of the levels of the optimisation",
                   "measured, see tasks/registration/recipes.py")
    return {
        "network.similarity": Reason(
            f"frame {configuration.patch_size}", f"five convolutions that see {' x '.join(map(str, network.patch))} voxels of "
            f"both images; a single one along an axis without room for {recipes.PATCH_VOXELS}", recipes.SIMONOVSKY),
        "task_values.method": Reason(f"asked for: {design.options.method}", trained, recipes.SIMONOVSKY),
        "task_values.similarity": Reason(asked, trained, recipes.SIMONOVSKY),
        "task_values.pair_affine": Reason(asked, "none, as the pairs that it is taught on lie on each other as they are",
                                          "registration task"),
        **dict.fromkeys(("task_values.patch_count", "task_values.patch_least_shift_voxels",
                         "task_values.patch_largest_shift_voxels"), drawn),
        "optimization.learning_rate": Reason(asked, "of a network with few weights and large batches",
                                             "measured, see tasks/registration/recipes.py"),
        "loss": Reason(asked, "cross-entropy of aligned and misaligned patches; in the optimisation of pairs minus the logarithm "
                              "of the probability that patches are aligned, and smoothness", recipes.SIMONOVSKY)}


def _feature_reasons(configuration: Configuration, design: Design, network: SimilarityNetwork, asked: str) -> Reasons:
    start = design.start
    assert start is not None
    seen = (f"{start.source}; trained at {_millimetres(start.spacing_mm)} mm, compared here at "
            f"{_millimetres(configuration.spacing_mm)} mm")
    rule = "one minus the cosine between the features that another model's encoder has of both images"
    return {
        "network.similarity": Reason(start.source, f"the first {len(network.features)} stages of its encoder; deeper ones know "
                                                   "little of where something is", recipes.DEEPSIM),
        "task_values.similarity": Reason(f"{asked}; {seen}", rule, recipes.DEEPSIM),
        "start": Reason(seen, "the encoder whose features are compared; it is not trained any more, and all else starts fresh",
                        recipes.DEEPSIM)}


def _millimetres(spacing: Sequence[float | None]) -> str:
    return " x ".join("any" if mm is None else f"{mm:.3g}" for mm in spacing)
