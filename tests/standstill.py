"""Says at which line of Python a fuzzed input stands still, before libFuzzer ends the process and says only the input."""

from __future__ import annotations

import faulthandler
import time

# What libFuzzer grants an input, and when the lines are printed.
SECONDS_PER_INPUT = 20
_SECONDS_TO_TRACEBACK = 15
# Each start of the clock starts a thread, which takes longer than most inputs.
_SECONDS_BETWEEN_STARTS = 1.0


class Standstill:
    """A clock to be started before every input."""

    def __init__(self) -> None:
        self._started = -_SECONDS_BETWEEN_STARTS

    def start(self) -> None:
        now = time.monotonic()
        if now - self._started >= _SECONDS_BETWEEN_STARTS:
            self._started = now
            faulthandler.dump_traceback_later(_SECONDS_TO_TRACEBACK)
