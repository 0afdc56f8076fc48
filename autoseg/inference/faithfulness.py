"""Whether an explanation depends on what the network learnt, and whether what it points at decides the output."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autoseg.inference.explain import Explain, Map, evaluated, filled

# An explanation more alike than this to that of a network without knowledge says nothing of the network: our choice between the
# 1 of an edge detector, which does not look at the network (Adebayo et al. 2018), and the 0 of unrelated maps.
LARGEST_SIMILARITY = 0.5
# Networks with shuffled weights to compare with. One of them can look at the same place by chance: with a small network that
# answers without error, the mean similarity of an occlusion map was above 0.5 in 22 % of the checks with one, in 6 % with three
# and in 2 % with five (integrated gradients 7, 1 and 0 %, Grad-CAM never).
DRAWS = 5
# Parts of an image that are removed one after another: our choice, a step of 5 %.
PARTS = 20
# Window of the structural similarity and its constants: Wang et al. 2004, section III.B (7 by 7 as in scikit-image).
SSIM_WINDOW, SSIM_CONSTANTS = 7, (0.01**2, 0.03**2)


@dataclass(frozen=True)
class Faithfulness:
    """How far an explanation can be trusted.

    Attributes:
        similarity: of the explanation with those of the same network with shuffled weights, mean over draws: 1 where they are
            equal; nan where the explanation has no evidence for the output.
        deletion: mean probability of the output while what the explanation puts first is removed first; low is good.
        insertion: the same while it is put into an empty image first; high is good.
    """

    similarity: float
    deletion: float
    insertion: float

    @property
    def verdict(self) -> Literal["faithful", "not faithful", "no evidence"]:
        """`not faithful`: it looks the same for a network that knows nothing; `no evidence`: the map is nowhere above 0.

        `faithful` means that the map depends on the weights, not that the network is right: that is for its scores to say.
        """
        if math.isnan(self.similarity):
            return "no evidence"
        return "faithful" if self.similarity <= LARGEST_SIMILARITY else "not faithful"


def check(explain: Explain, network: nn.Module, image: Tensor, output: int, rng: np.random.Generator, *,
          probabilities: Callable[[Tensor], Tensor] | None = torch.sigmoid, baseline: float | Sequence[float] = 0.0,
          draws: int = DRAWS) -> Faithfulness:
    """Compare an explanation with those of networks without knowledge, and see what the output owes to what it points at.

    Args:
        explain, network, image, output: see `explain`.
        probabilities: outputs (B, K) -> probabilities (B, K); of classes that exclude each other a softmax. None: deletion and
            insertion are not measured, and nan; a predicted value has no probability.
        baseline: value of what is removed, one or one per channel.
        draws: networks with shuffled weights.
    Source: Adebayo et al. 2018 (model randomisation); Petsiuk et al. 2018 (deletion and insertion).
    """
    found = explain(network, image, output)
    similarities = [similarity(found, explain(shuffled(network, rng), image, output)) for _ in range(draws)]
    if probabilities is None:
        return Faithfulness(float(np.mean(similarities)), math.nan, math.nan)
    deletion, insertion = removal(found, network, image, output, probabilities=probabilities, baseline=baseline)
    return Faithfulness(float(np.mean(similarities)), deletion, insertion)


def shuffled(network: nn.Module, rng: np.random.Generator) -> nn.Module:
    """A copy of the network in which the numbers of every weight tensor have changed places.

    Adebayo et al. draw new weights; shuffling keeps the distribution in each tensor, so that no signal dies or explodes on its
    way through a deep network in evaluation. The statistics and factors of a normalisation layer move together, by channel.
    """
    copied = copy.deepcopy(network)
    for module in copied.modules():
        orders: dict[int, Tensor] = {}
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            if tensor.is_floating_point() and tensor.numel() > 1:
                fresh = tensor.ndim > 1 or tensor.numel() not in orders
                order = torch.from_numpy(rng.permutation(tensor.numel())).to(tensor.device) if fresh else orders[tensor.numel()]
                if tensor.ndim == 1:
                    orders[tensor.numel()] = order
                tensor.data = tensor.data.flatten()[order].view(tensor.shape)
    return copied


def similarity(one: Map, other: Map) -> float:
    """Structural similarity of what two maps show as evidence for the output: values above 0, as shares of the largest one.

    The similarity at each place is weighted by the larger share of the two: places where neither map has evidence would else
    count as agreement, and two small spots far from each other as nearly equal. Evidence against the output is none for it: with
    absolute values, as one variant in Adebayo et al. has it, every network whose output moves at all where something is hidden
    is like every other.

    Returns:
        In [-1, 1], 1 for equal maps; nan where the first map has no evidence, 0 where only the second has none.
    Source: Wang et al. 2004, equation 13, in windows of 7.
    """
    if not one.max() > 0:
        return math.nan
    if not other.max() > 0:
        return 0.0
    first, second = (np.maximum(found, 0).astype(np.float64) / float(found.max()) for found in (one, other))
    return float(np.average(_local_similarity(first, second), weights=np.maximum(first, second)))


def removal(found: Map, network: nn.Module, image: Tensor, output: int, *,
            probabilities: Callable[[Tensor], Tensor] = torch.sigmoid, baseline: float | Sequence[float] = 0.0,
            parts: int = PARTS) -> tuple[float, float]:
    """Area under the curve of the output's probability while voxels are removed, and while they are put in, best ones first.

    Args:
        found: an explanation (*spatial); equally large values in the order of the array.
        parts: equal parts that are removed one after another.
    Returns:
        (deletion, insertion), each in [0, 1], by the trapezoidal rule.
    Source: Petsiuk et al. 2018 (RISE).
    """
    ranks = np.empty(found.size, dtype=np.int64)
    ranks[np.argsort(-found.ravel(), kind="stable")] = np.arange(found.size)
    empty = filled(image, baseline)
    deleted, inserted = [], []
    with evaluated(network), torch.no_grad():
        for part in range(parts + 1):
            is_first = torch.from_numpy((ranks < found.size * part / parts).reshape(found.shape)).to(image.device)
            both = torch.cat([torch.where(is_first, empty, image), torch.where(is_first, image, empty)])
            chosen = probabilities(network(both))[:, output].double().cpu()
            deleted.append(float(chosen[0]))
            inserted.append(float(chosen[1]))
    return _area(deleted), _area(inserted)


def _area(heights: Sequence[float]) -> float:
    return float(np.trapezoid(heights) / (len(heights) - 1))


def _local_similarity(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy.ndimage import uniform_filter

    window = [min(SSIM_WINDOW, size) for size in one.shape]
    means = [uniform_filter(values, window) for values in (one, other)]
    variances = [uniform_filter(values**2, window) - mean**2 for values, mean in zip((one, other), means, strict=True)]
    covariance = uniform_filter(one * other, window) - means[0] * means[1]
    light, contrast = SSIM_CONSTANTS
    return ((2 * means[0] * means[1] + light) * (2 * covariance + contrast)
            / ((means[0] ** 2 + means[1] ** 2 + light) * (variances[0] + variances[1] + contrast)))
