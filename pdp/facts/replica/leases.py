"""Computes until when subscribers may serve cached decisions from before a revision.

A subscriber may serve from its cache while it holds a lease. A lease lasts at most
LEASE_SECONDS_MAX, and a replica grants it only if it serves the revision that the subscriber knows.
So the last lease from before a revision ends LEASE_SECONDS_MAX after that revision was applied, or
after the last subscriber left.

This relies on two orders. A subscription is counted before it reads a snapshot: if it is not
counted when a revision is applied, it will see that revision. And a lease is measured from a clock
that was read before the snapshot.
"""

import threading
import time
from collections import deque

LEASE_SECONDS_MAX = 1.0
CLOCK_DRIFT = 0.001
"""Largest relative difference of two clock rates: NTP slews each by half of it at most."""


class Leases:
    """The leases that the subscribers of one replica may hold. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open = 0
        self._left_at = float("-inf")
        self._applied: deque[tuple[int, float]] = deque()
        """Revisions and when they were applied: those that are not settled, and one more."""

    def enter(self) -> None:
        """Counts one more subscriber. Call it before anything is read for it."""
        with self._lock:
            self._open += 1

    def leave(self) -> None:
        """Counts one subscriber less."""
        with self._lock:
            self._open -= 1
            self._left_at = time.monotonic()

    def applied(self, revision: int) -> None:
        """Records that, from now on, only subscribers that know this revision get a lease."""
        now = time.monotonic()
        with self._lock:
            while len(self._applied) > 1 and self._end(self._applied[1][1]) <= now:
                self._applied.popleft()
            self._applied.append((revision, now))

    def restarted(self, revision: int) -> None:
        """Does the same for the first revision of a new epoch."""
        with self._lock:
            self._applied.clear()
        self.applied(revision)

    def settled(self) -> int:
        """Returns the latest revision before which no lease is valid any more; 0: none."""
        now = time.monotonic()
        with self._lock:
            for revision, since in reversed(self._applied):
                if self._end(since) <= now:
                    return revision
        return 0

    def end(self, revision: int | None = None) -> float:
        """Returns the time.monotonic() at which a revision is settled; None: at which every lease
        that was granted so far has ended."""
        now = time.monotonic()
        with self._lock:
            if revision is None:
                return self._end(now)
            return self._end(
                next((at for applied, at in self._applied if applied >= revision), now)
            )

    def _end(self, since: float) -> float:
        last_given = since if self._open else min(since, self._left_at)
        return last_given + LEASE_SECONDS_MAX * (1 + CLOCK_DRIFT)
