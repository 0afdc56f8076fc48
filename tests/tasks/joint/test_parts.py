from __future__ import annotations

import pickle
from dataclasses import dataclass, replace

import pytest

from autoseg.core.case import Case
from autoseg.core.errors import DatasetError, IncompatibleError
from autoseg.core.networks import ImageHead
from autoseg.core.spec import DatasetSpec, LabelSpec, LayoutSpec
from autoseg.io.values import from_plain, to_plain
from autoseg.tasks import load_task
from autoseg.tasks.joint import compose
from autoseg.tasks.joint.head import head_of, head_values
from autoseg.tasks.joint.parts import Pair, configuration_of, lifted, own, spec_of

DENSE, WHOLE, JOINT = load_task("segmentation"), load_task("classification"), load_task("joint")


@dataclass(frozen=True)
class Sharing:
    targets: int = 0


def make_spec(**options) -> DatasetSpec:
    layout = LayoutSpec("toy", {"image": ("{case}.png",)}, {"label": "{case}_label.png"})
    return DatasetSpec("Toy", "joint", (layout,), labels=(LabelSpec("lung", 1),),
                       options={"targets": [{"column": "ill"}], "surface_tolerance_mm": 3.0, **options})


def make_cases(*cells) -> list[Case]:
    return [Case(f"c{place}", f"c{place}", {"image": ()}, values={"ill": cell}) for place, cell in enumerate(cells)]


def test_composing_the_same_records_gives_equal_records_here_and_in_a_worker_process():
    assert compose(DENSE, WHOLE) == JOINT == pickle.loads(pickle.dumps(JOINT)) != compose(replace(DENSE, headline="a.b"), WHOLE)


@pytest.mark.parametrize("other", [replace(WHOLE, name="segmentation"), replace(WHOLE, options=(Sharing, Sharing))])
def test_tasks_that_names_cannot_tell_apart_are_not_joined(other):
    with pytest.raises(TypeError, match="cannot be joined"):
        compose(DENSE, other)


def test_each_task_gets_the_specification_with_its_own_options():
    spec = make_spec()
    dense, whole = spec_of(DENSE, spec), spec_of(WHOLE, spec)
    assert (dense.task, dense.options) == ("segmentation", {"surface_tolerance_mm": 3.0})
    assert (whole.task, whole.options) == ("classification", {"targets": [{"column": "ill"}]})
    assert replace(dense, task="joint", options=spec.options) == spec


def test_each_task_gets_back_what_was_lifted_and_nothing_else():
    joint = lifted(DENSE, {"mean.dice": 1, "a": 2}) | lifted(WHOLE, {"mean.auc": 3, "a": 4})
    assert set(joint) == {"segmentation.mean.dice", "segmentation.a", "classification.mean.auc", "classification.a"}
    assert own(DENSE, joint) == {"mean.dice": 1, "a": 2} and own(WHOLE, joint) == {"mean.auc": 3, "a": 4}


def test_each_task_gets_the_configuration_with_its_own_loss_and_values(toy):
    dense, whole = (configuration_of(task, toy.configuration) for task in (DENSE, WHOLE))
    assert set(dense.loss.terms) == {"dice", "cross_entropy"} and set(whole.loss.terms) == {"binary_cross_entropy"}
    assert dense.task_values == {"label_count": 1}
    assert whole.task_values["targets"] == ("ill",) and "ill.classes" in whole.task_values
    assert dense.network == whole.network == toy.configuration.network


def test_units_are_those_of_both_tasks_a_case_each():
    units = JOINT.index(make_spec(), make_cases("0", "1", "1", ""))
    assert [(unit.id, unit.stratum) for unit in units] == [("c0", "0"), ("c1", "1"), ("c2", "1"), ("c3", None)]


def test_exams_of_several_images_are_refused():
    with pytest.raises(DatasetError, match="unit c of 'Toy' has 2 images.*leave 'exam' out"):
        JOINT.index(make_spec(exam={"pattern": "^(c)"}), make_cases("0", "0"))


def test_a_head_goes_through_the_plan_unchanged(toy):
    head = ImageHead(3, "log_sum_exp", 7.5, 0.25, True, (0.5, -1.0, 2.0))
    configuration = replace(toy.configuration, task_values={"segmentation.label_count": 1, **head_values(head)})
    assert head_of(from_plain(to_plain(configuration), type(configuration), source="test")) == head


@pytest.mark.parametrize(("changes", "words"), [
    ({"image_head.pooling": "recurrent"}, "pooling"), ({"image_head.out_channels": 0}, "out_channels"),
    ({"image_head.output_bias.1": 1.0}, "2 values of output_bias for 1 outputs"), ({"image_head.width": 3}, "width")])
def test_a_head_that_cannot_be_built_is_refused(toy, changes, words):
    with pytest.raises(IncompatibleError, match=words):
        head_of(replace(toy.configuration, task_values=toy.configuration.task_values | changes))


def test_a_plan_of_another_task_has_no_head(toy):
    with pytest.raises(IncompatibleError, match="no plan of a joint task"):
        head_of(replace(toy.configuration, task_values={"label_count": 2}))


def test_a_pair_is_asked_by_role():
    assert (Pair(1, 2).of("dense"), Pair(1, 2).of("whole")) == (1, 2)
