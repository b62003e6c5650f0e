"""Long work on an event loop that lets others have a turn, and can be cancelled in between."""

import asyncio
import time
from collections.abc import Callable

SLICE_SECONDS = 0.002
"""For so long a request keeps the event loop to itself at most."""


class Pace:
    """Suspends whenever a slice of time is used up. One per request."""

    __slots__ = ("_clock", "_ends_at")

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        """`clock` gives seconds; the slice begins now."""
        self._clock = clock
        self._ends_at = clock() + SLICE_SECONDS

    async def give_way(self) -> None:
        """Lets other requests run if this one's slice is used up.

        Raises asyncio.CancelledError if the request was cancelled meanwhile.
        """
        if self._clock() >= self._ends_at:
            await asyncio.sleep(0)
            self._ends_at = self._clock() + SLICE_SECONDS
