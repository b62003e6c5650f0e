"""Streams through the door by ASGI: a coroutine each, on the one event loop."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from pdp.wire.framing import framed
from pdp.wire.gate import Refusal, Stream
from pdp.wire.streams import UNREAD_SECONDS_MAX, unread

WAKE_SECONDS = 0.005
WAKE_SECONDS_EACH = 0.0001
"""What comes together goes out together: a pass over all streams costs so much a stream."""

Write = Callable[[bytes], Awaitable[None]]
"""Sends a part of the body; done once the carrier has taken it."""


class Wakes:
    """Wakes the coroutines of all open streams. To be used on the loop, but for `soon`."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._woken: set[asyncio.Event] = set()
        self._planned = False

    def __len__(self) -> int:
        return len(self._woken)

    def add(self) -> asyncio.Event:
        """What is set when a stream should look again."""
        self._loop = asyncio.get_running_loop()
        woken = asyncio.Event()
        self._woken.add(woken)
        return woken

    def remove(self, woken: asyncio.Event) -> None:
        """That stream is over."""
        self._woken.discard(woken)

    def soon(self) -> None:
        """Wakes all; from any thread."""
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
    """Sends all that a stream has to say. Returns how it ended; None: well.

    Whatever `write` raises when the client has left comes out of here.
    """
    woken = wakes.add()
    code = "CANCELLED"
    try:
        while True:
            taken = stream.take()
            if taken and not isinstance(taken, Refusal) and not await _is_taken(write, taken):
                taken = unread(UNREAD_SECONDS_MAX)
            if taken is None or isinstance(taken, Refusal):
                code = "OK" if taken is None else taken.code.name
                return taken
            if not taken:
                await _wait(woken, stream.feed.due_at)
    finally:
        wakes.remove(woken)
        stream.close(code)


async def _is_taken(write: Write, messages: Sequence[bytes]) -> bool:
    """Whether the carrier took the messages in time. It holds back for a client who does not."""
    body = b"".join(map(framed, messages))
    try:
        async with asyncio.timeout(UNREAD_SECONDS_MAX):
            # What was begun is not called off: the carrier would find its future gone.
            await asyncio.shield(write(body))
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
