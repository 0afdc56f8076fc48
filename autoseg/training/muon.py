"""Muon: momentum whose matrix is made orthogonal before it moves the weights; everything else moves by AdamW."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

# Coefficients of the quintic that drives singular values towards 1, and how often it is applied:
# Jordan et al. 2024, "Muon: an optimizer for hidden layers" (kellerjordan.github.io/posts/muon).
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5
# The update gets the root mean square that Adam's updates have in practice, so that both share one learning rate:
# Liu et al. 2025 (arXiv 2502.16982), eq. 4.
UPDATE_RMS = 0.2
# Columns C per row R from which steps on the Gram matrix are surely fewer operations: 4 RRC + 34 RRR against 20 RRC + 10 RRR.
WIDE = 2
ADAM_EPS = 1e-8


class Muon(Optimizer):
    """Muon for `kernels` (rows: output channels; columns: everything else), AdamW for `others`.

    Args:
        kernels: weights of at least two axes.
        others: everything else; those of one axis (norms, biases) are not decayed.
        momentum: of Muon, in Nesterov's form; betas: of AdamW.
    """

    def __init__(self, kernels: Iterable[nn.Parameter], others: Iterable[nn.Parameter], *, lr: float, weight_decay: float,
                 momentum: float, betas: tuple[float, float]) -> None:
        remaining = list(others)
        groups = [
            {"params": list(kernels), "orthogonal": True, "weight_decay": weight_decay},
            {"params": [p for p in remaining if p.ndim > 1], "orthogonal": False, "weight_decay": weight_decay},
            {"params": [p for p in remaining if p.ndim <= 1], "orthogonal": False, "weight_decay": 0.0},
        ]
        super().__init__([group for group in groups if group["params"]], {"lr": lr, "momentum": momentum, "betas": betas})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Moves every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                gradient = parameter.grad
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                move = self._orthogonal if group["orthogonal"] else self._adam
                parameter.add_(move(parameter, gradient, group), alpha=-group["lr"])

    def _orthogonal(self, parameter: Tensor, gradient: Tensor, group: dict) -> Tensor:
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        average = state["momentum"].mul_(group["momentum"]).add_(gradient)
        update = gradient.add(average, alpha=group["momentum"])
        matrix = orthogonalise(update.reshape(len(update), -1))
        return matrix.mul_(UPDATE_RMS * math.sqrt(max(matrix.shape))).reshape(update.shape)

    def _adam(self, parameter: Tensor, gradient: Tensor, group: dict) -> Tensor:
        state = self.state[parameter]
        if not state:
            state |= {"step": torch.zeros(()), "mean": torch.zeros_like(parameter), "square": torch.zeros_like(parameter)}
        first, second = group["betas"]
        state["step"] += 1
        mean = state["mean"].lerp_(gradient, 1 - first)
        square = state["square"].lerp_(gradient.square(), 1 - second)
        count = float(state["step"])
        scale = square.sqrt().div_(math.sqrt(1 - second**count)).add_(ADAM_EPS)
        return (mean / (1 - first**count)).div_(scale)


def orthogonalise(matrix: Tensor) -> Tensor:
    """A matrix with the singular vectors of (R, C) and singular values near 1 (0.7 to 1.2), by Newton-Schulz steps."""
    if matrix.shape[0] > matrix.shape[1]:
        return orthogonalise(matrix.T).T
    matrix = matrix / (matrix.norm() + 1e-7)
    if matrix.shape[1] < WIDE * matrix.shape[0]:
        return _orthogonalise_square(matrix)
    return _orthogonalise_wide(matrix)


def _orthogonalise_square(current: Tensor) -> Tensor:
    """The steps as they are written: each is two products with the matrix itself."""
    a, b, c = NEWTON_SCHULZ
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = current @ current.T
        current = a * current + (b * gram + c * gram @ gram) @ current
    return current


def _orthogonalise_wide(matrix: Tensor) -> Tensor:
    """The same steps on the (R, R) Gram matrix, whose product with the matrix is taken once, at the end.

    A step multiplies X by q = aI + bG + cGG with G = XX', so G becomes qGq. The kernel of a convolution is 9 or 27 times as
    wide as high: a third to a quarter of the time, and the same distance from the steps in double precision (1e-5).
    """
    gram = matrix @ matrix.T
    product = factor = _factor(gram)
    for _ in range(NEWTON_SCHULZ_STEPS - 1):
        gram = factor @ gram @ factor
        factor = _factor(gram)
        product = factor @ product
    return product @ matrix


def _factor(gram: Tensor) -> Tensor:
    """What a step multiplies by: aI + bG + cGG."""
    a, b, c = NEWTON_SCHULZ
    factor = torch.addmm(gram, gram, gram, beta=b, alpha=c)
    factor.diagonal().add_(a)
    return factor


def kernels_of(network: nn.Module) -> set[int]:
    """Identities (`id`) of the weights that Muon moves: those of convolutions and of linear layers between others.

    Outputs and upsampling are left out, as modules of other kinds, and so are recurrent networks, whose one matrix holds those
    of several gates.
    """
    return {id(module.weight) for module in network.modules() if isinstance(module, (nn.Conv2d, nn.Conv3d, nn.Linear))}
