"""Long work on an event loop that yields to other tasks, and can be cancelled in between."""

import asyncio
import time

SLICE_SECONDS = 0.0005
"""The longest time that a request keeps the event loop."""


class Pace:
    """Time slices of one request on the event loop."""

    __slots__ = ("_ends_at",)

    def __init__(self) -> None:
        """The slice begins now."""
        self._ends_at = time.perf_counter() + SLICE_SECONDS

    def is_over(self) -> bool:
        """Whether the slice is used up."""
        return time.perf_counter() >= self._ends_at

    async def give_way(self) -> None:
        """Lets other requests run, and begins the next slice.

        Raises:
            asyncio.CancelledError: The request was cancelled meanwhile.
        """
        await asyncio.sleep(0)
        self._ends_at = time.perf_counter() + SLICE_SECONDS
