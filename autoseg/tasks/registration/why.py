"""The reason of every value of a registration's configuration; paths are relative to the configuration."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from autoseg.core.budget import Budget
from autoseg.core.plan import Configuration, Reason
from autoseg.planning.explain import Reasons
from autoseg.tasks.registration import recipes
from autoseg.tasks.registration.learned import similarity_reasons
from autoseg.tasks.registration.pilot import Pilots, told

if TYPE_CHECKING:
    from autoseg.tasks.registration.plan import Design

RULES = "planning rules for registration, docs/registration.md"


def explain(configuration: Configuration, design: Design, pilots: Pilots, budget: Budget) -> Reasons:
    """Reasons that cover every value of a configuration but memory and seconds."""
    found = f"{pilots.pairs:g} coarse pairs: {told({name: value for name, value in asdict(pilots).items() if name != 'pairs'})}"
    return {
        "name": Reason("none", "there is one configuration", "registration task"),
        **_grid_reasons(configuration, design, budget), **_network_reasons(configuration, design, pilots, found),
        **_value_reasons(configuration, design, pilots, found), **_training_reasons(configuration, design, budget),
        **similarity_reasons(configuration, design)}


def _grid_reasons(configuration: Configuration, design: Design, budget: Budget) -> Reasons:
    largest = " x ".join(f"{size:.0f}" for size in design.largest)
    sized = f"95 % of the cases keep within {largest} voxels of {design.grid.spacing_mm} mm"
    return {
        "spacing_mm": Reason(
            sized, "the median spacing, coarser, and thick slices last, where the frame would have more voxels than memory, time "
                   "and the ladder of sizes allow", "tasks/registration/recipes.py"),
        "median_shape": Reason(f"{design.grid.case_count} shapes after cropping", "median over cases at this spacing",
                               "planning/spacing.py"),
        "patch_size": Reason(
            sized, "the frame holds nearly every case whole, rounded up to what the strides divide; what lies outside follows "
                   "its border", "tasks/registration/plan.py"),
        "batch_size": Reason("none", "one pair a step, as steps count more than pairs in them", recipes.VOXELMORPH),
        "resampling": Reason("none", "cubic splines for images, linear per label for label maps",
                             "nnU-Net 2.8.1 experiment planner"),
        "whole_image": Reason("none", "cases keep a spacing, which millimetres need", "registration task"),
        "oversample_foreground": Reason("none", "pairs are seen whole", "registration task"),
        "start": Reason("no weights were given", "fresh weights, drawn by the seed", recipes.VOXELMORPH)}


def _network_reasons(configuration: Configuration, design: Design, pilots: Pilots, found: str) -> Reasons:
    network = configuration.network
    unused = "" if design.method in ("network", "supervised") else "; this plan trains no network, so none of it is used"
    return {
        "network": Reason(f"frame {configuration.patch_size}",
                          "VoxelMorph's U-Net without its stage at full resolution, as the velocity is at half of it" + unused,
                          recipes.VOXELMORPH),
        "network.in_channels": Reason(f"{network.in_channels} channels in the dataset specification", "of each of the two images",
                                      "dataset specification"),
        "network.strides": Reason(
            found, "halved until a voxel of the deepest features is as large as the 95th percentile of how far corners have to "
                   f"move ({pilots.reach_mm:.3g} mm), at least twice", RULES),
        "network.passes": Reason(
            "none", "the network looks again at what it has warped and adds to its velocity: a Dice of 0.727 instead of 0.695 "
                    "after as many steps" + unused, "measured, see tasks/registration/recipes.py; Zhao et al. 2019"),
        **dict.fromkeys(("network.answer_passes", "network.both_ways"), Reason(
            f"method {design.method}, {len(design.labels)} labels trained on",
            "after learning from likeness alone an answer looks once more and is the mean of both directions: closer and "
            "hardly rougher. What labels have taught would be lost with it" + unused,
            "measured, see tasks/registration/recipes.py; Vercauteren et al. 2008 (symmetric log-domain demons)")),
        "network.integration_steps": Reason(
            found, "as many doublings as keep every step of the integration within a quarter of a voxel, 4 to 9", RULES),
        "network.affine_features": Reason(
            found, f"an affine part where centroids are more than {recipes.AFFINE_OFFSET_VOXELS:g} voxels apart or extents "
                   f"differ by more than {recipes.AFFINE_SCALE - 1:.0%}", RULES)}


def _value_reasons(configuration: Configuration, design: Design, pilots: Pilots, found: str) -> Reasons:
    asked = design.options
    methods = {"network": f"{design.pairs} pairs; from {recipes.FEWEST_PAIRS} on a network learns what each pair would need",
               "pair": f"{design.pairs} pairs, fewer than {recipes.FEWEST_PAIRS}: each is optimised by itself, and nothing is "
                       "trained",
               "supervised": "deformations that are drawn and known", "implicit": "a network of coordinates for each pair"}
    reasons = {
        "task_values": Reason("none", "steps and rates of the optimisation of single pairs, after an affine stage; at full "
                                      "resolution 30 steps, as 60 gained nothing, and for slices 30 more with a velocity as fine",
                              f"{recipes.CONVEXADAM}; measured, see tasks/registration/recipes.py"),
        "task_values.method": Reason(f"asked for: {asked.method}", methods[design.method], RULES),
        "task_values.alignment": Reason(
            found, "as they lie in the world where intensities correlate at least as well as with centres together", RULES),
        "task_values.any_two": Reason(f"pairs: {asked.pairs}", "of a cohort any two training cases make a pair",
                                      "dataset specification"),
        "task_values.similarity": Reason(f"{found}; asked for: {asked.similarity}", _similarity_rule(design, pilots), RULES),
        "task_values.window_voxels": Reason(
            f"spacing {configuration.spacing_mm} mm",
            f"a Gaussian of {recipes.WINDOW_MM:g} mm, {recipes.SMALLEST_WINDOW_VOXELS:g} to {recipes.LARGEST_WINDOW_VOXELS:g} "
            "voxels", "GradICON (Tian et al. 2023): a Gaussian window is smoother than a box"),
        "task_values.drawn_labels": Reason(f"{len(design.labels)} labels, use_labels {asked.use_labels}",
                                           f"at most {recipes.MOST_DRAWN_LABELS} a step: warped masks cost memory", RULES),
        "task_values.refine_iterations": Reason(
            f"method {design.method}, {len(design.labels)} labels trained on; asked for: {asked.refine_iterations}",
            "what a network answers is improved on the pair itself; not after training with labels, which this does not know",
            "GradICON (Tian et al. 2023) takes 50 steps; measured in benchmarks/README.md")}
    if design.method == "implicit":
        reasons |= {f"task_values.{name}": Reason("none", "IDIR's numbers, with fewer steps at a higher rate", recipes.IDIR)
                    for name in recipes.IMPLICIT}
        reasons["task_values.implicit_points"] = Reason(
            f"target {design.target}", "IDIR's 10,000 points a step, a fifth of them where there is no GPU",
            f"{recipes.IDIR}; measured, see tasks/registration/recipes.py")
    return reasons


def _similarity_rule(design: Design, pilots: Pilots) -> str:
    if design.options.similarity != "auto":
        return "as asked for"
    if design.start is not None:
        return "the features of the weights to start from"
    if design.ct and design.options.pairs == "within_patient":
        return "local correlation for CT of one patient, which shows the same tissues in the same units"
    pairs, gap = design.options.pairs, recipes.LARGEST_GAP[design.options.pairs]
    return (f"local correlation where a line explains all but {gap:g} of what any function explains (pairs: {pairs}; here "
            f"{pilots.explained - pilots.linear:.3f} less), else MIND")


def _training_reasons(configuration: Configuration, design: Design, budget: Budget) -> Reasons:
    run = configuration.optimization
    if design.learns_patches and budget.minutes is None:
        length = Reason("no minutes given", "as many batches as taught a classifier the contrasts of four patients",
                        "measured, see tasks/registration/recipes.py")
    elif design.method not in ("network", "supervised") and not design.learns_patches:
        length = Reason(f"method {design.method}", "no network is trained: every pair is optimised when it comes",
                        "registration task")
    elif budget.minutes is None:
        length = Reason(f"{design.grid.case_count} cases, no minutes given",
                        f"every case is seen {recipes.ROUNDS} times, within limits for {budget.target}",
                        "tasks/registration/recipes.py")
    else:
        length = Reason(f"{budget.minutes:g} minutes", "minutes x 60 / seconds per step",
                        "measured on this machine, see budget.json")
    labels = "" if not design.labels else f", and of {len(design.labels)} labels, which the specification allows to be used"
    return {
        "loss": Reason(f"method {design.method}", f"likeness of the images and smoothness of the velocity{labels}",
                       recipes.VOXELMORPH),
        "augmentation": Reason("none", "pairs are drawn anew in every step, in both directions", recipes.VOXELMORPH),
        "optimization": Reason(
            f"{run.iterations} iterations",
            "AdamW without decay of weights, warmed up over 5 % of the run, decayed to zero, weights averaged over 2 % of it; "
            "float32, as local correlation is a difference of large numbers", recipes.VOXELMORPH),
        **{f"{part}.memory_format": Reason(f"target {budget.target}", "where batches of one pair are convolved fastest",
                                           "tasks/registration/recipes.py") for part in ("optimization", "inference")},
        "optimization.iterations": length,
        "inference": Reason("none", "the frame is seen once and whole", "registration task")}
