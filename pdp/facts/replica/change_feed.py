"""What was applied lately, kept in memory for those who watch: watching costs no SQL.

    replica -> History (one a process, bounded) <- Watch (one a watcher: a place in the history)

A watch holds nothing but its place and is asked, without waiting, for what came after; so a watcher
that asks slowly costs no memory, and one that falls off the end of the history starts over.
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

REVISIONS_KEPT_MAX = 10_000
CHANGES_KEPT_MAX = 100_000
CHANGES_AT_ONCE_MAX = 1_000
"""Of one `News`, and so of one message."""
REACH_SECONDS_MAX = 1.0


# Compared as itself: a step is a place in one history, and its changes are many.
@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """Changes of one revision; all of them, or a part."""

    revision: int
    changes: Sequence[Change]
    is_last: bool
    """Whether no other part of this revision follows."""

    @property
    def reached(self) -> int:
        """The revision up to which everything is known, once this is."""
        return self.revision if self.is_last else self.revision - 1


@dataclass(frozen=True, slots=True)
class News:
    """What came after the news before."""

    start_over: bool
    """What came in between is not at hand, or too much to tell; `steps` go on behind that."""
    steps: Sequence[Step]
    behind: bool
    """Whether there is more to be told."""
    epoch: str
    revision: int
    """All changes up to here have been told with this."""
    left_seconds: float | None
    """How much longer the replica may answer from this revision; None: it does not now."""


class History:
    """The latest steps of one replica, in order. One thread writes, any may read.

    Steps are numbered, and no number is given twice: a place is the number of the step that is to
    come, and whatever was before the first step that is kept is too old.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: tuple[Callable[[], None], ...] = ()
        self._steps: deque[Step] = deque()
        self._first = 0
        self._changes = 0
        self._before = 0
        """The revision before the first step."""
        self._epoch = ""
        self.leases = Leases()

    def listen(self, listener: Callable[[], None]) -> None:
        """Has `listener` called, and not waited for long, each time that there is news."""
        self._listeners = (*self._listeners, listener)

    def publish(self, found: Mapping[int, Sequence[Change]]) -> None:
        """The replica has applied these revisions, which follow the last one without a gap."""
        with self._lock:
            for revision, changes in found.items():
                for step in _steps(revision, changes):
                    self._steps.append(step)
                    self._changes += len(step.changes)
            while len(self._steps) > REVISIONS_KEPT_MAX or self._changes > CHANGES_KEPT_MAX:
                step = self._steps.popleft()
                self._first += 1
                self._before = step.revision
                self._changes -= len(step.changes)
        self.leases.applied(self._revision())
        self._tell()

    def restart(self, epoch: str, revision: int) -> None:
        """The replica has started over at this revision, whatever was before."""
        with self._lock:
            # One number is passed over: no place from before is at hand any more.
            self._first += len(self._steps) + 1
            self._steps.clear()
            self._changes = 0
            self._before = revision
            self._epoch = epoch
        self.leases.restarted(revision)
        self._tell()

    def end(self) -> tuple[str, int, int]:
        """Epoch, revision and place behind everything that is known."""
        with self._lock:
            return self._epoch, self._revision(), self._first + len(self._steps)

    def find(self, epoch: str, after: int) -> int | None:
        """The place behind all steps of this revision; None where what follows is not at hand.

        Raises:
            RevisionNotReached: it is later than what is known.
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
                self._steps, after, key=lambda step: step.revision
            )

    def since(self, place: int) -> tuple[Sequence[Step], bool] | None:
        """The next steps from a place on, and whether there are more; None: they are gone."""
        with self._lock:
            index = place - self._first
            if index < 0:
                return None
            steps: list[Step] = []
            room = CHANGES_AT_ONCE_MAX
            while index < len(self._steps):
                step = self._steps[index]
                room -= len(step.changes)
                if room < 0:
                    return steps, True
                steps.append(step)
                index += 1
            return steps, False

    def _revision(self) -> int:
        return self._steps[-1].revision if self._steps else self._before

    def _tell(self) -> None:
        for listener in self._listeners:
            listener()


class Watch:
    """A place in the history of a replica. Without an epoch it begins behind everything.

    For one thread at a time. Nothing here waits. Whoever has one closes it, once.
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
        self._place: int | None = None
        self._began = time.monotonic()

    def news(self) -> News:
        """What came since the last call.

        Raises:
            FactsStale: the newest revision is not known within the bound.
            RevisionNotReached: the one to begin after was not seen within a second.
        """
        # First of all: a snapshot that is older than the history confirms nothing of what is newer.
        snapshot = self._cell.current
        age_seconds = time.monotonic() - snapshot.confirmed_at
        left_seconds = self._staleness_seconds_max - age_seconds
        if left_seconds <= 0:
            raise FactsStale(
                "every change was not confirmed as seen in time",
                age_seconds=age_seconds,
                bound_seconds=self._staleness_seconds_max,
            )
        start_over = self._place is None and not self._find()
        found = None if self._place is None else self._history.since(self._place)
        if self._place is not None and found is None:
            start_over = True
            self._go_to_end()
        steps, behind = found or ((), False)
        if steps and self._place is not None:
            self._place += len(steps)
            self._revision = steps[-1].reached
        return News(
            start_over,
            steps,
            behind,
            self._epoch,
            self._revision,
            left_seconds if self._place is not None and self._is_at(snapshot) else None,
        )

    def close(self) -> None:
        """Nobody asks any more. Until then a barrier waits for the watcher's lease."""
        self._history.leases.leave()

    def _find(self) -> bool:
        """Looks for the place to begin at; False where what follows is not at hand."""
        if not self._epoch:
            self._go_to_end()
            return True
        try:
            self._place = self._history.find(self._epoch, self._revision)
        except RevisionNotReached:
            # Another process of the service was ahead of this one; it will not be for long.
            if time.monotonic() - self._began > REACH_SECONDS_MAX:
                raise
            return True
        if self._place is None:
            self._go_to_end()
            return False
        return True

    def _go_to_end(self) -> None:
        self._epoch, self._revision, self._place = self._history.end()

    def _is_at(self, snapshot: Snapshot) -> bool:
        return snapshot.revision == self._revision and snapshot.epoch == self._epoch


def _steps(revision: int, changes: Sequence[Change]) -> Iterator[Step]:
    for begin in range(0, len(changes), CHANGES_AT_ONCE_MAX):
        end = begin + CHANGES_AT_ONCE_MAX
        yield Step(revision, tuple(changes[begin:end]), end >= len(changes))
