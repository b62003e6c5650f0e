"""Until when watchers may still give answers from before a revision.

A watcher may give an answer again while it holds a lease, which is given at most LEASE_SECONDS_MAX
at a time and only by a replica that serves the revision that the watcher knows. So the last lease
from before a revision has run out LEASE_SECONDS_MAX after that revision was in place, or after the
last watcher left.

It counts on two orders. A watch is counted before it reads a snapshot: one that is not counted yet
once a revision is in place will see that revision. And who gives a lease counts it from a clock
that was read before the snapshot was.
"""

import threading
import time
from collections import deque

LEASE_SECONDS_MAX = 1.0
CLOCK_DRIFT = 0.001
"""How much two clocks may run apart: NTP steers each by half of that at most."""


class Leases:
    """Those that the watchers of one replica may hold. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open = 0
        self._left_at = float("-inf")
        self._applied: deque[tuple[int, float]] = deque()
        """Revisions and since when they are in place: those that are not settled, and one more."""

    def enter(self) -> None:
        """One more watcher is here. To be called before anything is read for it."""
        with self._lock:
            self._open += 1

    def leave(self) -> None:
        """One of them has gone."""
        with self._lock:
            self._open -= 1
            self._left_at = time.monotonic()

    def applied(self, revision: int) -> None:
        """From now on no lease is given to who does not know this revision."""
        now = time.monotonic()
        with self._lock:
            while len(self._applied) > 1 and self._end(self._applied[1][1]) <= now:
                self._applied.popleft()
            self._applied.append((revision, now))

    def restarted(self, revision: int) -> None:
        """The same, where revisions count another history now."""
        with self._lock:
            self._applied.clear()
        self.applied(revision)

    def settled(self) -> int:
        """The latest revision from before which no watcher holds a lease; 0: none is."""
        now = time.monotonic()
        with self._lock:
            for revision, since in reversed(self._applied):
                if self._end(since) <= now:
                    return revision
        return 0

    def end(self, revision: int | None = None) -> float:
        """time.monotonic() of when a revision will be settled; None: of when every lease that was
        given until now has run out."""
        now = time.monotonic()
        with self._lock:
            if revision is None:
                return self._end(now)
            return self._end(next((at for one, at in self._applied if one >= revision), now))

    def _end(self, since: float) -> float:
        last_given = since if self._open else min(since, self._left_at)
        return last_given + LEASE_SECONDS_MAX * (1 + CLOCK_DRIFT)
