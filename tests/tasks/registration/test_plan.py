from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from pair_cases import blobs, image, moved_slices, planned, shifted_pair, spec, write_case

from autoseg.core.errors import UsageError
from autoseg.core.plan import unexplained_values
from autoseg.core.task import PlanRequest
from autoseg.stages.plan import specification_digest
from autoseg.tasks.registration import recipes
from autoseg.tasks.registration.pilot import Pilots
from autoseg.tasks.registration.plan import (
    _require_plannable,
    coarsening,
    frame,
    integration_steps,
    similarity_of_pilots,
    wants_affine,
)
from autoseg.tasks.registration.spec import registration_options


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return shifted_pair(tmp_path_factory.mktemp("pair"), steps=(0, 1, 2))


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    """The weight of the smoothness is tried on pairs that are hardly optimised; nothing here depends on it."""
    monkeypatch.setattr(recipes, "PAIR_LEVELS", ((4, 4, 2), (1, 2, 2)))


def configuration(unit, minutes=None, **options):
    plan = planned(unit, spec(**options), minutes)
    assert unexplained_values(plan) == []
    return plan.configurations["pairs"]


def test_a_cohort_is_learned_by_a_network_and_a_few_pairs_are_optimised(pair):
    cohort, few = configuration(pair), configuration(pair, pairs="within_patient")
    assert cohort.task_values["method"] == "network" and cohort.optimization.iterations == 1000
    assert few.task_values["method"] == "pair" and few.optimization.iterations == 0 and few.predicted_peak_bytes is None
    assert few.task_values["refine_iterations"] == 0 and few.task_values["pair_levels"] == recipes.PAIR_LEVELS
    assert configuration(pair, minutes=10).optimization.iterations == 1200  # 600 s at the half second of the probe


def test_answers_are_refined_where_no_labels_were_trained_on_or_as_asked_for(pair):
    steps = {found: configuration(pair, **dict(found)).task_values["refine_iterations"] for found in (
        (), (("use_labels", False),), (("refine_iterations", 7),), (("use_labels", False), ("refine_iterations", 0)))}
    assert list(steps.values()) == [0, recipes.REFINE_ITERATIONS, 7, 0]


def test_the_frame_holds_the_cases_and_is_what_the_strides_divide(pair):
    found = configuration(pair)
    divisor = np.prod(found.network.strides, axis=0)
    assert all(size % step == 0 for size, step in zip(found.patch_size, divisor, strict=True))
    assert all(size >= case for size, case in zip(found.patch_size, (16, 20, 24), strict=True))
    assert found.spacing_mm == (2.0, 1.5, 1.0)


def test_a_frame_that_is_too_large_is_coarser_within_thick_slices_first():
    design = SimpleNamespace(grid=SimpleNamespace(spacing_mm=(8.0, 1.0, 1.0)), largest=(20.0, 320.0, 320.0), dims=3)
    assert coarsening(design, 20 * 80 * 80) == (1, 4, 4)
    assert frame(design, 20 * 80 * 80, (1, 2, 2)) == ((20, 80, 80), (8.0, 4.0, 4.0))
    flat = SimpleNamespace(grid=design.grid, largest=(1.0, 320.0, 320.0), dims=2)
    assert coarsening(flat, 160 * 160) == (1, 2, 2)


def test_the_network_looks_twice_in_the_memory_format_of_the_target(pair):
    found = configuration(pair)
    assert found.network.passes == 2
    assert (found.network.answer_passes, found.network.both_ways) == (2, False)  # trained on labels
    unlabelled = configuration(pair, use_labels=False).network
    assert (unlabelled.passes, unlabelled.answer_passes, unlabelled.both_ways) == (2, 3, True)
    known = configuration(pair, method="supervised").network  # learned from displacements, not from likeness
    assert (known.answer_passes, known.both_ways) == (2, False)
    assert found.optimization.memory_format == found.inference.memory_format == "channels_last"
    gpu = planned(pair, spec(), target="cuda").configurations["pairs"]
    assert gpu.optimization.memory_format == gpu.inference.memory_format == "contiguous"


def test_the_plan_says_why_it_took_a_similarity(pair):
    def reason(**options):
        return planned(pair, spec(**options)).reasons["configurations.pairs.task_values.similarity"].because

    assert "where a line explains all but 0.2" in reason() and "all but 0.1" in reason(pairs="within_patient")
    assert reason(similarity="mind") == "as asked for"


def test_a_cohort_may_bend_the_relation_of_intensities_more_than_pairs_of_unknown_contrast(pair):
    options = registration_options(spec())
    pilots = Pilots(4, 0.9, 0.5, offset_mm=1.0, scale=1.0, reach_mm=4.0, explained=0.75, linear=0.6)
    design = SimpleNamespace(options=options, start=None, ct=False)
    for pairs, similarity in (("cohort", "lncc"), ("table", "mind"), ("within_patient", "mind")):
        design.options = replace(options, pairs=pairs)
        assert similarity_of_pilots(design, pilots) == similarity
    design.options = options
    assert similarity_of_pilots(design, replace(pilots, linear=0.5)) == "mind"


def test_a_network_of_coordinates_draws_fewer_points_without_a_gpu(pair):
    points = {target: planned(pair, spec(method="implicit"), target=target).configurations["pairs"].task_values["implicit_points"]
              for target in ("cpu", "cuda")}
    assert points == {"cpu": 2_000, "cuda": 10_000}


def test_labels_are_trained_on_only_where_the_specification_allows_it(pair):
    used, unused = configuration(pair), configuration(pair, use_labels=False)
    assert "dice" in used.loss.terms and used.task_values["label_values"] == (2,) and used.task_values["drawn_labels"] == 1
    assert "dice" not in unused.loss.terms and "label_values" not in unused.task_values
    assert unused.task_values["drawn_labels"] == 0


def test_equal_contrast_asks_for_local_correlation_and_another_one_for_mind(pair, tmp_path):
    assert configuration(pair).task_values["similarity"] == "lncc"
    fixed, moving = pair.cases
    from autoseg.io.images import read_image

    voxels = np.abs(read_image(moving.inputs["image"]).voxels)  # bright where the other one is dark, too
    other = replace(pair, cases=(fixed, write_case(tmp_path, "moving", image(voxels))))
    assert configuration(other).task_values["similarity"] == "mind"
    assert configuration(other, similarity="mutual_information").task_values["similarity"] == "mutual_information"


def test_pairs_start_from_positions_where_these_fit_at_least_as_well(tmp_path):
    near = shifted_pair(tmp_path / "near", steps=(2, 0, 0), origin=(-4.0, 0.0, 0.0))  # its header says how it was moved
    assert configuration(near).task_values["alignment"] == "positions"
    far = shifted_pair(tmp_path / "far", origin=(500.0, 0.0, 0.0))
    assert configuration(far).task_values["alignment"] == "centres"


def test_an_affine_part_and_integration_steps_follow_from_what_has_to_be_moved():
    pilots = Pilots(4, 0.9, 0.5, offset_mm=2.9, scale=1.04, reach_mm=4.0, explained=0.8, linear=0.8)
    assert not wants_affine(pilots, 1.0)
    assert wants_affine(replace(pilots, offset_mm=3.1), 1.0) and wants_affine(replace(pilots, scale=1.06), 1.0)
    assert [integration_steps(reach, 1.0) for reach in (0.5, 4.0, 10.0, 1000.0)] == [4, 4, 6, 9]


def test_pairs_by_themselves_have_an_affine_stage_and_slices_a_velocity_at_full_resolution(pair, tmp_path):
    volumes = configuration(pair, method="pair").task_values
    assert volumes["pair_affine"] == recipes.PAIR_AFFINE and volumes["pair_levels"] == recipes.PAIR_LEVELS
    unit = moved_slices(tmp_path, blobs((1, 48, 56)), ("fixed", "moving"), size=(32, 40), down=2)
    assert configuration(unit, method="pair").task_values["pair_levels"] == (*recipes.PAIR_LEVELS, (1, 1, 30))


def test_what_cannot_be_planned_is_refused(pair):
    for request in (PlanRequest("t", "nnunet"), PlanRequest("t", configurations=("3d_fullres",))):
        with pytest.raises(UsageError):
            _require_plannable(spec(), None, request)


def test_asking_for_another_method_is_another_specification():
    assert specification_digest(spec()) != specification_digest(spec(method="pair"))
