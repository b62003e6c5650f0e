"""Waits for the polls of a replica."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass

from pdp.concurrency.waiting import done_within

CATCH_UP_SECONDS_MAX = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class _Waiter:
    """Waits until poll number `polls` is done or `revision` is served."""

    polls: int
    revision: float
    done: "Future[None]"


class PollWaits:
    """The polls of one replica, and who waits for them. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._begun = 0
        self._waiters: list[_Waiter] = []

    def begin(self) -> int:
        """Counts a poll that begins. Returns its number, for `done`."""
        with self._lock:
            self._begun += 1
            return self._begun

    async def wait(self, wake: Callable[[], None], revision: float) -> None:
        """Waits until the next poll is done, this revision is served, or CATCH_UP_SECONDS_MAX have
        passed. A poll that is under way does not count."""
        done: Future[None] = Future()
        with self._lock:
            waiter = _Waiter(self._begun + 1, revision, done)
            self._waiters.append(waiter)
        wake()
        try:
            await done_within(done, CATCH_UP_SECONDS_MAX)
        finally:
            with self._lock, suppress(ValueError):
                self._waiters.remove(waiter)

    def done(self, poll: int, served: int) -> None:
        """Ends the waits for this poll, and for the revision that is served now."""
        with self._lock:
            waiters = self._waiters
            self._waiters = []
            for waiter in waiters:
                if poll >= waiter.polls or served >= waiter.revision:
                    waiter.done.set_result(None)
                else:
                    self._waiters.append(waiter)
