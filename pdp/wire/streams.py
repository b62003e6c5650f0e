"""Open streams: a coroutine for each, all on the same event loop, woken together when there are
messages."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from pdp.errors import LimitExceeded
from pdp.wire.framing import framed
from pdp.wire.pipeline import Refusal, Stream, refusal_of

UNREAD_SECONDS_MAX = 1.0
"""The longest lease. A client that has not read a message for so long has lost its lease."""
WAKE_SECONDS = 0.005
WAKE_SECONDS_EACH = 0.0001
"""Changes within a short time are sent together; a pass over all streams costs so much per
stream."""

Write = Callable[[bytes], Awaitable[None]]
"""Sends a part of the body. Returns after the server has taken it."""


class Wakes:
    """Wakes the coroutines of all open streams. Used on the event loop, except `soon`."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._woken: set[asyncio.Event] = set()
        self._planned = False

    def __len__(self) -> int:
        return len(self._woken)

    def add(self) -> asyncio.Event:
        """Adds a stream. Returns the event that is set when the stream may have messages."""
        self._loop = asyncio.get_running_loop()
        woken = asyncio.Event()
        self._woken.add(woken)
        return woken

    def remove(self, woken: asyncio.Event) -> None:
        """Removes a stream that has ended."""
        self._woken.discard(woken)

    def soon(self) -> None:
        """Wakes all streams soon. Any thread may call it."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._plan)

    def _plan(self) -> None:
        if self._loop is not None and self._woken and not self._planned:
            self._planned = True
            seconds = WAKE_SECONDS + WAKE_SECONDS_EACH * len(self._woken)
            self._loop.call_later(seconds, self._wake)

    def _wake(self) -> None:
        self._planned = False
        for woken in self._woken:
            woken.set()


async def carry_out(stream: Stream, wakes: Wakes, write: Write) -> Refusal | None:
    """Sends all messages of a stream. Returns the status that ended it; None: it is complete.

    Raises whatever `write` raises after the client has disconnected.
    """
    woken = wakes.add()
    code = "CANCELLED"
    try:
        while True:
            taken = stream.take()
            if taken and not isinstance(taken, Refusal) and not await _is_taken(write, taken):
                maximum = int(UNREAD_SECONDS_MAX * 1_000)
                taken = refusal_of(LimitExceeded("unread_milliseconds_max", maximum, maximum))
            if taken is None or isinstance(taken, Refusal):
                code = "OK" if taken is None else taken.code.name
                return taken
            if not taken:
                await _wait(woken, stream.subscription.due_at)
    finally:
        wakes.remove(woken)
        stream.close(code)


async def _is_taken(write: Write, messages: Sequence[bytes]) -> bool:
    """Sends the messages. Returns whether the server took them in time; it waits while the client
    does not read."""
    body = b"".join(map(framed, messages))
    try:
        async with asyncio.timeout(UNREAD_SECONDS_MAX):
            await write(body)
    except TimeoutError:
        return False
    return True


async def _wait(woken: asyncio.Event, until: float) -> None:
    try:
        async with asyncio.timeout(until - time.monotonic()):
            await woken.wait()
    except TimeoutError:
        return
    woken.clear()
