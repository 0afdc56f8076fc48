from __future__ import annotations

import math
from itertools import product

import pytest
import torch

from autoseg.losses.cross_entropy import cross_entropy_loss, region_cross_entropy_loss


def test_uniform_logits_cost_the_logarithm_of_the_number_of_labels():
    loss = cross_entropy_loss(torch.zeros(2, 5, 3, 4), torch.ones(2, 3, 4, dtype=torch.uint8))

    assert float(loss) == pytest.approx(math.log(5))


def test_loss_equals_minus_log_of_the_targets_probability_averaged_over_voxels():
    logits = torch.randn(2, 3, 2, 3, 4, generator=torch.Generator().manual_seed(1))
    target = torch.randint(0, 3, (2, 2, 3, 4), generator=torch.Generator().manual_seed(2))
    total = 0.0
    for b, z, y, x in torch.cartesian_prod(*(torch.arange(n) for n in target.shape)).tolist():
        scores = [math.exp(float(logits[b, k, z, y, x])) for k in range(3)]
        total -= math.log(scores[int(target[b, z, y, x])] / sum(scores))

    assert float(cross_entropy_loss(logits, target)) == pytest.approx(total / target.numel(), rel=1e-5)


def test_half_precision_logits_give_a_single_precision_loss():
    loss = cross_entropy_loss(torch.zeros(1, 3, 9, dtype=torch.bfloat16), torch.zeros(1, 9, dtype=torch.int16))

    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(math.log(3), rel=1e-6)


REGIONS = ((1, 2), (2,))


def test_ignored_voxels_count_as_if_they_were_cut_away():
    logits, target = torch.randn(2, 3, 4, 5), torch.randint(0, 3, (2, 4, 5))
    padded = torch.cat([logits, torch.randn(2, 3, 2, 5) * 9], dim=2)
    marked = torch.cat([target, torch.full((2, 2, 5), 3)], dim=1)
    torch.testing.assert_close(cross_entropy_loss(padded, marked, ignore=3), cross_entropy_loss(logits, target))
    cut = region_cross_entropy_loss(logits[:, :2], target, regions=REGIONS)
    torch.testing.assert_close(region_cross_entropy_loss(padded[:, :2], marked, regions=REGIONS, ignore=3), cut)


@pytest.mark.parametrize("ignore", [None, 3])
def test_region_loss_equals_the_naive_definition(ignore):
    logits, target = torch.randn(2, 2, 4, 5), torch.randint(0, 4 if ignore else 3, (2, 4, 5))
    terms = []
    for sample, channel, y, x in product(range(2), range(2), range(4), range(5)):
        label = int(target[sample, y, x])
        if label != ignore:
            p = 1 / (1 + math.exp(-float(logits[sample, channel, y, x])))
            terms.append(-math.log(p if label in REGIONS[channel] else 1 - p))
    loss = region_cross_entropy_loss(logits, target, regions=REGIONS, ignore=ignore)
    assert float(loss) == pytest.approx(sum(terms) / len(terms), abs=1e-5)


@pytest.mark.parametrize("loss", [cross_entropy_loss, lambda *args, **o: region_cross_entropy_loss(*args, regions=REGIONS, **o)])
def test_a_batch_without_any_annotation_costs_nothing(loss):
    logits = torch.randn(2, 2, 4, 5, requires_grad=True)
    value = loss(logits, torch.full((2, 4, 5), 7), ignore=7)
    value.backward()
    assert value.item() == 0 and (logits.grad == 0).all()
