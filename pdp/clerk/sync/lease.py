"""The sync lease: of all processes on one database, one syncs at a time. If it dies, another takes
over.

The only row of `clerk_sync` holds the current sync, its progress, and when the lease of its process
ends. A process that was paused and replaced finds the row of another there. That both have read the
same page is harmless: a repeated observation changes nothing.
"""

import json
from dataclasses import asdict, dataclass, replace
from typing import Self

from pdp.clock import Clock
from pdp.errors import ClerkUnavailable
from pdp.facts import Reader, Store
from pdp.facts.store.clerk_objects import SyncState, read_sync, write_sync

LEASE_SECONDS = 60.0
"""How long a process holds the lease without renewing it: longer than a request takes."""
RESUME_SECONDS = 3600.0
"""How long an interrupted sync can be resumed. Later, a new one begins: the data is too old."""
_BEGINNING = "beginning"
_DRY_RUN = "dry run"
"""A dry run is never resumed: its findings went to the process that started it."""


class LeaseNotHeld(ClerkUnavailable):
    """Another process holds the lease, or no sync is due."""


@dataclass(frozen=True, slots=True)
class LastSync:
    """The result of the last complete sync."""

    ended_at: float = 0
    """Unix seconds; 0: there was none."""
    drift: int = 0
    """How many differences it found and corrected."""


@dataclass(frozen=True, slots=True)
class Position:
    """The progress of a sync. Stored as JSON in `SyncState.cursor`."""

    last: LastSync = LastSync()
    cursor: str = ""
    """Within the phase."""
    done: int = 0
    """Objects that were read in the phase."""
    total: int | None = None
    """Objects of the phase, if known."""
    drift: int = 0
    """Differences found so far."""

    @classmethod
    def of(cls, state: SyncState) -> Self:
        """The position that a row holds."""
        if not state.cursor:
            return cls()
        parts = json.loads(state.cursor)
        return cls(**{**parts, "last": LastSync(**parts["last"])})

    def text(self) -> str:
        """The position as JSON."""
        return json.dumps(asdict(self))


def read_last_sync(store: Store) -> tuple[SyncState, LastSync]:
    """The row, and the last complete sync. Raises DatabaseUnavailable."""
    with store.read() as reader:
        state = read_sync(reader)
    return state, Position.of(state).last


def is_due(state: SyncState, now: float, interval_seconds: float) -> bool:
    """Whether the next sync may begin, or the sync of a dead process be taken over."""
    # A time further in the future than is ever written comes from a wrong clock, or from settings
    # that have changed since.
    longest = LEASE_SECONDS if state.step else interval_seconds
    return not now < state.due_at <= now + longest


class Lease:
    """The right to sync, of one process at a time."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        interval_seconds: float,
        *,
        when_due: bool = False,
        dry_run: bool = False,
    ) -> None:
        """Takes the lease, to resume an interrupted sync or to begin one.

        Args:
            store: The database.
            clock: The wall clock, which all processes share.
            interval_seconds: Time between two syncs.
            when_due: Take the lease only if a sync is due.
            dry_run: Write no facts.

        Raises:
            LeaseNotHeld: Another process holds the lease, or no sync is due.
            DatabaseUnavailable: The database does not answer.
        """
        self._store = store
        self._clock = clock
        self._interval_seconds = interval_seconds
        self._dry_run = dry_run
        with store.write() as transaction:
            self._before = read_sync(transaction)
            if self._before.step or when_due:
                self._require_due()
            self._state = self._first_state()
            write_sync(transaction, self._state)
        self.run = self._state.run
        self.phase = self._state.step
        """Where to continue, at `position`."""
        self.position = Position.of(self._state)

    def renew(self) -> None:
        """Checks the lease, and renews it when half of it has passed. Call it before each request.

        Raises:
            LeaseNotHeld: Another process has taken it over.
            DatabaseUnavailable: The database does not answer.
        """
        now = self._clock()
        if now + LEASE_SECONDS / 2 < self._state.due_at:
            with self._store.read() as reader:
                self._require_held(reader)
        else:
            self._write(replace(self._state, due_at=now + LEASE_SECONDS))

    def state_at(self, phase: str, position: Position) -> SyncState:
        """The row to write in the transaction of a page's observations; then call `advance`."""
        phase = _DRY_RUN if self._dry_run else phase
        return SyncState(self.run, phase, position.text(), self._clock() + LEASE_SECONDS)

    def advance(self, state: SyncState, drift: int) -> None:
        """Notes that the row was written, and `drift` more differences for the next row."""
        self._state = state
        position = Position.of(state)
        self.position = replace(position, drift=position.drift + drift)

    def end(self) -> None:
        """Ends a complete sync. Raises LeaseNotHeld and DatabaseUnavailable."""
        if self._dry_run:
            self.release()
            return
        now = self._clock()
        last = Position(LastSync(now, self.position.drift)).text()
        self._write(SyncState(self.run, "", last, now + self._interval_seconds))

    def release(self) -> None:
        """Gives up the lease early, so that another process can resume at once. Raises LeaseNotHeld
        and DatabaseUnavailable."""
        if not self._dry_run:
            self._write(replace(self._state, cursor=self.position.text(), due_at=self._clock()))
            return
        last = Position(self.position.last).text()
        due_at = self._clock() if self._before.step else self._before.due_at
        self._write(SyncState(self.run, "", last, due_at))

    def _first_state(self) -> SyncState:
        before, now = self._before, self._clock()
        interrupted = before.step not in ("", _DRY_RUN) and now - before.due_at < RESUME_SECONDS
        if interrupted and not self._dry_run:
            return replace(before, due_at=now + LEASE_SECONDS)
        phase = _DRY_RUN if self._dry_run else _BEGINNING
        position = Position(Position.of(before).last)
        return SyncState(before.run + 1, phase, position.text(), now + LEASE_SECONDS)

    def _require_due(self) -> None:
        if not is_due(self._before, self._clock(), self._interval_seconds):
            if not self._before.step:
                raise LeaseNotHeld("no sync is due yet")
            raise LeaseNotHeld(
                f"a sync is under way, or its process died less than {LEASE_SECONDS:.0f} s ago"
            )

    def _require_held(self, reader: Reader) -> None:
        found = read_sync(reader)
        if (found.run, found.due_at) != (self._state.run, self._state.due_at):
            raise LeaseNotHeld("another process has taken the sync over")

    def _write(self, state: SyncState) -> None:
        with self._store.write() as transaction:
            self._require_held(transaction)
            write_sync(transaction, state)
        self._state = state
