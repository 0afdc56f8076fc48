from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from pair_cases import blobs, moved_slices, planned, shifted_pair, spec

from autoseg.core.case import Unit
from autoseg.core.task import Context
from autoseg.nn.warp import warp
from autoseg.stages.prepare import prepare_inputs, read_inputs
from autoseg.tasks.registration import TASK
from autoseg.tasks.registration.sample import draw_batch
from autoseg.tasks.registration.step import overlap_loss


class Stored:
    """Cases of a unit in memory, as a store shows them."""

    def __init__(self, unit, dataset, plan):
        self.plan, self.configuration = plan, plan.configurations["pairs"]
        self.held = {}
        for case in unit.cases:
            single = Unit(case.id, (case,), case.id)
            arrays, record = prepare_inputs(read_inputs(single, dataset), plan, self.configuration)
            arrays |= TASK.prepare_target(TASK.read_target(single, dataset), record, self.configuration)
            self.held[case.id] = arrays, record

    def array(self, case, name, box=None):
        return self.held[case][0][name]

    def names(self, case):
        return tuple(self.held[case][0])

    def record(self, case):
        return self.held[case][1]


def stored(unit, **options):
    dataset = spec(**options)
    return Stored(unit, dataset, planned(unit, dataset))


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    return shifted_pair(tmp_path_factory.mktemp("volumes"), steps=(0, 1, 2))


@pytest.fixture(scope="module")
def slices(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slices")
    return moved_slices(folder, blobs((8, 40, 44))[4:5], ("fixed", "moving"), size=(32, 36), down=2, labelled=True)


@pytest.mark.parametrize("options", [{}, {"use_labels": False}, {"method": "supervised"}])
@pytest.mark.parametrize("kind", ["volumes", "slices"])
def test_batches_are_shaped_as_blank_ones_and_a_step_has_gradients(kind, options, request):
    unit = request.getfixturevalue(kind)
    store = stored(unit, **options)
    configuration = store.configuration
    batch = draw_batch([unit], store, configuration, np.random.default_rng(0))
    blank = TASK.blank_batch(configuration)
    assert {name: (value.shape, value.dtype) for name, value in batch.items() if name != "cases"} == {
        name: (value.shape, value.dtype) for name, value in blank.items()}
    assert configuration.network.dims == (2 if kind == "slices" else 3)
    torch.manual_seed(0)
    network = TASK.build_network(configuration)
    [phase] = TASK.phases(configuration)
    phase.step(network, batch)["total"].backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in phase.parameters(network) if parameter.grad is not None)
    assert network.velocity.weight.grad.abs().max() > 0


def test_a_supervised_pair_is_an_image_and_what_its_known_displacement_makes_of_it(volumes):
    store = stored(volumes, method="supervised")
    batch = draw_batch([volumes], store, store.configuration, np.random.default_rng(1))
    assert batch["displacement"].abs().max() > 0.2
    assert torch.equal(batch["fixed"], warp(batch["moving"], batch["displacement"]))


def test_a_cohort_draws_both_orders_of_its_cases(volumes):
    store = stored(volumes)
    drawn = {draw_batch([volumes], store, store.configuration, np.random.default_rng(seed))["cases"][0] for seed in range(12)}
    assert drawn == {"moving to fixed", "fixed to moving"}
    listed = stored(volumes, pairs="within_patient", method="network")
    assert {draw_batch([volumes], listed, listed.configuration, np.random.default_rng(seed))["cases"][0]
            for seed in range(6)} == {"moving to fixed"}


def test_overlap_of_masks_that_one_voxel_of_shift_brings_together_is_perfect():
    fixed = torch.zeros(1, 2, 6, 6, dtype=torch.bool)
    moving = torch.zeros(1, 2, 6, 6, dtype=torch.bool)
    fixed[0, 0, 2:4, 1:3] = True  # 4 voxels; the second mask is in neither image and does not count
    moving[0, 0, 2:4, 2:4] = True
    shift = torch.zeros(1, 2, 6, 6)
    assert overlap_loss(fixed, moving, shift).item() == pytest.approx(0.5)
    shift[:, 1] = 1
    assert overlap_loss(fixed, moving, shift).item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("method", ["pair", "implicit"])
def test_slices_are_registered_without_training(slices, method):
    dataset = spec(method=method, use_labels=False)
    plan = planned(slices, dataset)
    configuration = plan.configurations["pairs"]
    few = {"implicit_widths": (32, 32), "implicit_iterations": 400, "implicit_points": 500, "implicit_rate": 1e-3} \
        if method == "implicit" else {"pair_levels": ((2, 4, 40), (1, 2, 30))}
    configuration = replace(configuration, task_values=configuration.task_values | few)
    arrays, record = prepare_inputs(read_inputs(slices, dataset), plan, configuration)
    found = TASK.restore(TASK.infer([], arrays, configuration, Context()), record, configuration, Context())
    # The moving image shows what the fixed one has two voxels further down: a fixed point is found 2 x 1.5 mm higher.
    assert found.displacement[:, 0, 6:-6, 6:-6].mean(axis=(1, 2)) == pytest.approx([0, -3.0, 0], abs=0.6)
