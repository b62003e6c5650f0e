"""The recent changes of a replica, in memory for subscribers: a subscription costs no SQL.

    replica -> History (one for each process, bounded) <- ChangeSubscription (one position each)

A subscription holds only its position. It returns, without waiting, the changes behind it. So a
slow subscriber costs no memory, and one that falls behind the start of the history must resync.
"""

import bisect
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pdp.errors import FactsStale, RevisionNotReached
from pdp.facts.replica.leases import Leases
from pdp.facts.replica.snapshot import Snapshot, SnapshotCell
from pdp.facts.store.changelog import Change

HISTORY_REVISIONS_MAX = 10_000
HISTORY_CHANGES_MAX = 100_000
CHANGES_PER_BATCH_MAX = 1_000
"""In one `ChangeBatch`, and so in one message."""
REACH_SECONDS_MAX = 1.0


# Compared by identity: to compare many changes would be slow.
@dataclass(frozen=True, slots=True, eq=False)
class RevisionPart:
    """All changes of one revision, or some of them."""

    revision: int
    changes: Sequence[Change]
    is_last: bool
    """Whether this is the last part of its revision."""

    @property
    def reached(self) -> int:
        """The latest revision that is complete once this part is processed."""
        return self.revision if self.is_last else self.revision - 1


@dataclass(frozen=True, slots=True)
class ChangeBatch:
    """The changes since the previous batch."""

    resync: bool
    """Changes were lost or are too many: the subscriber must drop everything. `parts` follow."""
    parts: Sequence[RevisionPart]
    epoch: str
    revision: int
    """The subscriber knows all changes up to here once it has processed this batch."""
    fresh_seconds: float | None
    """How much longer the replica may serve this revision; None: it serves another one."""


class History:
    """The latest changes of one replica, in order. One thread writes, any thread may read.

    Parts are numbered, and no number is used twice. A position is the number of the next part. A
    position before the first part in memory is too old.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: tuple[Callable[[], None], ...] = ()
        self._parts: deque[RevisionPart] = deque()
        self._first = 0
        self._changes = 0
        self._before = 0
        """The revision before the first part."""
        self._epoch = ""
        self.leases = Leases()

    def listen(self, listener: Callable[[], None]) -> None:
        """Calls `listener` after each change. It must return quickly."""
        self._listeners = (*self._listeners, listener)

    def publish(self, found: Mapping[int, Sequence[Change]]) -> None:
        """Appends applied revisions, which follow the last one without a gap."""
        with self._lock:
            for revision, changes in found.items():
                for part in _split(revision, changes):
                    self._parts.append(part)
                    self._changes += len(part.changes)
            while len(self._parts) > HISTORY_REVISIONS_MAX or self._changes > HISTORY_CHANGES_MAX:
                part = self._parts.popleft()
                self._first += 1
                self._before = part.revision
                self._changes -= len(part.changes)
        self.leases.applied(self._revision())
        self._notify()

    def restart(self, epoch: str, revision: int) -> None:
        """Empties the history: the replica has reloaded everything at this revision."""
        with self._lock:
            # Skips one number, so that every earlier position is too old.
            self._first += len(self._parts) + 1
            self._parts.clear()
            self._changes = 0
            self._before = revision
            self._epoch = epoch
        self.leases.restarted(revision)
        self._notify()

    def end(self) -> tuple[str, int, int]:
        """Returns epoch, revision and position of the end of the history."""
        with self._lock:
            return self._epoch, self._revision(), self._first + len(self._parts)

    def find(self, epoch: str, after: int) -> int | None:
        """Returns the position after a revision; None: the changes after it are not in memory.

        Raises:
            RevisionNotReached: The revision is later than the end of the history.
        """
        with self._lock:
            if epoch != self._epoch or after < self._before:
                return None
            if after > self._revision():
                seen = self._revision()
                raise RevisionNotReached(
                    f"revision {after} is not reached: this process is at {seen}",
                    wanted=after,
                    seen=seen,
                )
            return self._first + bisect.bisect_right(
                self._parts, after, key=lambda part: part.revision
            )

    def since(self, position: int) -> Sequence[RevisionPart] | None:
        """Returns the parts from a position on that fit into a batch; None: it is too old."""
        with self._lock:
            index = position - self._first
            if index < 0:
                return None
            parts: list[RevisionPart] = []
            room = CHANGES_PER_BATCH_MAX
            for place in range(index, len(self._parts)):
                part = self._parts[place]
                room -= len(part.changes)
                if room < 0:
                    break
                parts.append(part)
            return parts

    def _revision(self) -> int:
        return self._parts[-1].revision if self._parts else self._before

    def _notify(self) -> None:
        for listener in self._listeners:
            listener()


class ChangeSubscription:
    """A position in the history of a replica. Without an epoch it begins at the end.

    For one thread at a time. No method waits. The owner calls `close` exactly once.
    """

    def __init__(
        self,
        cell: SnapshotCell,
        history: History,
        staleness_seconds_max: float,
        epoch: str,
        after_revision: int,
    ) -> None:
        history.leases.enter()
        self._cell = cell
        self._history = history
        self._staleness_seconds_max = staleness_seconds_max
        self._epoch = epoch
        self._revision = after_revision
        self._position: int | None = None
        self._began = time.monotonic()

    def next_batch(self) -> ChangeBatch:
        """Returns the changes since the last call.

        Raises:
            FactsStale: The newest revision was not confirmed within the bound.
            RevisionNotReached: The revision to begin after was not seen within REACH_SECONDS_MAX.
        """
        # Read before the history: an older snapshot confirms nothing about later changes.
        snapshot = self._cell.current
        age_seconds = time.monotonic() - snapshot.confirmed_at
        fresh_seconds = self._staleness_seconds_max - age_seconds
        if fresh_seconds <= 0:
            raise FactsStale(
                "every change was not confirmed as seen in time",
                age_seconds=age_seconds,
                bound_seconds=self._staleness_seconds_max,
            )
        resync = self._position is None and not self._find()
        found = None if self._position is None else self._history.since(self._position)
        if self._position is not None and found is None:
            resync = True
            self._go_to_end()
        parts = found or ()
        if parts and self._position is not None:
            self._position += len(parts)
            self._revision = parts[-1].reached
        return ChangeBatch(
            resync,
            parts,
            self._epoch,
            self._revision,
            fresh_seconds if self._position is not None and self._is_at(snapshot) else None,
        )

    def close(self) -> None:
        """Ends the subscription. Until then a barrier waits for the lease of the subscriber."""
        self._history.leases.leave()

    def _find(self) -> bool:
        """Finds the position to begin at; False: the changes after it are not in memory."""
        if not self._epoch:
            self._go_to_end()
            return True
        try:
            self._position = self._history.find(self._epoch, self._revision)
        except RevisionNotReached:
            # Another process was ahead of this one; this one will catch up soon.
            if time.monotonic() - self._began > REACH_SECONDS_MAX:
                raise
            return True
        if self._position is None:
            self._go_to_end()
            return False
        return True

    def _go_to_end(self) -> None:
        self._epoch, self._revision, self._position = self._history.end()

    def _is_at(self, snapshot: Snapshot) -> bool:
        return snapshot.revision == self._revision and snapshot.epoch == self._epoch


def _split(revision: int, changes: Sequence[Change]) -> Iterator[RevisionPart]:
    for begin in range(0, len(changes), CHANGES_PER_BATCH_MAX):
        end = begin + CHANGES_PER_BATCH_MAX
        yield RevisionPart(revision, tuple(changes[begin:end]), end >= len(changes))
