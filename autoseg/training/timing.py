"""How long a step and a window take: what the plan's time budget is divided by, and what it predicts."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from torch import Tensor, nn

from autoseg.core.plan import Optimization
from autoseg.core.task import Phase
from autoseg.training.device import Stopwatch, synchronize
from autoseg.training.step import Batch, Stepper


def seconds_per_step(
        network: nn.Module, phases: Sequence[Phase], batches: Callable[[int], Batch], optimization: Optimization,
        device: str, steps: int = 3, enough_seconds: float = math.inf,
) -> float:
    """Median seconds of one step, drawing the batch included; the first one warms up.

    The network is trained by these steps: give one that is thrown away.

    Args:
        batches: iteration -> batch, as for `loop.train`.
        enough_seconds: no further step begins after that; where not even a second one did, the first one counts.
    """
    stepper = Stepper(network, phases, optimization, device=device)
    stepper.train()
    iterations = iter(range(1 + steps))

    def step() -> None:
        iteration = next(iterations)
        stepper.step(iteration, batches(iteration))

    return statistics.median(warm(seconds_of([step] * (1 + steps), device, enough_seconds=enough_seconds)))


def seconds_of(actions: Iterable[Callable[[], object]], device: str, *, enough_seconds: float = math.inf) -> list[float]:
    """Seconds of each of some actions, done in turn; after `enough_seconds` no further one begins."""
    measured: list[float] = []
    for action in actions:
        if sum(measured) > enough_seconds:
            break
        synchronize(device)
        watch = Stopwatch()
        action()
        synchronize(device)
        measured.append(watch.seconds())
    return measured


def warm(measured: Sequence[float]) -> Sequence[float]:
    """Without the first of several: it imports, compiles and fills caches."""
    return measured[1:] or measured


class RememberedNetwork(nn.Module):
    """A network in use that runs once for each shape of windows; from then on its answer is given again.

    So a case can be predicted as ever, in a fraction of the time, while it is noted what the network would have taken.

    Args:
        network: from `inference.engine.in_use`.
        tries: runs of which the median counts, after one that compiles; fewer where they take more than a second.
    Attributes:
        windows: that were asked for so far.
        network_seconds: what the network would have taken for them.
        start_seconds: how much longer the first run on each shape took, which may convert and compile the network.
        aside_seconds: what was spent in here, on running it and on copying answers.
    """

    def __init__(self, network: nn.Module, device: str, tries: int = 4) -> None:
        super().__init__()
        self.network = network
        self._device = device
        self._tries = tries
        self._answers: dict[tuple[int, ...], tuple[Tensor, float]] = {}
        self.windows = 0
        self.network_seconds = self.aside_seconds = self.start_seconds = 0.0

    def forward(self, windows: Tensor) -> Tensor:
        """(B, C, *spatial) -> what the network returned for the first windows of this shape."""
        synchronize(self._device)
        watch = Stopwatch()
        shape = tuple(windows.shape)
        if shape not in self._answers:
            answer = self.network(windows)
            synchronize(self._device)
            first = watch.seconds()
            taken = seconds_of([partial(self.network, windows)] * self._tries, self._device, enough_seconds=1.0)
            self._answers[shape] = (answer, statistics.median(taken))
            self.start_seconds += max(0.0, first - self._answers[shape][1])
        answer, seconds = self._answers[shape]
        answer = answer.clone()  # who asked may change it
        self.windows += shape[0]
        self.network_seconds += seconds
        self.aside_seconds += watch.seconds()
        return answer
