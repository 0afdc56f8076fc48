"""From features at places to features of an image: mean, log-sum-exp, learned attention, a recurrent network over slices."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from autoseg.core.errors import choose

# Width of the layer that attention is computed with (Ilse et al. 2018, appendix, tables 8 to 11).
ATTENTION_WIDTH = 128


class MeanPooling(nn.Module):
    """Mean over all places (Lin et al. 2014, arXiv 1312.4400)."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.out_features = features

    def forward(self, features: Tensor) -> Tensor:
        """(B, F, *places) to (B, F)."""
        return features.flatten(2).mean(2)


class LogSumExpPooling(nn.Module):
    """Between mean (r to 0) and largest value (r to infinity): x* + 1/r log(1/S sum exp(r (x - x*))), x* the largest.

    Source: Wang et al. 2017 (ChestX-ray8, arXiv 1705.02315), eq. 3, with r = 10 best in its table 3.
    """

    def __init__(self, features: int, sharpness: float) -> None:
        super().__init__()
        self.out_features = features
        self.sharpness = sharpness

    def forward(self, features: Tensor) -> Tensor:
        """(B, F, *places) to (B, F); in float32 at least, as exponentials of half precision are coarse."""
        places = features.flatten(2).to(torch.promote_types(features.dtype, torch.float32))
        largest = places.detach().amax(2, keepdim=True)  # any number there gives the same result: it has no gradient
        exponentials = (self.sharpness * (places - largest)).exp()
        return largest.squeeze(2) + exponentials.mean(2).log() / self.sharpness


class AttentionPooling(nn.Module):
    """Mean weighed by softmax(w tanh(V f)) over places, or over slices (axis 0) of which each is its own mean.

    Source: Ilse, Tomczak and Welling 2018 (arXiv 1802.04712), eq. 7 and 8.
    """

    def __init__(self, features: int, *, over_slices: bool) -> None:
        super().__init__()
        self.out_features = features
        self.over_slices = over_slices
        self.score = nn.Sequential(nn.Linear(features, ATTENTION_WIDTH), nn.Tanh(), nn.Linear(ATTENTION_WIDTH, 1, bias=False))

    def weights(self, features: Tensor) -> Tensor:
        """Attention (B, S) that sums to 1 over the S places or slices of (B, F, *places)."""
        return torch.softmax(self.score(self._instances(features)).squeeze(2), dim=1)

    def forward(self, features: Tensor) -> Tensor:
        """(B, F, *places) to (B, F)."""
        return (self.weights(features).unsqueeze(2) * self._instances(features)).sum(1)

    def _instances(self, features: Tensor) -> Tensor:
        """(B, S, F)."""
        return (slice_means(features) if self.over_slices else features.flatten(2)).transpose(1, 2)


class RecurrentPooling(nn.Module):
    """The last states of a network that reads the slices (axis 0) upwards and of one that reads them downwards.

    Source: Cho et al. 2014 (GRU, arXiv 1406.1078) or Hochreiter and Schmidhuber 1997 (LSTM); both directions: Schuster and
    Paliwal 1997. Each direction has half as many states as there are features.
    """

    def __init__(self, features: int, cell: str) -> None:
        super().__init__()
        states = math.ceil(features / 2)
        self.out_features = 2 * states
        cells: dict[str, Callable[..., nn.RNNBase]] = {"gru": nn.GRU, "lstm": nn.LSTM}
        self.reader = choose(cells, cell, "recurrent cell")(features, states, batch_first=True, bidirectional=True)

    def forward(self, features: Tensor) -> Tensor:
        """(B, F, Z, ...) to (B, states of both directions)."""
        outputs, _ = self.reader(slice_means(features).transpose(1, 2))
        states = outputs.shape[2] // 2
        return torch.cat([outputs[:, -1, :states], outputs[:, 0, states:]], dim=1)


def slice_means(features: Tensor) -> Tensor:
    """(B, F, Z, ...) to the mean of every slice, (B, F, Z)."""
    return features.flatten(3).mean(3)
