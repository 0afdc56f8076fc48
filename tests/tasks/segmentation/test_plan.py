from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autoseg import pipeline
from autoseg.core.budget import Budget, CaseTime
from autoseg.core.errors import DatasetError, ResourceError, UsageError
from autoseg.core.fingerprint import CASE_WEIGHT, EDGES, Fingerprint, Moments
from autoseg.core.plan import Plan, unexplained_values
from autoseg.core.progress import silent
from autoseg.core.spec import ChannelSpec, DatasetSpec, InputSpec, LabelSpec, LayoutSpec, RegionSpec
from autoseg.core.task import PlanRequest, Probe
from autoseg.inference import sliding_window
from autoseg.inference.sliding_window import window_starts
from autoseg.io.values import read_value
from autoseg.nn.build import build_network
from autoseg.planning import costs, fitting
from autoseg.planning.case_memory import LARGEST_SUMS_BYTES
from autoseg.planning.costs import LARGEST_TRIED, pass_count
from autoseg.planning.explain import explain
from autoseg.tasks.segmentation.plan import RAREST_FREQUENCY, frequency_bias, make_plan
from autoseg.workspace import open_workspace

GB = 10**9


def make_spec(labels, channels=("MR",)):
    return DatasetSpec("Toy", "segmentation", (LayoutSpec("flat", {"image": ("{case}_*.nii.gz",)}),),
                       (InputSpec(channels=tuple(ChannelSpec(name) for name in channels)),),
                       tuple(LabelSpec(f"label{value}", value) for value in range(1, labels + 1)))


def make_fingerprint(shape, spacing, cases, channels=1):
    moments = Moments(10, 40.0, 1700.0, 40.0, 40.0, (40.0,) * 7)
    histogram = {int((EDGES < 40).sum()) - 1: CASE_WEIGHT * cases}
    return Fingerprint((shape,) * cases, (spacing,) * cases, (0.9,) * cases, ((moments,) * channels,) * cases,
                       (histogram,) * channels, {})


def refuse_timing(plan, configuration):
    raise AssertionError(f"{configuration.name} was timed")


def small(configuration):
    return 10**6, 10**5


def case_times(plan, configuration):
    """Half a second to prepare a million voxels, a quarter per window, 7 to compile; half of the windows hold one value."""
    shape = tuple(2.0 * size for size in configuration.patch_size)
    return CaseTime("", 0.5, 0.25, 1e6, shape, pass_count(configuration, shape) / 2, 3.0, 5.0, 7.0)


def never(plan, configuration):
    raise ResourceError("this cannot be tried")


REFUSE = Probe(refuse_timing, small, refuse_timing)
UNTRIED = Probe(never, small, never)


def by_voxels(configuration):
    """Memory that grows with the batch's voxels and the width: 100 bytes for each feature of the first stage."""
    voxels = math.prod(configuration.patch_size) * configuration.batch_size
    return voxels * configuration.network.features[0] * 100, 10**6


def by_cost(seconds_per_million):
    """A probe whose steps take time by voxels and width, less in bf16 and channels_last."""
    def seconds(plan, configuration):
        voxels = math.prod(configuration.patch_size) * configuration.batch_size
        run = configuration.optimization
        factor = (0.6 if run.precision == "bf16" else 1.0) * (0.9 if run.memory_format == "channels_last" else 1.0)
        return voxels / 1e6 * configuration.network.features[0] / 16 * seconds_per_million * factor
    return Probe(seconds, small, case_times)


HIPPOCAMPUS = make_fingerprint((36, 50, 35), (1.0, 1.0, 1.0), 200)
LIVER = make_fingerprint((482, 512, 512), (1.0, 0.7676, 0.7676), 131)
PROSTATE = make_fingerprint((20, 320, 320), (3.6, 0.625, 0.625), 32, channels=2)
NNUNET = PlanRequest(name="nnunet", rules="nnunet")

# stages, then the sizes of reference plans: 3-D patch and batch, 2-D patch and batch
GOLDEN = {
    "Hippocampus 260": ((36, 50, 35), (1, 1, 1), 260, 2, 4, (40, 56, 40), 9, 4, (56, 40), 366),
    "Hippocampus 200": ((36, 50, 35), (1, 1, 1), 200, 2, 4, (40, 56, 40), 7, 4, (56, 40), 281),
    "BraTS": ((138, 169, 138), (1, 1, 1), 1251, 3, 6, (128, 128, 128), 2, 6, (192, 160), 105),
    "ACDC": ((18, 237, 208), (5, 1.5625, 1.5625), 200, 3, 6, (20, 256, 224), 4, 6, (256, 224), 56),
    "Liver": ((482, 512, 512), (1, 0.7676, 0.7676), 131, 2, 6, (128, 128, 128), 2, 8, (512, 512), 12),
    "Prostate": ((20, 320, 320), (3.6, 0.625, 0.625), 32, 2, 7, (20, 320, 256), 2, 7, (320, 320), 32),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_nnunet_plans_of_known_datasets_are_repeated(name):
    shape, spacing, cases, labels, stages_3d, patch_3d, batch_3d, stages_2d, patch_2d, batch_2d = GOLDEN[name]
    plan = make_plan(make_spec(labels), make_fingerprint(shape, spacing, cases), Budget("cpu", 2 * GB), NNUNET, REFUSE)
    full, flat = plan.configurations["3d_fullres"], plan.configurations["2d"]
    assert (full.patch_size, full.batch_size, len(full.network.strides)) == (patch_3d, batch_3d, stages_3d)
    assert (flat.patch_size, flat.batch_size, len(flat.network.strides)) == ((1, *patch_2d), batch_2d, stages_2d)
    assert (full.network.out_channels, full.task_values) == (labels + 1, {"label_count": labels})


def test_nnunet_network_of_prostate_is_repeated_in_full():
    plan = make_plan(make_spec(2, ("T2", "ADC")), PROSTATE, Budget("cuda", 8 * GB), NNUNET, REFUSE)
    network = plan.configurations["3d_fullres"].network
    assert network.strides == ((1, 1, 1), (1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2), (1, 2, 2))
    assert network.kernel_sizes == ((1, 3, 3), (1, 3, 3)) + ((3, 3, 3),) * 5
    assert network.features == (32, 64, 128, 256, 320, 320, 320)
    assert (network.in_channels, network.out_channels, network.deep_supervision) == (2, 3, True)
    assert (network.convs_encoder, network.convs_decoder) == ((2,) * 7, (2,) * 6)
    flat = plan.configurations["2d"].network
    assert flat.features == (32, 64, 128, 256, 512, 512, 512)
    assert (flat.dims, flat.strides, flat.kernel_sizes) == (2, ((1, 1),) + ((2, 2),) * 6, ((3, 3),) * 7)


def test_nnunet_plan_does_not_depend_on_memory_and_minutes():
    spec = make_spec(2)
    poor = make_plan(spec, LIVER, Budget("cpu", GB, 5.0), NNUNET, REFUSE)
    rich = make_plan(spec, LIVER, Budget("cpu", 80 * GB), NNUNET, REFUSE)
    assert without_predictions(poor).configurations == without_predictions(rich).configurations


def test_nnunet_trains_in_half_precision_on_cuda_only():
    spec = make_spec(2)
    cpu, cuda = (make_plan(spec, HIPPOCAMPUS, Budget(target, 8 * GB, supports_bf16=True), NNUNET, REFUSE)
                 .configurations["3d_fullres"] for target in ("cpu", "cuda"))
    assert (cpu.optimization.precision, cpu.inference.precision) == ("fp32", "fp32")
    assert (cuda.optimization.precision, cuda.inference.precision) == ("fp16", "fp16")


def test_nnunet_takes_dice_over_the_batch_in_2d_and_where_it_would_add_a_cascade():
    spec = make_spec(2)
    liver = make_plan(spec, LIVER, Budget("cpu", 8 * GB), NNUNET, REFUSE)
    small = make_plan(spec, HIPPOCAMPUS, Budget("cpu", 8 * GB), NNUNET, REFUSE)
    assert liver.configurations["3d_fullres"].loss.batch_dice
    assert "low-resolution" in liver.reasons["configurations.3d_fullres.loss.batch_dice"].because
    assert "2.5 x 1.92 x 1.92 mm" in liver.reasons["configurations.3d_fullres.loss.batch_dice"].because
    assert not small.configurations["3d_fullres"].loss.batch_dice
    assert small.configurations["2d"].loss.batch_dice


def test_nnunet_prediction_and_loss():
    configuration = make_plan(make_spec(2), HIPPOCAMPUS, Budget("cpu", 8 * GB), NNUNET, REFUSE).configurations["2d"]
    inference = configuration.inference
    assert (inference.tile_step, inference.gaussian_sigma, inference.tiles_per_batch) == (0.5, 0.125, 1)
    assert (inference.mirror, inference.mirror_axes) == (True, (1, 2))
    assert (configuration.loss.terms, configuration.loss.smooth) == ({"dice": 1.0, "cross_entropy": 1.0}, 1e-5)
    assert configuration.oversample_foreground == 0.33


def test_a_coarse_axis_that_is_not_the_first_becomes_the_first_model_axis():
    turned = make_fingerprint((320, 300, 20), (0.625, 0.7, 3.6), 32)
    plan = make_plan(make_spec(2), turned, Budget("cpu", 8 * GB), NNUNET, REFUSE)
    full, flat = plan.configurations["3d_fullres"], plan.configurations["2d"]
    assert plan.transpose == (2, 0, 1)
    assert (full.spacing_mm, full.median_shape) == ((3.6, 0.625, 0.7), (20, 320, 300))
    assert (flat.spacing_mm, flat.median_shape) == ((None, 0.625, 0.7), (20, 320, 300))


def test_slices_keep_their_own_number_in_the_2d_configuration():
    cases = make_fingerprint((40, 100, 90), (2.0, 1.0, 1.1), 3) + make_fingerprint((90, 100, 90), (1.0, 1.0, 1.1), 2)
    plan = make_plan(make_spec(1), cases, Budget("cpu", 8 * GB), NNUNET, REFUSE)
    assert plan.configurations["3d_fullres"].median_shape == (40, 100, 90)
    assert plan.configurations["3d_fullres"].spacing_mm[0] == 2.0
    assert plan.configurations["2d"].median_shape == (40, 100, 90)


@pytest.mark.parametrize("rules", ["nnunet", "default"])
@pytest.mark.parametrize("target", ["cpu", "cuda"])
@pytest.mark.parametrize("minutes", [None, 5.0])
@pytest.mark.parametrize("fingerprint", [HIPPOCAMPUS, LIVER], ids=["small", "large"])
def test_every_planned_value_has_a_reason_with_a_source(rules, target, minutes, fingerprint):
    budget = Budget(target, 8 * GB, minutes, supports_bf16=True)
    plan = make_plan(make_spec(2, ("CT",)), fingerprint, budget, PlanRequest(rules=rules), by_cost(2.0))
    assert unexplained_values(plan) == []
    assert [row for row in explain(plan) if not (row.inputs and row.because and row.source)] == []


def test_default_plan_without_minutes_times_the_first_configuration_and_only_to_predict():
    budget = Budget("cpu", 8 * GB, supports_bf16=True)
    plan, slow, untried = (make_plan(make_spec(2), HIPPOCAMPUS, budget, PlanRequest(), probe)
                           for probe in (by_cost(1.0), by_cost(50.0), UNTRIED))
    assert [entry.candidate.split()[0] for entry in plan.budget.measured] == ["3d_fullres"]
    assert [made.predicted_seconds is None for made in plan.configurations.values()] == [False, True]
    assert untried.configurations["3d_fullres"].predicted_seconds is None
    for other in (slow, untried):
        for name, made in plan.configurations.items():
            assert replace(other.configurations[name], predicted_seconds=made.predicted_seconds) == made
    assert make_plan(make_spec(2), HIPPOCAMPUS, plan.budget, PlanRequest(), REFUSE) == plan
    configuration = plan.configurations["3d_fullres"]
    assert (configuration.patch_size, configuration.batch_size) == ((40, 56, 40), 2)
    assert configuration.network.features == (8, 32, 64, 128)
    assert configuration.optimization.iterations == math.ceil(100 * 200 * 36 * 50 * 35 / (2 * 40 * 56 * 40))
    assert (configuration.optimization.precision, configuration.inference.mirror) == ("bf16", False)


def test_default_plan_fills_the_minutes_with_the_fastest_arithmetic():
    request = PlanRequest(configurations=("3d_fullres",))
    plan = make_plan(make_spec(2), HIPPOCAMPUS, Budget("cpu", 8 * GB, 5.0, supports_bf16=True), request, by_cost(5.0))
    optimization = plan.configurations["3d_fullres"].optimization
    seconds = 2 * 40 * 56 * 40 / 1e6 * 8 / 16 * 5.0 * 0.6 * 0.9
    assert (optimization.precision, optimization.memory_format) == ("bf16", "channels_last")
    assert optimization.iterations == int(300 / seconds) == 1240
    assert f"{seconds:.4g} s per step" in plan.reasons["configurations.3d_fullres.network.features"].inputs


def test_bf16_is_not_even_tried_where_the_processor_lacks_it():
    plan = make_plan(make_spec(2), HIPPOCAMPUS, Budget("cpu", 8 * GB, 5.0), PlanRequest(), by_cost(5.0))
    assert all("fp32" in entry.candidate for entry in plan.budget.measured)


def test_a_slow_machine_takes_smaller_steps_and_a_fast_one_a_wider_network():
    budget, request = Budget("cpu", 8 * GB, 20.0), PlanRequest(configurations=("3d_fullres",))
    slow, usual, fast = (make_plan(make_spec(2), LIVER, budget, request, by_cost(cost)).configurations["3d_fullres"]
                         for cost in (15.0, 3.0, 0.1))
    sizes = [math.prod(c.patch_size) * c.batch_size for c in (slow, usual, fast)]
    assert sizes[0] < sizes[1] <= 2**20
    assert [c.network.features[0] for c in (usual, fast)] == [8, 16]
    assert slow.optimization.iterations >= 500


def test_2d_networks_of_a_cpu_stay_narrow_where_the_image_is_coarse():
    """Doubling to 512 features made each coarse stage as dear as the fine ones."""
    flat = make_fingerprint((1, 256, 256), (1.0, 1.0, 1.0), 400)
    plan = make_plan(make_spec(1), flat, Budget("cpu", 8 * GB, 10.0), PlanRequest(), by_cost(1.0))
    assert plan.configurations["2d"].network.features == (8, 32, 64, 128, 128, 128, 128)


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_a_second_run_with_the_measured_budget_times_nothing_and_gives_the_same_plan(target):
    spec, budget = make_spec(2), Budget(target, 8 * GB, 7.0, supports_bf16=True)
    first = make_plan(spec, LIVER, budget, PlanRequest(), by_cost(1.0))
    assert first.budget.measured
    assert make_plan(spec, LIVER, first.budget, PlanRequest(), REFUSE) == first


@pytest.mark.parametrize("factor", [0.8, 1.2, 3.0, 30.0])
def test_minutes_are_kept_where_a_long_run_takes_stronger_augmentation(factor):
    """Few cases are drawn often; strong augmentation makes a step dearer, or, by chance of the clock, cheaper."""
    few = make_fingerprint((60, 80, 80), (1.0, 1.0, 1.0), 6)
    plain = by_cost(1.0)

    def seconds(plan, configuration):
        return plain.seconds(plan, configuration) * (factor if configuration.augmentation.elastic_probability else 1.0)

    probe = Probe(seconds, small, plain.case_seconds)
    plan = make_plan(make_spec(2), few, Budget("cpu", 8 * GB, 20.0), PlanRequest(configurations=("3d_fullres",)), probe)
    configuration = plan.configurations["3d_fullres"]
    taken = configuration.optimization.iterations * seconds(plan, configuration)
    assert taken <= 20 * 60
    assert configuration.predicted_seconds.training == pytest.approx(taken)
    if configuration.augmentation.elastic_probability:
        assert taken > 19.8 * 60


def test_the_probe_gets_a_draft_with_grid_and_normalisation():
    seen = []

    def seconds(plan, configuration):
        seen.append((plan.transpose, plan.inputs[0].channels[0].scheme, configuration.name))
        return 1.0

    turned = make_fingerprint((320, 300, 20), (0.625, 0.7, 3.6), 32)
    probe = Probe(seconds, small, case_times)
    make_plan(make_spec(2, ("CT",)), turned, Budget("cpu", 8 * GB, 5.0), PlanRequest(configurations=("2d",)), probe)
    assert set(seen) == {((2, 0, 1), "ct", "2d")}


def test_cuda_memory_scales_patch_or_batch_of_nnunets_network():
    small, large = (make_plan(make_spec(2), LIVER, Budget("cuda", memory * GB), PlanRequest(), REFUSE)
                    .configurations["3d_fullres"] for memory in (8, 40))
    assert (small.patch_size, small.network.features[0]) == ((128, 128, 128), 32)
    assert math.prod(large.patch_size) > 128**3


def test_only_the_asked_configurations_are_planned():
    plan = make_plan(make_spec(2), HIPPOCAMPUS, Budget("cpu", GB), PlanRequest(configurations=("2d",)), UNTRIED)
    assert list(plan.configurations) == ["2d"]


def test_2d_images_have_no_3d_configuration():
    flat = make_fingerprint((1, 300, 200), (1.0, 0.5, 0.4), 30)
    assert list(make_plan(make_spec(1), flat, Budget("cpu", GB), NNUNET, REFUSE).configurations) == ["2d"]
    with pytest.raises(UsageError, match="more than one slice"):
        make_plan(make_spec(1), flat, Budget("cpu", GB), PlanRequest(configurations=("3d_fullres",)), REFUSE)


@pytest.mark.parametrize(("request_", "match"), [
    (PlanRequest(rules="nnunett"), "Did you mean 'nnunet'"),
    (PlanRequest(configurations=("3d_fulres",)), "Did you mean '3d_fullres'"),
])
def test_unknown_names_are_refused_with_the_nearest_one(request_, match):
    with pytest.raises(UsageError, match=match):
        make_plan(make_spec(2), HIPPOCAMPUS, Budget("cpu", GB), request_, REFUSE)


def test_a_fingerprint_of_other_channels_is_refused():
    with pytest.raises(DatasetError, match="1 channels and .* has 2"):
        make_plan(make_spec(2, ("T1", "T2")), HIPPOCAMPUS, Budget("cpu", GB), PlanRequest(), REFUSE)


def test_a_specification_without_labels_is_refused():
    with pytest.raises(DatasetError, match="no labels"):
        make_plan(make_spec(0), HIPPOCAMPUS, Budget("cpu", GB), PlanRequest(), REFUSE)


def test_outputs_start_from_the_frequencies_of_the_labels():
    counted = replace(HIPPOCAMPUS, properties={"voxels.label_0": 80, "voxels.label_1": 15, "voxels.label_2": 5})
    bias = np.array(frequency_bias(counted, 2))
    assert np.exp(bias) / np.exp(bias).sum() == pytest.approx([0.80, 0.15, 0.05], abs=1e-3)
    assert bias.sum() == pytest.approx(0, abs=2e-3)


def test_a_label_that_never_occurs_starts_as_a_rare_one():
    counted = replace(HIPPOCAMPUS, properties={"voxels.label_0": 10**9, "voxels.label_1": 1})
    assert np.diff(frequency_bias(counted, 1)) == pytest.approx([math.log(RAREST_FREQUENCY)], abs=2e-3)


def shrunk_to(gigabytes, target="cpu", fingerprint=LIVER, forward=lambda configuration: 10**6):
    """A plan within the memory given, of cases that take nothing beside the network but what `forward` says."""
    probe = Probe(never, lambda configuration: (by_voxels(configuration)[0], forward(configuration)), never)
    with pytest.MonkeyPatch.context() as patch:
        for module in (fitting, costs):
            patch.setattr(module, "volume_bytes", lambda *asked: 0)
            patch.setattr(module, "inference_bytes", lambda configuration, forward_bytes, *asked: forward_bytes)
        return make_plan(make_spec(2), fingerprint, Budget(target, int(gigabytes * GB)), PlanRequest(), probe)


def test_the_patch_shrinks_until_the_predicted_peak_fits_and_no_further():
    plan = shrunk_to(0.5)
    full = plan.configurations["3d_fullres"]
    assert full.predicted_peak_bytes == by_voxels(full)[0] <= 0.5 * GB
    # 100 bytes x 8 features x 2 samples: 312,500 voxels fit, the next larger patch of the rule does not
    assert 312_500 * 0.6 < math.prod(full.patch_size) <= 312_500
    assert full.batch_size == 2
    why = plan.reasons["configurations.3d_fullres.patch_size"]
    assert "of 0.5 GB" in why.inputs and "predicted peak fits" in why.because


@pytest.mark.parametrize("shape", [(155, 240, 240), (482, 512, 512), (1, 256, 256), (24, 256, 256)])
def test_the_smallest_patch_that_is_tried_is_still_a_unet(shape):
    """Budgets below what the planned patch needs: each gives a plan of two stages and more, or says what the least needs."""
    spacing = (6.5, 0.8, 0.8) if shape[0] == 24 else (1.0, 1.0, 1.0)
    for gigabytes in (0.3, 0.03, 0.003, 0.0003):
        try:
            plan = shrunk_to(gigabytes, fingerprint=make_fingerprint(shape, spacing, 20))
        except ResourceError as error:
            assert "--memory" in error.hint
        else:
            for made in plan.configurations.values():
                assert len(made.network.features) >= 2
                build_network(made.network)


def test_the_batch_shrinks_before_the_patch():
    plan, whole = shrunk_to(0.2, fingerprint=HIPPOCAMPUS), shrunk_to(50, fingerprint=HIPPOCAMPUS)
    few, many = plan.configurations["2d"], whole.configurations["2d"]
    assert few.patch_size == many.patch_size
    assert few.batch_size == min(many.batch_size, int(0.2 * GB / (100 * few.network.features[0] * 56 * 40)))
    narrow = shrunk_to(0.03, fingerprint=HIPPOCAMPUS).configurations["2d"]
    assert narrow.batch_size == int(0.03 * GB / (100 * few.network.features[0] * 56 * 40)) < few.batch_size
    assert "configurations.2d.patch_size" in plan.reasons


def test_what_fits_is_not_changed_by_its_memory():
    assert shrunk_to(8).configurations["3d_fullres"].patch_size == shrunk_to(80).configurations["3d_fullres"].patch_size


def test_a_budget_below_the_smallest_step_is_refused_with_what_that_needs():
    with pytest.raises(ResourceError, match=r"needs 0\.0\d GB, more than the memory budget of 0\.00 GB") as raised:
        shrunk_to(0.0001)
    assert "--memory" in raised.value.hint


def by_windows(configuration):
    """Prediction that takes 8 bytes for every voxel of every window."""
    return 8 * math.prod(configuration.patch_size) * configuration.inference.tiles_per_batch


def test_windows_that_are_predicted_together_become_fewer_before_the_patch_does():
    many = shrunk_to(50).configurations["2d"]
    voxels = math.prod(many.patch_size)
    assert many.inference.tiles_per_batch == many.batch_size == 4
    plan = shrunk_to(1, forward=lambda c: by_windows(c) * GB // (8 * 3 * voxels))
    few = plan.configurations["2d"]
    assert (few.inference.tiles_per_batch, few.patch_size, few.batch_size) == (3, many.patch_size, many.batch_size)
    why = plan.reasons["configurations.2d.inference.tiles_per_batch"]
    assert "with 4 windows" in why.inputs and "peak of prediction fits" in why.because
    assert few.predicted_inference_bytes == GB


def test_the_patch_shrinks_where_one_window_does_not_fit_and_no_further():
    def forward(configuration):
        return 3000 * math.prod(configuration.patch_size)

    budget = 0.5
    plan = shrunk_to(budget, forward=forward)
    full, free = plan.configurations["3d_fullres"], shrunk_to(budget).configurations["3d_fullres"]
    assert full.inference.tiles_per_batch == 1 and free.inference.tiles_per_batch == 2
    assert 0.6 * budget * GB < full.predicted_inference_bytes == forward(full) <= budget * GB < forward(free)
    assert full.predicted_peak_bytes <= budget * GB
    assert "one window did not fit" in plan.reasons["configurations.3d_fullres.patch_size"].because


def test_a_case_that_no_patch_makes_fit_is_refused_with_what_it_needs():
    with pytest.raises(ResourceError, match=r"prediction of a median case, with .* needs 3\.00 GB, more than") as raised:
        shrunk_to(2.0, forward=lambda configuration: 3 * GB)
    assert raised.value.hint == "give at least --memory 3.01GB"


def test_nnunets_plan_keeps_its_count_whatever_is_predicted():
    probe = Probe(refuse_timing, lambda configuration: (100 * GB, GB), refuse_timing)
    plan = make_plan(make_spec(2), LIVER, Budget("cpu", GB), NNUNET, probe)
    assert plan.configurations["3d_fullres"].patch_size == (128, 128, 128)
    assert plan.configurations["3d_fullres"].predicted_peak_bytes == 100 * GB


def test_inference_adds_image_and_outputs_to_the_windows():
    plan = make_plan(make_spec(2), LIVER, Budget("cpu", 2 * GB), PlanRequest(), REFUSE)
    made = plan.configurations["3d_fullres"]
    # a case is 1 / 0.9 of its crop, one channel in 4 bytes and labels in 1; on the model grid the channel again, sums of three
    # outputs for the planes of a patch, and as many of them as 2^27 bytes hold once more
    stored, plane = int(482 * 512 * 512 / 0.9 * (4 + 1)), 512 * 512 * 4
    planes = min(made.patch_size[0], 2**27 // (3 * plane))
    expected = 10**5 + stored + plane * (482 + 3 * made.patch_size[0] + 3 * planes)
    assert made.predicted_inference_bytes == pytest.approx(expected, abs=2)
    assert LARGEST_SUMS_BYTES == sliding_window.LARGEST_SUMS_BYTES


def test_on_a_gpu_the_case_as_it_is_stored_lies_elsewhere():
    cpu, cuda = (make_plan(make_spec(2), LIVER, Budget(target, 8 * GB, 1.0), PlanRequest(rules="nnunet"), REFUSE)
                 .configurations["3d_fullres"].predicted_inference_bytes for target in ("cpu", "cuda"))
    assert cpu - cuda == pytest.approx(482 * 512 * 512 / 0.9 * (4 + 1), abs=2)


def test_memory_is_not_predicted_for_a_quick_plan_that_surely_fits():
    """It would take longer than the rest of the plan."""
    refuse_all = Probe(never, lambda configuration: pytest.fail("memory was predicted"), never)
    plan = make_plan(make_spec(2), HIPPOCAMPUS, Budget("cpu", 8 * GB), PlanRequest(), refuse_all)
    assert plan.configurations["3d_fullres"].predicted_peak_bytes is None
    assert "which fits" in plan.reasons["configurations.3d_fullres.predicted_peak_bytes"].because
    assert unexplained_values(plan) == []
    scarce = make_plan(make_spec(2), HIPPOCAMPUS, Budget("cpu", GB // 2), PlanRequest(), UNTRIED)
    assert scarce.configurations["3d_fullres"].predicted_peak_bytes == 10**6


def test_times_are_the_stated_sums():
    request = PlanRequest(configurations=("3d_fullres",))
    plan = make_plan(make_spec(2), HIPPOCAMPUS, Budget("cpu", 8 * GB, 5.0), request, by_cost(5.0))
    seconds = plan.configurations["3d_fullres"].predicted_seconds
    voxels, tried = 36 * 50 * 35, 80 * 112 * 80  # of a case, and of the one that was tried
    assert seconds.preprocess == pytest.approx(200 * 0.5 * voxels / 1e6)
    assert seconds.training == pytest.approx(300, rel=0.02)
    # one window covers the case, no mirroring, and half of the windows hold one value
    assert seconds.case == pytest.approx(3.0 * voxels / tried + 0.25 / 2)
    assert seconds.validation == pytest.approx(7 + 40 * (5.0 * voxels / tried + 0.25 / 2))


def test_every_case_counts_with_its_own_windows():
    """Two thirds of these cases fit into one window, the others take 27; the median case is one of the former."""
    mixed = make_fingerprint((36, 50, 35), (1.0, 1.0, 1.0), 30)
    mixed = replace(mixed, shapes_after_crop=((36, 50, 35),) * 20 + ((80, 112, 80),) * 10)
    plan = make_plan(make_spec(2), mixed, Budget("cpu", 8 * GB, 5.0), PlanRequest(), by_cost(5.0))
    full = plan.configurations["3d_fullres"]
    assert full.patch_size == (40, 56, 40)
    small, large = 36 * 50 * 35 / (80 * 112 * 80), 1.0
    assert full.predicted_seconds.case == pytest.approx(3.0 * small + 0.25 / 2)
    assert full.predicted_seconds.validation == pytest.approx(
        7 + 6 * (5.0 * (2 * small + large) / 3 + 0.25 / 2 * (2 * 1 + 27) / 3))
    flat = plan.configurations["2d"]
    shape = (2, 112, 80)  # of a case that was tried: windows of one slice, two of them
    passes = (2 * 36 + 80 * len(window_starts(112, 56, 0.5)) * len(window_starts(80, 40, 0.5))) / 3
    share = (pass_count(flat, shape) / 2) / pass_count(flat, shape)
    size = (2 * 36 * 50 * 35 + 80 * 112 * 80) / 3 / math.prod(shape)
    assert flat.predicted_seconds.validation == pytest.approx(7 + 6 * (5.0 * size + 0.25 * share * passes))


def test_large_cases_are_tried_only_for_a_time_budget():
    request = PlanRequest(configurations=("3d_fullres",))
    quick = make_plan(make_spec(2), LIVER, Budget("cpu", 8 * GB), request, REFUSE)
    assert quick.configurations["3d_fullres"].predicted_seconds is None
    assert str(LARGEST_TRIED) in quick.reasons["configurations.3d_fullres.predicted_seconds"].because
    timed = make_plan(make_spec(2), LIVER, Budget("cpu", 8 * GB, 5.0), request, by_cost(5.0))
    assert timed.configurations["3d_fullres"].predicted_seconds is not None


def test_a_case_that_cannot_be_tried_costs_a_warning_and_steps_that_a_time_budget_needs_the_plan(caplog):
    quick, timed = Budget("cpu", 8 * GB), Budget("cpu", 8 * GB, 5.0)
    request = PlanRequest(configurations=("3d_fullres",))
    make_plan(make_spec(2), HIPPOCAMPUS, quick, request, UNTRIED)
    assert "no times are predicted for '3d_fullres': this cannot be tried" in caplog.text
    steps_only = Probe(by_cost(1.0).seconds, small, never)
    made = make_plan(make_spec(2), HIPPOCAMPUS, timed, request, steps_only)
    assert made.configurations["3d_fullres"].predicted_seconds is None and unexplained_values(made) == []
    with pytest.raises(ResourceError, match="cannot be tried"):
        make_plan(make_spec(2), HIPPOCAMPUS, timed, request, UNTRIED)


def test_windows_are_those_that_prediction_places():
    made = make_plan(make_spec(2), LIVER, Budget("cpu", 8 * GB), NNUNET, REFUSE).configurations["3d_fullres"]
    counts = [len(window_starts(size, 128, 0.5)) for size in (482, 512, 512)]
    assert pass_count(made) == math.prod(counts) * 8


GOLDEN_FILE = Path(__file__).parent / "golden" / "hippocampus_nnunet_format_1.json"


def test_a_plan_written_in_format_1_is_still_read_and_still_made():
    """A change of this file is a change of format or of nnU-Net's rules: neither may happen unnoticed."""
    fingerprint = make_fingerprint((36, 50, 35), (1.0, 1.0, 1.0), 260)
    made = make_plan(make_spec(2), fingerprint, Budget("cpu", 8 * GB), NNUNET, REFUSE)
    written = read_value(GOLDEN_FILE, Plan)
    assert without_predictions(written) == without_predictions(made)


def without_predictions(plan):
    """What nnU-Net decides; predicted memory is autoseg's."""
    configurations = {name: replace(c, predicted_peak_bytes=None, predicted_inference_bytes=None)
                      for name, c in plan.configurations.items()}
    return replace(plan, reasons={}, configurations=configurations, budget=replace(plan.budget, footprints=()),
                   specification="", format=1)


@pytest.mark.parametrize("rules", ["nnunet", "default"])
def test_pictures_are_planned_alike_whether_their_slices_are_1_or_999_mm_apart(rules):
    """nnU-Net's reader of pictures says 999 mm along z, ours 1 mm; only the axis' one voxel may matter."""
    ours, theirs = (make_plan(make_spec(1), make_fingerprint((1, 250, 256), (z, 1.0, 1.0), 526),
                              Budget("cpu", 8 * GB, None, False, 2, "test"), PlanRequest("x", rules), UNTRIED)
                    for z in (1.0, 999.0))
    assert list(ours.configurations) == ["2d"]
    assert ours.transpose == theirs.transpose == (0, 1, 2)
    assert ours.configurations == theirs.configurations
    assert ours.configurations["2d"].spacing_mm == (None, 1.0, 1.0)
    assert rules == "default" or ours.configurations["2d"].patch_size == (1, 256, 256)


NESTED = (RegionSpec("whole", ("label1", "label2", "label3")), RegionSpec("core", ("label1", "label3")),
          RegionSpec("enhancing", ("label3",)))
BRATS = make_fingerprint((155, 240, 240), (1.0, 1.0, 1.0), 6)


def counted_values(plan):
    """Feature-map values per sample in the reason of the patch size."""
    return int(re.search(r"(\d+) feature-map values", plan.reasons["configurations.3d_fullres.patch_size"].inputs)[1])


def test_nnunet_counts_background_and_ignored_voxels_as_outputs_that_regions_do_not_have():
    """nnU-Net 2.8.1 takes len(labels) of its dataset.json: background, three regions, ignore."""
    regions = make_plan(replace(make_spec(3), regions=NESTED, ignore=9), BRATS, Budget("cpu", 8 * GB), NNUNET, REFUSE)
    four_labels = make_plan(make_spec(4), BRATS, Budget("cpu", 8 * GB), NNUNET, REFUSE)
    ignored = make_plan(replace(make_spec(3), ignore=9), BRATS, Budget("cpu", 8 * GB), NNUNET, REFUSE)
    three_labels = make_plan(make_spec(3), BRATS, Budget("cpu", 8 * GB), NNUNET, REFUSE)
    assert [plan.configurations["3d_fullres"].network.out_channels for plan in (regions, four_labels, ignored)] == [3, 5, 4]
    assert counted_values(regions) == counted_values(four_labels) == counted_values(ignored)
    patch = math.prod(regions.configurations["3d_fullres"].patch_size)
    assert counted_values(four_labels) - counted_values(three_labels) == patch


def test_a_region_dataset_gets_the_plan_that_nnunet_2_8_1_made_for_it():
    """Six BraTS cases with regions and an ignore label, planned by nnU-Net itself."""
    plan = make_plan(replace(make_spec(3), regions=NESTED, ignore=9), BRATS, Budget("cpu", 8 * GB), NNUNET, REFUSE)
    full, flat = plan.configurations["3d_fullres"], plan.configurations["2d"]
    assert (full.patch_size, full.batch_size, flat.patch_size, flat.batch_size) == ((96, 160, 160), 2, (1, 256, 256), 41)
    assert full.loss.terms == {"dice": 1.0, "binary_cross_entropy": 1.0} and full.network.output_bias == ()


@pytest.mark.parametrize("rules", ["nnunet", "default"])
def test_every_value_of_a_region_plan_has_a_reason(rules):
    spec = replace(make_spec(3), regions=NESTED, ignore=9)
    plan = make_plan(spec, BRATS, Budget("cpu", 8 * GB), PlanRequest(rules=rules), by_cost(1.0))
    assert unexplained_values(plan) == []
    rows = {row.path: row for row in explain(plan)}
    assert "whole paints label2" in rows["configurations.3d_fullres.task_values.paints"].inputs
    assert rows["configurations.3d_fullres.task_values.regions"].value == "1 x 2 x 3, 1 x 3, 3"
    assert "binary" in rows["configurations.3d_fullres.loss.terms.dice"].because


def test_left_and_right_labels_reach_training_and_prediction_of_the_default_plan_on_cuda_only():
    spec = replace(make_spec(0), labels=(LabelSpec("kidney_left", 3), LabelSpec("liver", 4), LabelSpec("kidney_right", 9)))
    cuda = make_plan(spec, HIPPOCAMPUS, Budget("cuda", 8 * GB), PlanRequest(), UNTRIED).configurations["3d_fullres"]
    cpu = make_plan(spec, HIPPOCAMPUS, Budget("cpu", 8 * GB), PlanRequest(), UNTRIED).configurations["3d_fullres"]
    assert (cuda.augmentation.left_right_axis, cuda.augmentation.mirror_pairs) == (2, ((1, 3),))
    assert (cuda.inference.left_right_axis, cuda.inference.mirror_pairs) == (2, ((1, 3),))
    assert cuda.inference.mirror_axes == (0, 1, 2) and cpu.augmentation.mirror_axes == cpu.inference.mirror_axes == ()
    nnunet = make_plan(spec, HIPPOCAMPUS, Budget("cpu", 8 * GB), NNUNET, REFUSE)
    assert nnunet.configurations["3d_fullres"].augmentation.mirror_pairs == ()
    assert "Warning" in nnunet.reasons["configurations.3d_fullres.augmentation.mirror_axes"].because


def test_thick_sagittal_slices_come_first_and_are_moved_within_only():
    turned = make_fingerprint((256, 250, 24), (0.78, 0.78, 6.5), 20)
    plan = make_plan(make_spec(1), turned, Budget("cpu", 8 * GB), NNUNET, REFUSE)
    full, flat = plan.configurations["3d_fullres"], plan.configurations["2d"]
    assert plan.transpose == (2, 0, 1)
    assert full.spacing_mm == (6.5, 0.78, 0.78) and full.augmentation.dummy_2d
    assert full.network.kernel_sizes[0] == (1, 3, 3) and full.network.strides[1] == (1, 2, 2)
    assert (flat.spacing_mm, flat.patch_size[0], flat.network.dims) == ((None, 0.78, 0.78), 1, 2)
    assert (flat.augmentation.mirror_axes, flat.augmentation.dummy_2d) == ((1, 2), False)


def test_a_single_slice_has_no_coarse_axis_even_where_its_pixels_are_long():
    flat = make_fingerprint((1, 300, 200), (1.0, 4.0, 0.5), 30)
    deep = make_fingerprint((20, 300, 200), (5.0, 0.5, 0.5), 30)
    ratios = [next(iter(make_plan(make_spec(1), found, Budget("cpu", GB), NNUNET, REFUSE).configurations.values()))
              .resampling.separate_z_ratio for found in (flat, deep)]
    assert ratios == [1e6, 3.0]


@pytest.mark.parametrize(("folder", "patch", "flat", "spacing", "scheme"), [
    ("Dataset109_BrainAniso", (24, 256, 256), (1, 256, 256), (6.5, 0.78125, 0.78125), "zscore"),
    ("Dataset107_LungGTV", (48, 160, 160), (1, 160, 160), (3.0, 0.977, 0.977), "ct"),
])
def test_real_thick_slices_and_real_ct_get_the_plan_that_nnunet_2_8_1_made_for_them(real_data, tmp_path, folder, patch, flat,
                                                                                   spacing, scheme):
    workspace = open_workspace(tmp_path, str(real_data / folder), real_data / folder, silent)
    plan = pipeline.plan(workspace, Budget("cpu", 8 * GB), NNUNET, executor=None)
    full = plan.configurations["3d_fullres"]
    assert (full.patch_size, full.batch_size, plan.configurations["2d"].patch_size) == (patch, 2, flat)
    assert full.spacing_mm == pytest.approx(spacing, abs=1e-6) and full.augmentation.dummy_2d
    assert [channel.scheme for channel in plan.inputs[0].channels] == [scheme]
    if scheme == "ct":  # nnU-Net's own numbers, from a random sample of the foreground
        window = plan.inputs[0].channels[0]
        assert (window.mean, window.std, window.lower, window.upper) == pytest.approx((-100.9, 240.4, -846, 149), abs=1.5)


def test_regions_may_be_scored_only():
    spec = replace(make_spec(3), regions=NESTED, options={"train_on": "labels"})
    plan = make_plan(spec, BRATS, Budget("cpu", 8 * GB), PlanRequest(), UNTRIED)
    configuration = plan.configurations["3d_fullres"]
    assert (configuration.network.out_channels, configuration.task_values) == (4, {"label_count": 3})
    assert set(configuration.loss.terms) == {"dice", "cross_entropy"}
    assert "scored only" in plan.reasons["configurations.3d_fullres.network.out_channels"].because
