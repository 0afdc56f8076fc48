from __future__ import annotations

import math
from dataclasses import replace

import pytest
from tasks.classification.sets import make_spec

from autoseg.core.budget import Budget, CaseTime
from autoseg.core.errors import DatasetError, ResourceError, UsageError
from autoseg.core.fingerprint import CaseFingerprint, Moments, sum_fingerprints
from autoseg.core.networks import Classifier, Network
from autoseg.core.plan import Plan, unexplained_values
from autoseg.core.task import PlanRequest, Probe, Starting
from autoseg.io.values import from_plain, to_plain
from autoseg.tasks.classification.plan import make_plan

GIGABYTES = 10**9
CPU = Budget("cpu", 8 * GIGABYTES)
CUDA = Budget("cuda", 8 * GIGABYTES)


def probe_of(seconds=0.05, peak=lambda configuration: GIGABYTES):
    return Probe(lambda plan, configuration: seconds, lambda configuration: (peak(configuration), GIGABYTES // 10),
                 lambda plan, configuration: CaseTime("", 0.01, 0.01, 1e6, (1.0, 1.0, 1.0), 1.0, 0.01, 0.01))


def measured(shape=(1, 512, 512), spacing=(1.0, 1.0, 1.0), cells=None, lesions=None, channels=1, quantiles=None, per_patient=1):
    """Cases of one shape: a list of cells per target; every patient has so many cases in a row."""
    moments = Moments(100, 10.0, 104.0, 0.0, 30.0, quantiles or (0.0, 6.0, 8.0, 10.0, 12.0, 14.0, 20.0))
    columns = cells or {"ill": ["0", "1"] * 100}
    cases = []
    for row in zip(*columns.values(), strict=True):
        properties = {"sides." + "x".join(map(str, shape)): 1}
        properties |= {f"target.{name}={cell}": 1 for name, cell in zip(columns, row, strict=True)}
        cases.append(CaseFingerprint(shape, spacing, 1.0, (moments,) * channels, ({0: 2**40},) * channels, properties,
                                     ("other",) * channels, marks=tuple(f"known.{name}" for name in columns)))
    for size, count in (lesions or {}).items():
        cases[0] = replace(cases[0], properties=cases[0].properties | {f"lesion.{size}": count})
    return sum_fingerprints(cases, channels, [str(place // per_patient) for place in range(len(cases))])


def plan(fingerprint=None, budget=CPU, *, targets=("ill",), probe=None, request=None, **options) -> Plan:
    return make_plan(make_spec(*targets, **options), fingerprint or measured(), budget, request or PlanRequest("test"),
                     probe or probe_of())


def only(made: Plan):
    return next(iter(made.configurations.values()))


@pytest.mark.parametrize(("shape", "spacing", "dims", "slices", "size"), [
    ((1, 28, 28), (1, 1, 1), 2, False, (1, 28, 28)),
    ((1, 30, 61), (1, 1, 1), 2, False, (1, 32, 60)),
    ((1, 512, 512), (1, 1, 1), 2, False, (1, 128, 128)),
    ((1, 2000, 1000), (1, 1, 1), 2, False, (1, 192, 96)),
    ((20, 256, 256), (3, 1, 1), 2, True, (20, 64, 64)),
    ((60, 100, 100), (5, 1, 1), 2, True, (32, 32, 32)),
    ((64, 64, 64), (1, 1, 1), 3, False, (40, 40, 40)),
    ((100, 200, 200), (2, 1, 1), 3, False, (40, 40, 40)),
])
def test_dimensions_and_size_follow_from_the_images(shape, spacing, dims, slices, size):
    made = only(plan(measured(shape, spacing)))
    assert (made.network.dims, made.network.slices, made.patch_size) == (dims, slices, size)
    assert made.whole_image and plan(measured(shape, spacing)).inputs[0].air == "nothing"


def test_images_that_shrink_much_are_blurred_first():
    made = plan()
    assert only(made).resampling.low_pass_from == 2.0
    reason = made.reasons["configurations.resnet.resampling.low_pass_from"]
    assert reason.inputs == "median image 1 x 512 x 512 voxels, size 1 x 128 x 128" and "scikit-image" in reason.source


def test_the_coarsest_axis_comes_first():
    made = plan(measured((256, 256, 20), (1, 1, 4)))
    assert made.transpose == (2, 0, 1) and only(made).patch_size[0] == 20 and only(made).network.slices


def test_strides_fit_the_image():
    def strides(shape):
        return [stage[-1] for stage in only(plan(measured(shape))).network.strides]

    assert strides((1, 28, 28)) == [1, 1, 2, 2]  # maps of 28, 28, 14, 7
    assert strides((1, 512, 512)) == [2, 2, 2, 2, 2]  # at 128: 64, 32, 16, 8, 4
    assert strides((40, 40, 40)) == [2, 2, 2]  # 20, 10, 5


def test_lesions_ask_for_a_size():
    # 6 % of the shorter side: one cell of 32 pixels at 533, so 576; and no more than the images have
    made = only(plan(measured((1, 1024, 1024), lesions={60: 20}), CUDA))
    assert made.patch_size == (1, 576, 576)
    assert only(plan(measured((1, 300, 300), lesions={60: 20}), CUDA)).patch_size == (1, 288, 288)


def test_localisation_keeps_the_last_map_large():
    network = only(plan(measured(), CUDA, localise=True)).network
    assert math.prod(stage[0] for stage in network.strides) * 14 <= 224
    assert network.pooling == "log_sum_exp" and network.sharpness == 10.0


def test_weights_start_and_loss_follow_from_the_cells():
    cells = {"ill": ["0"] * 160 + ["1"] * 40, "signs": ["A"] * 100 + ["A|B"] * 60 + ["none"] * 40,
             "grade": ["1", "2"] * 80 + ["3"] * 40,
             "size": [f"{number}.5" for number in range(200)]}
    made = only(plan(measured(cells=cells), targets=(
        "ill", {"column": "signs", "negative": ["none"]}, {"column": "grade", "kind": "ordinal"}, "size")))
    assert made.network.out_channels == 1 + 2 + 2 + 1
    assert made.task_values["ill.weight.0"] == 2.0
    assert made.network.output_bias[0] == pytest.approx(math.log(40.5 / 160.5) + math.log(2), abs=1e-3)
    assert set(made.loss.terms) == {"binary_cross_entropy", "cumulative_cross_entropy", "squared_error"}
    assert not made.network.shared_output


def test_grades_alone_share_their_weights():
    assert only(plan(
        measured(cells={"grade": ["1", "2", "3"] * 60}), targets=("grade",))).network.shared_output


def test_several_classes_are_smoothed_where_there_are_many_units():
    few, many = (only(plan(measured((1, 28, 28), cells={"type": ["a", "b", "c"] * count}), targets=("type",))).loss.terms
                 for count in (40, 400))
    assert (few, many) == ({"softmax_cross_entropy": 1.0}, {"smoothed_cross_entropy": 1.0})


def test_losses_of_the_specification_are_planned_and_those_without_weights_have_none():
    cells = {"ill": ["0"] * 160 + ["1"] * 40, "type": ["a"] * 100 + ["b"] * 60 + ["c"] * 40, "old": ["0", "1", "0", "0"] * 50}
    made = plan(measured(cells=cells), targets=({"column": "ill", "loss": "focal"}, {"column": "type", "loss": "hinge"}, "old"))
    values, network = only(made).task_values, only(made).network
    assert only(made).loss.terms == {"focal": 1.0, "hinge": 1.0, "binary_cross_entropy": 1.0}
    assert [values[f"{name}.loss"] for name in cells] == list(only(made).loss.terms)
    assert [name for name in values if ".weight." in name] == ["old.weight.0"]
    assert network.output_bias[0] == pytest.approx(math.log(40.5 / 160.5), abs=1e-3)  # no weight to be taken back
    assert unexplained_values(made) == []
    with pytest.raises(DatasetError, match="'type' is multiclass, and its loss 'focal' suits binary and multilabel"):
        plan(measured(cells=cells), targets=({"column": "type", "loss": "focal"},))


def test_norm_follows_the_batch():
    assert only(plan(measured((1, 28, 28)))).network.norm == "batch"
    assert only(plan(measured((40, 40, 40)))).network.norm == "group"  # 8 volumes


def test_few_units_get_a_small_network():
    small, large = (only(plan(measured((1, 28, 28), cells={"ill": ["0", "1"] * count}), CUDA)).network.features
                    for count in (20, 4000))
    assert small[0] == 8 and large[0] == 64


def test_many_images_of_few_patients_count_as_few():
    """Rules R2 and R11: capacity and smoothing follow from patients, the number of steps from images."""
    cells = {"type": ["a", "b", "c"] * 800}
    many, few = (only(plan(measured((1, 28, 28), cells=cells, per_patient=images), CUDA, targets=("type",)))
                 for images in (1, 60))
    assert (many.network.features[0], few.network.features[0]) == (64, 8)
    assert (set(many.loss.terms), set(few.loss.terms)) == ({"smoothed_cross_entropy"}, {"softmax_cross_entropy"})
    assert many.optimization.iterations == few.optimization.iterations
    reason = plan(measured((1, 28, 28), cells=cells, per_patient=60), CUDA, targets=("type",)).reasons
    assert reason["configurations.resnet.network.features"].inputs.endswith("parameters, 40 patients")


def test_minutes_give_a_count_of_iterations():
    made = only(plan(budget=replace(CPU, minutes=1.0), probe=probe_of(0.1)))
    assert made.optimization.iterations == 600 and made.predicted_seconds.training == pytest.approx(60)
    assert made.optimization.warmup_iterations == 30


def test_fast_steps_get_a_larger_network():
    def features(seconds):
        return only(plan(measured(cells={"ill": ["0", "1"] * 2000}), replace(CPU, minutes=1.0), probe=probe_of(seconds))).network

    assert features(0.5).features[0] < features(0.1).features[0] <= features(0.01).features[0]


def test_without_minutes_every_unit_is_seen_a_hundred_times():
    assert only(plan(measured(cells={"ill": ["0", "1"] * 200}))).optimization.iterations == 100 * 400 // 16


def test_a_batch_shrinks_to_the_memory():
    made = plan(budget=replace(CPU, memory_bytes=10**8), probe=probe_of(peak=lambda c: c.batch_size * 2 * 10**7))
    assert only(made).batch_size == 4
    with pytest.raises(ResourceError, match="2 images of") as error:
        plan(budget=replace(CPU, memory_bytes=10**7), probe=probe_of(peak=lambda c: c.batch_size * 2 * 10**7))
    assert "--memory 0.05GB" in error.value.hint


def test_every_value_has_a_reason_and_survives_a_file():
    for fingerprint in (measured(), measured((1, 28, 28)), measured((20, 64, 64), (4, 1, 1)), measured((64, 64, 64))):
        made = plan(fingerprint, CUDA)
        assert unexplained_values(made) == []
        assert from_plain(to_plain(made), Plan, source="test") == made


def test_neighbours_are_planned_and_others_on_request():
    assert list(plan().configurations) == ["resnet", "resnet_small"]
    many = measured(cells={"ill": ["0", "1"] * 2000})
    assert list(plan(many, CUDA).configurations) == ["densenet121", "resnet"]
    asked = plan(request=PlanRequest("test", configurations=("inception_v3", "vit", "resnet_cbam")))
    assert [(c.network.kind, c.network.attention) for c in asked.configurations.values()] == [
        ("inception", "none"), ("vit", "none"), ("resnet", "cbam")]
    with pytest.raises(UsageError, match="'resnt' is not known.*Did you mean 'resnet'"):
        plan(request=PlanRequest("test", configurations=("resnt",)))
    with pytest.raises(UsageError, match="needs images of at least 96 pixels"):
        plan(measured((1, 28, 28)), request=PlanRequest("test", configurations=("inception_v3",)))
    with pytest.raises(UsageError, match="starts from the weights of another model"):
        plan(request=PlanRequest("test", configurations=("frozen",)))
    with pytest.raises(UsageError, match="rule book 'nnunet'"):
        plan(request=PlanRequest("test", "nnunet"))


UNET = Network("residual_unet", 2, 1, 3, (8, 16, 32), ((1, 1), (2, 2), (2, 2)), ((3, 3),) * 3, (1, 1, 1), (1, 1), False)


def test_weights_of_a_segmentation_give_neighbours():
    start = Starting("start.safetensors", "a" * 64, UNET, "bundle x")
    made = plan(request=PlanRequest("test", start=start))
    assert {name: c.start and (c.start.trained, c.start.rate_decay, c.start.parts)
            for name, c in made.configurations.items()} == {
        "layer_wise": ("all", 0.75, ("encoder.",)), "last_stage": ("last", 1.0, ("encoder.",)),
        "frozen": ("fresh", 1.0, ("encoder.",)), "resnet": None}
    network = made.configurations["frozen"].network
    assert isinstance(network, Classifier) and (network.kind, network.features, network.blocks, network.norm) == (
        "residual_encoder", (8, 16, 32), (1, 1, 1), "instance")
    assert unexplained_values(made) == []
    with pytest.raises(UsageError, match="bundle x has a network of 2 dimensions, and these images need one of 3"):
        plan(measured((64, 64, 64)), request=PlanRequest("test", start=start))


def test_patients_are_not_mirrored_and_photographs_are():
    assert only(plan()).augmentation.mirror_axes == ()
    spec = make_spec("ill")
    channels = [{"name": name, "normalization": "rgb_to_0_1"} for name in ("red", "green", "blue")]
    colour = from_plain({**to_plain(spec), "inputs": [{"role": "image", "kind": "image", "channels": channels}],
                         "layouts": to_plain(spec)["layouts"]}, type(spec), source="test")
    made = only(make_plan(colour, measured(channels=3), CPU, PlanRequest("test"), probe_of()))
    assert made.augmentation.mirror_axes == (1, 2) and made.augmentation.rotation_deg == (-180.0, 180.0)


def test_changes_are_as_large_as_cases_differ():
    alike = plan()
    assert only(alike).augmentation.contrast == (0.909, 1.1)
    assert only(alike).augmentation.scaling == (0.93, 1.075)


@pytest.mark.parametrize(("change", "text"), [
    (lambda f: replace(f, histograms=({}, {})), "measured on 200 cases of 2 channels and the specification has 1"),
    (lambda f: replace(f, properties={}), "all 0 cells of column 'ill' are missing")])
def test_a_fingerprint_of_another_dataset_is_refused(change, text):
    with pytest.raises(DatasetError, match=text):
        plan(change(measured()))
