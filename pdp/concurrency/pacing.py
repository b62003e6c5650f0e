"""Long work on an event loop that yields to other tasks, and can be cancelled in between."""

import asyncio
import time
from collections.abc import Callable

SLICE_SECONDS = 0.002
"""The longest time that a request keeps the event loop."""


class Pace:
    """Time slices of one request on the event loop."""

    __slots__ = ("_clock", "_ends_at")

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        """`clock` gives seconds; the slice begins now."""
        self._clock = clock
        self._ends_at = clock() + SLICE_SECONDS

    def is_over(self) -> bool:
        """Whether the slice is used up."""
        return self._clock() >= self._ends_at

    async def give_way(self) -> None:
        """Lets other requests run, and begins the next slice.

        Raises:
            asyncio.CancelledError: The request was cancelled meanwhile.
        """
        await asyncio.sleep(0)
        self._ends_at = self._clock() + SLICE_SECONDS
