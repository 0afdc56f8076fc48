from __future__ import annotations

import math

import pytest
import torch

from autoseg.losses.cross_entropy import cross_entropy_loss


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
