from __future__ import annotations

import pytest
import torch

from autoseg.losses.dice import region_dice_loss, soft_dice_loss, warped_dice_loss


def logits_for(label: torch.Tensor, classes: int, confidence: float = 100.0) -> torch.Tensor:
    return torch.nn.functional.one_hot(label.long(), classes).movedim(-1, 1).float() * confidence


def naive(logits: torch.Tensor, target: torch.Tensor, batch_dice: bool, smooth: float) -> float:
    """The definition with loops over samples and labels, in double precision."""
    probabilities = torch.softmax(logits.double(), 1)
    groups = [list(range(len(target)))] if batch_dice else [[sample] for sample in range(len(target))]
    scores = []
    for group in groups:
        for label in range(1, logits.shape[1]):
            p, t = probabilities[group, label], (target[group] == label).double()
            scores.append((2 * (p * t).sum() + smooth) / (p.sum() + t.sum() + smooth))
    return 1 - float(sum(scores) / len(scores))


def example() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(0, 4, (3, 2, 4, 5), generator=generator)
    target[0][target[0] == 3] = 0
    return torch.randn(3, 4, 2, 4, 5, generator=generator) * 2, target


@pytest.mark.parametrize("batch_dice", [True, False])
@pytest.mark.parametrize("smooth", [1e-5, 1.0])
def test_loss_equals_the_naive_definition(batch_dice, smooth):
    logits, target = example()

    loss = soft_dice_loss(logits, target, batch_dice=batch_dice, smooth=smooth)

    assert float(loss) == pytest.approx(naive(logits, target, batch_dice, smooth), abs=1e-6)


def test_half_overlapping_boxes_cost_one_half():
    target = torch.tensor([[1, 1, 0, 0]])
    predicted = torch.tensor([[0, 1, 1, 0]])

    loss = soft_dice_loss(logits_for(predicted, 2), target, batch_dice=False)

    assert float(loss) == pytest.approx(0.5, abs=1e-5)


def test_perfect_prediction_costs_nothing_and_the_background_does_not_count():
    target = torch.tensor([[0, 0, 1, 2, 2]])

    assert float(soft_dice_loss(logits_for(target, 3), target, batch_dice=False)) == pytest.approx(0, abs=1e-6)


def test_uniform_probabilities_give_the_value_worked_out_by_hand():
    target = torch.tensor([[0, 0, 1, 1]])  # p = 1/2: Dice = 2 * 1 / (2 + 2)

    loss = soft_dice_loss(torch.zeros(1, 2, 4), target, batch_dice=False, smooth=0.0)

    assert float(loss) == pytest.approx(0.5)


def test_batch_dice_pools_the_samples_before_dividing():
    target = torch.tensor([[1, 0, 0, 0], [1, 1, 1, 0]])
    predicted = torch.tensor([[0, 0, 0, 0], [1, 1, 1, 0]])
    logits = logits_for(predicted, 2)

    assert float(soft_dice_loss(logits, target, batch_dice=True)) == pytest.approx(1 - 6 / 7, abs=1e-5)
    assert float(soft_dice_loss(logits, target, batch_dice=False)) == pytest.approx(1 - (0 + 1) / 2, abs=1e-5)


def test_label_that_is_absent_and_not_predicted_scores_one():
    target = torch.zeros(1, 6, dtype=torch.uint8)

    assert float(soft_dice_loss(logits_for(target, 2), target, batch_dice=False)) == pytest.approx(0, abs=1e-4)


def test_gradient_equals_that_of_the_naive_definition():
    logits, target = example()
    ours, theirs = (logits.double().requires_grad_(True) for _ in range(2))
    one_hot = torch.nn.functional.one_hot(target, 4).movedim(-1, 1)[:, 1:]
    p = torch.softmax(theirs, 1)[:, 1:]
    axes = (2, 3, 4)
    dice = (2 * (p * one_hot).sum(axes) + 1e-5) / (p.sum(axes) + one_hot.sum(axes) + 1e-5)

    (1 - dice.mean()).backward()
    soft_dice_loss(ours, target, batch_dice=False).backward()

    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-7, rtol=1e-4)


@pytest.mark.parametrize("kind", [torch.uint8, torch.int16, torch.int64])
def test_integer_type_of_the_target_does_not_matter(kind):
    logits, target = example()

    assert soft_dice_loss(logits, target.to(kind), batch_dice=True) == soft_dice_loss(logits, target, batch_dice=True)


def test_half_precision_logits_are_summed_in_single_precision():
    logits, target = torch.zeros(1, 2, 70_000, dtype=torch.bfloat16), torch.ones(1, 70_000, dtype=torch.uint8)

    loss = soft_dice_loss(logits, target, batch_dice=True)

    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(1 - 2 * 35_000 / (35_000 + 70_000), rel=1e-5)


REGIONS = ((1, 2, 3), (2, 3), (3,))


def naive_regions(logits, target, batch_dice, smooth, ignore):
    """The definition with loops over samples, regions and voxels that count, in double precision."""
    probabilities = torch.sigmoid(logits.double())
    groups = [list(range(len(target)))] if batch_dice else [[sample] for sample in range(len(target))]
    scores = []
    for group in groups:
        counts = target[group] != ignore
        for channel, labels in enumerate(REGIONS):
            p = probabilities[group, channel][counts]
            t = torch.isin(target[group], torch.tensor(labels))[counts].double()
            scores.append((2 * (p * t).sum() + smooth) / (p.sum() + t.sum() + smooth))
    return 1 - float(sum(scores) / len(scores))


def partly_annotated():
    logits, target = example()
    target[:, 0, :2] = 4
    target[1, 1] = 4
    return logits, target


@pytest.mark.parametrize("batch_dice", [True, False])
@pytest.mark.parametrize("ignore", [4, None])
def test_region_loss_equals_the_naive_definition(batch_dice, ignore):
    logits, target = partly_annotated() if ignore else example()

    loss = region_dice_loss(logits[:, :3], target, regions=REGIONS, batch_dice=batch_dice, smooth=1e-5, ignore=ignore)

    assert float(loss) == pytest.approx(naive_regions(logits[:, :3], target, batch_dice, 1e-5, ignore), abs=1e-6)


@pytest.mark.parametrize("batch_dice", [True, False])
def test_ignored_voxels_count_as_if_they_were_cut_away(batch_dice):
    logits, target = example()
    padded = torch.cat([logits, torch.randn(3, 4, 1, 4, 5) * 9], dim=2)
    marked = torch.cat([target, torch.full((3, 1, 4, 5), 4)], dim=1)

    loss = soft_dice_loss(padded, marked, batch_dice=batch_dice, ignore=4)

    assert float(loss) == pytest.approx(float(soft_dice_loss(logits, target, batch_dice=batch_dice)), abs=1e-6)


@pytest.mark.parametrize("loss", [soft_dice_loss, lambda *args, **options: region_dice_loss(*args, regions=REGIONS, **options)])
def test_ignored_voxels_have_no_gradient(loss):
    logits, target = partly_annotated()
    channels = logits[:, :3].clone().requires_grad_()

    loss(channels, target.clamp(max=2).where(target != 4, 4), batch_dice=False, ignore=4).backward()

    ignored = (target == 4)[:, None].expand_as(channels)
    assert (channels.grad[ignored] == 0).all() and (channels.grad[~ignored] != 0).any()


def test_a_batch_without_any_annotation_costs_no_gradient():
    logits = torch.randn(2, 3, 4, 5, requires_grad=True)
    soft_dice_loss(logits, torch.full((2, 4, 5), 3), batch_dice=True, ignore=3).backward()
    assert (logits.grad == 0).all()


def test_warped_masks_that_overlap_by_half_have_a_dice_of_one_half():
    target = torch.tensor([[[1, 1, 5, 5]]])
    shares = torch.tensor([[[[0.0, 1, 1, 0]], [[0, 0, 1, 1]]]])  # label 1 one voxel beside, label 5 where it belongs
    assert float(warped_dice_loss(shares, target, labels=(1, 5))) == pytest.approx(1 - (0.5 + 1) / 2, abs=1e-4)
    assert float(warped_dice_loss(shares[:, 1:], target, labels=(5,))) == pytest.approx(0, abs=1e-4)
