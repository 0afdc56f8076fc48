"""How long a step and a window take: what the plan's time budget is divided by, and what it predicts."""

from __future__ import annotations

import copy
import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

from torch import Tensor, nn

from autoseg.core.plan import Optimization
from autoseg.core.task import Phase
from autoseg.training.device import Stopwatch, synchronize
from autoseg.training.step import Batch, Stepper

# What a network was asked for, and of how many windows of what shape.
Key: TypeAlias = tuple[str, tuple[int, ...]]


def seconds_per_step(
        network: nn.Module, phases: Sequence[Phase], batches: Callable[[int], Batch], optimization: Optimization,
        device: str, steps: int = 3, most: int = 3, least_seconds: float = 0.0, enough_seconds: float = math.inf,
) -> float:
    """Median seconds of one step, drawing the batch included; one more, which is not timed, warms up.

    Short steps need more of them: the first few, in which libraries choose kernels and caches fill, would decide the median.

    The network is trained by these steps: give one that is thrown away.

    Args:
        batches: iteration -> batch, as for `loop.train`.
        steps: that count at least.
        most: that count at most, while they took less than `least_seconds` together.
        enough_seconds: of steps that count, of which one is always done; no further one begins after that.
    """
    stepper = Stepper(network, phases, optimization, device=device)
    stepper.train()
    iterations = iter(range(1 + max(steps, most)))

    def step() -> None:
        iteration = next(iterations)
        stepper.step(iteration, batches(iteration))

    step()
    measured = seconds_of([step] * steps, device, enough_seconds=enough_seconds)
    further = min(least_seconds, enough_seconds) - math.fsum(measured)
    if further > 0 and len(measured) == steps:
        measured += seconds_of([step] * (most - steps), device, enough_seconds=further)
    return statistics.median(measured)


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


class RememberedNetwork(nn.Module):
    """A network in use that runs a few times for each shape of windows; from then on its last answer is given again.

    So a case can be predicted as ever, in a fraction of the time, while it is noted what the network would have taken. It is
    timed on the windows that are asked for, in between all else that prediction does: the same windows over and over, with
    nothing else in the caches, took a sixth less.

    Args:
        tries: runs of which the median counts, after one that compiles; fewer where they take more than a second.
    Attributes:
        windows: that were asked for so far.
        start_seconds: how much longer the first run on each shape took, which may convert and compile the network.
        aside_seconds: what was spent in here, on running it and on copying answers.
    """

    def __init__(self, network: nn.Module, device: str, tries: int = 8) -> None:
        super().__init__()
        self.network = network
        self._device = device
        self._tries = tries
        self._answers: dict[Key, Any] = {}
        self._taken: dict[Key, list[float]] = {}
        self._asked: Counter[Key] = Counter()
        self.windows = 0
        self.aside_seconds = self.start_seconds = 0.0

    @property
    def network_seconds(self) -> float:
        """What the network would have taken for all windows that were asked for."""
        return math.fsum(count * statistics.median(self._taken[key]) for key, count in self._asked.items())

    def forward(self, windows: Tensor, *more: Tensor) -> Any:
        """(B, C, *spatial) -> what the network returns for these windows, or returned for earlier ones of this shape.

        Args:
            more: further images of the same samples, for networks that see several.
        """
        return self._answered("forward", self.network, windows, *more)

    def answer_with_maps(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        """The same of the network's own `answer_with_maps`, where it has one."""
        return self._answered("answer_with_maps", self.network.answer_with_maps, windows)  # type: ignore[arg-type]

    def _answered(self, name: str, ask: Callable[..., Any], windows: Tensor, *more: Tensor) -> Any:
        synchronize(self._device)
        watch = Stopwatch()
        key = (name, tuple(windows.shape))

        def run() -> None:
            self._answers[key] = ask(windows, *more)

        if key not in self._taken:
            first, second = seconds_of([run] * 2, self._device)
            self._taken[key] = [second]
            self.start_seconds += max(0.0, first - second)
        elif len(self._taken[key]) < self._tries and math.fsum(self._taken[key]) < 1.0:
            self._taken[key] += seconds_of([run], self._device)
        answer = copy.deepcopy(self._answers[key])  # who asked may change it
        self._asked[key] += 1
        self.windows += len(windows)
        self.aside_seconds += watch.seconds()
        return answer
