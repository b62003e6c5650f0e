"""Limits what a caller may use at a time, so that it leaves enough for others.

Shares are counted per process and by the caller's name. Indistinguishable callers (`anonymous`, or
several backends with the same key) have a share together.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable

from pdp.errors import Overloaded, ShareExceeded

RATE_SECONDS = 10.0
"""The burst of an idle caller: as much as it may do in so many seconds."""


class Places:
    """A number of places. Each caller may hold at most its share. Thread-safe."""

    def __init__(self, share: str, each: int, total: int | None = None) -> None:
        """Creates the places.

        Args:
            share: Name of the share in errors.
            each: How many a caller may hold.
            total: How many there are; None: only the callers' shares limit them.
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
        """Takes a place for a caller. Returns a function that releases it; further calls do
        nothing.

        Raises:
            ShareExceeded: the caller holds its whole share.
            Overloaded: all places are taken.
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
    """Limits how much each caller may do per second, averaged over RATE_SECONDS. Thread-safe."""

    def __init__(
        self, share: str, per_second: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Creates the rate.

        Args:
            share: Name of the share in errors.
            per_second: How much each caller may do per second.
            clock: A monotonic clock in seconds.
        """
        self._share = share
        self._per_second = per_second
        self._clock = clock
        self._lock = threading.Lock()
        self._free_at: dict[str, float] = {}
        """By caller: when its use until now is paid for. Callers are configured, so there are
        few."""

    def spend(self, caller: str, amount: int) -> None:
        """Charges a caller for work that it is about to do. Raises ShareExceeded if it did too much
        before.

        A caller with room left may exceed it once: otherwise work that is larger than the burst
        would be refused forever. The caller waits longer afterwards.
        """
        with self._lock:
            now = self._clock()
            free_at = max(now, self._free_at.get(caller, now))
            if free_at - now >= RATE_SECONDS:
                wait_ms = int((free_at - now - RATE_SECONDS) * 1_000) + 1
                raise ShareExceeded(self._share, self._per_second, wait_ms)
            self._free_at[caller] = free_at + amount / self._per_second
