"""Logits that never stand in memory as a whole: a stream of slabs along axis 0."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoseg.core.geometry import Shape

# Bytes of a slab: two planes of 60 classes and 512 x 512 voxels. Larger slabs gain no time, smaller ones lose little.
SLAB_BYTES = 2**27


@dataclass(frozen=True)
class LogitSlabs:
    """Logits (K, Z, Y, X) that arrive once, in slabs along Z from the first plane to the last.

    Attributes:
        shape: K, Z, Y, X.
        parts: float32 slabs (K, z, Y, X); whoever draws one may keep or change it.
    """

    shape: tuple[int, int, int, int]
    parts: Iterator[NDArray[np.float32]]

    @classmethod
    def of(cls, logits: NDArray[np.float32]) -> LogitSlabs:
        """The slabs, views, of an array (K, Z, Y, X)."""
        classes, depth, height, width = logits.shape
        step = planes_per_slab(classes, height, width)
        return cls((classes, depth, height, width),
                   (logits[:, start:start + step] for start in range(0, depth, step)))

    @property
    def classes(self) -> int:
        return self.shape[0]

    @property
    def grid(self) -> Shape:
        """Z, Y, X."""
        return self.shape[1:]

    def whole(self) -> NDArray[np.float32]:
        """All slabs as one array: what a stream is there to avoid, for the few who need it."""
        logits = np.empty(self.shape, np.float32)
        stop = 0
        for part in self.parts:
            start, stop = stop, stop + part.shape[1]
            logits[:, start:stop] = part
        require_all_planes(stop, self.shape[1])
        return logits


def planes_per_slab(classes: int, height: int, width: int) -> int:
    """Planes that `SLAB_BYTES` hold, at least one."""
    return max(1, SLAB_BYTES // (classes * height * width * np.dtype(np.float32).itemsize))


def require_all_planes(found: int, expected: int) -> None:
    """Raises ValueError where a stream ended early, for example because it was drawn before."""
    if found != expected:
        raise ValueError(f"{found} of {expected} planes of logits came; a stream of slabs can be drawn only once")
