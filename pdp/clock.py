"""The wall clock: passed in everywhere, read here only.

Bounds (freshness, deadlines, cooldowns) never use it: they use `time.monotonic`.
"""

import time
from collections.abc import Callable

Clock = Callable[[], float]
"""Returns the time as seconds since 1970-01-01 UTC."""


def wall_clock() -> float:
    """The operating system's time, in seconds since 1970-01-01 UTC."""
    return time.time()
