"""Long work on an event loop that yields to other tasks, and can be cancelled in between."""

import asyncio
import threading
import time
from collections import deque

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
        await _turns.next()
        self._ends_at = time.perf_counter() + SLICE_SECONDS


class _Turns(threading.local):
    """The requests that wait for their turn on the event loop of this thread, first come, first
    served. Nobody holds a turn: a request that vanishes delays no other."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def next(self) -> None:
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._waiting = loop, deque()
        if not self._waiting:
            loop.call_soon(self._give, loop, self._waiting)
        turn: asyncio.Future[None] = loop.create_future()
        self._waiting.append(turn)
        await turn

    def _give(
        self, loop: asyncio.AbstractEventLoop, waiting: "deque[asyncio.Future[None]]"
    ) -> None:
        """Gives one turn now, and the others in later passes of the event loop."""
        turn = waiting.popleft()
        if not turn.done():  # not cancelled
            turn.set_result(None)
        if waiting:
            loop.call_soon(self._give, loop, waiting)


_turns = _Turns()
