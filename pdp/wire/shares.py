"""What one caller may have at a time, so that no caller takes what others need.

All of it is counted in one process and by the caller's name. Callers that nobody can tell apart
(`anonymous`, or several backends with one key) share one share.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable

from pdp.errors import Overloaded, ShareExceeded

RATE_SECONDS = 10.0
"""A caller that was quiet may do at once what it may do in so many seconds."""


class Places:
    """A number of places, of which one caller may hold no more than its share. Thread-safe."""

    def __init__(self, share: str, each: int, total: int | None = None) -> None:
        """Creates the places.

        Args:
            share: Name of the share in errors.
            each: How many one caller may hold.
            total: How many there are; None: as many as the callers' shares allow.
        """
        self._share = share
        self._each = each
        self._total = total
        self._lock = threading.Lock()
        self._held: Counter[str] = Counter()

    @property
    def taken(self) -> int:
        """How many places are held."""
        return self._held.total()

    def take(self, caller: str) -> Callable[[], None]:
        """Takes a place for a caller; the function that is returned gives it back, once.

        Raises ShareExceeded, and Overloaded where others hold all of them.
        """
        with self._lock:
            if self._total is not None and self._held.total() >= self._total:
                raise Overloaded(self._share.replace("_share", "_max"), self._total)
            if self._held[caller] >= self._each:
                raise ShareExceeded(self._share, self._each)
            self._held[caller] += 1
        held = threading.Lock()

        def give_back() -> None:
            if held.acquire(blocking=False):
                with self._lock:
                    self._held[caller] -= 1
                    if not self._held[caller]:
                        del self._held[caller]

        return give_back


class Rate:
    """How much each caller may do a second, averaged over RATE_SECONDS. Thread-safe."""

    def __init__(
        self, share: str, per_second: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Creates the rate.

        Args:
            share: Name of the share in errors.
            per_second: How much each caller may do a second.
            clock: Seconds on a clock that only goes forward.
        """
        self._share = share
        self._per_second = per_second
        self._clock = clock
        self._lock = threading.Lock()
        self._free_at: dict[str, float] = {}
        """Caller -> when all that it has done until now is paid for. Callers are configured, so
        there are few."""

    def spend(self, caller: str, amount: int) -> None:
        """Notes what a caller is about to do. Raises ShareExceeded where it did too much before.

        One that has room may spend more than that: what is too much for one time must not be
        refused forever. It waits the longer afterwards.
        """
        with self._lock:
            now = self._clock()
            free_at = max(now, self._free_at.get(caller, now))
            if free_at - now >= RATE_SECONDS:
                wait_ms = int((free_at - now - RATE_SECONDS) * 1_000) + 1
                raise ShareExceeded(self._share, self._per_second, wait_ms)
            self._free_at[caller] = free_at + amount / self._per_second
