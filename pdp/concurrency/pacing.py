"""Long work on an event loop that yields to other tasks, and can be cancelled in between."""

import asyncio
import threading
import time

SLICE_SECONDS = 0.001
"""The longest time that a request keeps the event loop."""


class Pace:
    """Time slices of one request on the event loop.

    Requests that give way take turns: the event loop runs a slice of one of them, then everything
    else. Hundreds of long requests thus delay a short one by no more than a few do.
    """

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
        async with _turns.of_running_loop():  # first come, first served
            await asyncio.sleep(0)
        self._ends_at = time.perf_counter() + SLICE_SECONDS


class _Turns(threading.local):
    """The lock of the event loop that runs in this thread."""

    loop: asyncio.AbstractEventLoop | None = None
    lock: asyncio.Lock

    def of_running_loop(self) -> asyncio.Lock:
        loop = asyncio.get_running_loop()
        if loop is not self.loop:
            self.loop, self.lock = loop, asyncio.Lock()
        return self.lock


_turns = _Turns()
