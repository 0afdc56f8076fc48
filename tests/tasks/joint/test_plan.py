from __future__ import annotations

from dataclasses import replace

import pytest

from autoseg.core.budget import Budget, CaseTime
from autoseg.core.errors import DatasetError, UsageError
from autoseg.core.networks import ImageHead
from autoseg.core.plan import unexplained_values
from autoseg.core.task import PlanRequest, Probe, Starting
from autoseg.planning.explain import nearest_reason
from autoseg.tasks import load_task
from autoseg.tasks.joint import compose
from autoseg.tasks.joint.head import head_of
from autoseg.tasks.joint.parts import spec_of

DENSE, WHOLE, JOINT = load_task("segmentation"), load_task("classification"), load_task("joint")
BUDGET = Budget("cpu", 8 * 10**9)
CASE = CaseTime("", 0.01, 0.01, 1e6, (1.0, 1.0, 1.0), 1.0, 0.01, 0.01)
SILENT = Probe(lambda plan, configuration: 0.05, lambda configuration: (10**9, 10**8), lambda plan, configuration: CASE)


def plan(toy, budget=BUDGET, probe=SILENT, **request):
    return JOINT.make_plan(toy.workspace.spec, toy.workspace.fingerprint, budget, PlanRequest("test", **request), probe)


def without_head(configuration):
    return replace(configuration, loss=replace(configuration.loss, terms={}), task_values={})


def test_grid_patch_and_network_are_those_of_the_segmentation(toy):
    alone = DENSE.make_plan(spec_of(DENSE, toy.workspace.spec), toy.workspace.fingerprint, BUDGET, PlanRequest("test"), SILENT)
    made = plan(toy)
    assert (made.task, list(made.configurations)) == ("joint", list(alone.configurations))
    for name, configuration in made.configurations.items():
        assert without_head(configuration) == without_head(alone.configurations[name])


def test_the_head_is_that_of_the_classifier_that_the_other_task_plans(toy):
    alone = WHOLE.make_plan(spec_of(WHOLE, toy.workspace.spec), toy.workspace.fingerprint, BUDGET, PlanRequest("test"), SILENT)
    network = next(iter(alone.configurations.values())).network
    for configuration in plan(toy).configurations.values():
        assert head_of(configuration) == ImageHead(1, output_bias=network.output_bias)
        assert configuration.loss.terms == {"segmentation.dice": 1.0, "segmentation.cross_entropy": 1.0,
                                            "classification.binary_cross_entropy": 1.0}


@pytest.mark.parametrize(("planned", "taken"), [("log_sum_exp", "log_sum_exp"), ("mean", "mean"), ("attention", "mean")])
def test_pooling_over_places_is_taken_over_and_over_slices_it_is_the_mean(toy, planned, taken):
    def make_plan(*arguments):
        made = WHOLE.make_plan(*arguments)
        name, configuration = next(iter(made.configurations.items()))
        network = replace(configuration.network, pooling=planned, sharpness=5.0, dropout=0.3)
        return replace(made, configurations={name: replace(configuration, network=network)})

    made = compose(DENSE, replace(WHOLE, make_plan=make_plan)).make_plan(
        toy.workspace.spec, toy.workspace.fingerprint, BUDGET, PlanRequest("test"), SILENT)
    heads = [head_of(configuration) for configuration in made.configurations.values()]
    assert {(head.pooling, head.sharpness, head.dropout) for head in heads} == {(taken, 5.0, 0.3)}


def test_rare_classes_weigh_more_and_are_not_drawn_more_often(toy):
    """The segmentation draws the batches; what it does not obey is not planned."""
    counts = {name: count for name, count in toy.workspace.fingerprint.properties.items() if not name.startswith("target.")}
    rare = replace(toy.workspace.fingerprint, properties=counts | {"target.ill=0": 97, "target.ill=1": 3})
    alone = WHOLE.make_plan(spec_of(WHOLE, toy.workspace.spec), rare, BUDGET, PlanRequest("test"), SILENT)
    planned = next(iter(alone.configurations.values())).task_values
    made = next(iter(JOINT.make_plan(toy.workspace.spec, rare, BUDGET, PlanRequest("test"), SILENT).configurations.values()))
    assert any(".repeat." in name for name in planned) and not any(".repeat." in name for name in made.task_values)
    assert made.task_values["classification.ill.weight.0"] == planned["ill.weight.0"] > 5


def test_every_value_says_which_task_and_rule_it_comes_from(toy):
    made = plan(toy)
    name = next(iter(made.configurations))

    def because(path):
        return nearest_reason(made.reasons, f"configurations.{name}.{path}").because

    assert unexplained_values(made) == []
    assert "exp(-s) L + s" in because("loss.terms")
    assert "Dice follows the score" in because("loss.terms.segmentation.dice")
    assert "binary cross-entropy" in because("loss.terms.classification.binary_cross_entropy")
    assert "odds of every class" in because("task_values.image_head.output_bias.0")
    assert "mean over all windows" in because("task_values.image_head.pooling")
    assert "draws all alike" in because("task_values.classification.targets")
    assert "counts its labels" in because("task_values.segmentation.label_count")


def test_what_is_measured_are_networks_with_the_second_head(toy):
    asked = []

    def remember(answer):
        def measure(*arguments):
            asked.append(arguments[-1])
            return answer

        return measure

    probe = Probe(remember(0.05), remember((10**8, 10**7)), remember(CASE))
    made = plan(toy, replace(BUDGET, minutes=1.0), probe)
    assert len(asked) > 3 and all(head_of(configuration).out_channels == 1 for configuration in asked)
    planned = made.configurations["3d_fullres"]
    depth, height, width = planned.patch_size
    alone = DENSE.make_plan(spec_of(DENSE, toy.workspace.spec), toy.workspace.fingerprint, replace(BUDGET, minutes=1.0),
                            PlanRequest("test"), probe).configurations["3d_fullres"]
    more = planned.predicted_inference_bytes - alone.predicted_inference_bytes
    assert more >= 4 * depth * height * width > 0  # one more output in 32 bits, for as many planes as the patch has


def test_what_either_task_refuses_is_refused(toy):
    labels = replace(toy.workspace.spec, labels=())
    with pytest.raises(DatasetError, match="no labels to segment"):
        JOINT.make_plan(labels, toy.workspace.fingerprint, BUDGET, PlanRequest("test"), SILENT)
    counts = {name: count for name, count in toy.workspace.fingerprint.properties.items() if not name.startswith("target.")}
    alike = replace(toy.workspace.fingerprint, properties=counts | {"target.ill=0": 20})
    with pytest.raises(DatasetError, match="nothing to learn"):
        JOINT.make_plan(toy.workspace.spec, alike, BUDGET, PlanRequest("test"), SILENT)
    start = Starting("w.safetensors", "0" * 64, toy.configuration.network, "a bundle")
    with pytest.raises(UsageError, match="fresh weights"):
        plan(toy, start=start)
