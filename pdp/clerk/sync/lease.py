"""Whose turn it is to sync: of all processes on one database one at a time, whom another replaces
when it dies.

The one row of `clerk_sync` says which sync is under way, how far it has come and until when its
process is believed to be alive. A process that was paused and replaced finds another's word there.
That both have read the same page meanwhile does no harm: what is seen twice changes nothing.
"""

import json
from dataclasses import asdict, dataclass, replace
from typing import Self

from pdp.clock import Clock
from pdp.errors import ClerkUnavailable
from pdp.facts import Reader, Store
from pdp.facts.store.clerk_objects import SyncState, read_sync, write_sync

LEASE_SECONDS = 60.0
"""How long a process is believed to be alive that says nothing: longer than a request takes."""
RESUME_SECONDS = 3600.0
"""How long after it broke off a sync goes on. Later it starts over: what it saw is too old."""
_BEGINNING = "beginning"
_DRY_RUN = "dry run"
"""Nobody goes on with a dry run: what it found was told to who started it."""


class NotOurTurn(ClerkUnavailable):
    """Another process syncs."""


@dataclass(frozen=True, slots=True)
class Last:
    """What became of the last complete sync."""

    ended_at: float = 0
    """Unix seconds; 0: there was none."""
    drift: int = 0
    """How many differences it found and healed."""


@dataclass(frozen=True, slots=True)
class Place:
    """How far a sync has come. Kept as JSON in `SyncState.cursor`."""

    last: Last = Last()
    cursor: str = ""
    """Within the step."""
    done: int = 0
    """Objects that were read in the step."""
    total: int | None = None
    """Of the step, where it is known."""
    drift: int = 0
    """Differences found so far."""

    @classmethod
    def of(cls, state: SyncState) -> Self:
        if not state.cursor:
            return cls()
        parts = json.loads(state.cursor)
        return cls(**{**parts, "last": Last(**parts["last"])})

    def text(self) -> str:
        return json.dumps(asdict(self))


def read_last(store: Store) -> tuple[SyncState, Last]:
    """The row, and the last complete sync. Raises DatabaseUnavailable."""
    with store.read() as reader:
        state = read_sync(reader)
    return state, Place.of(state).last


def is_due(state: SyncState, now: float, interval_seconds: float) -> bool:
    """Whether a sync may begin, one at each interval, or another's be taken over."""
    # A time further off than is ever written comes from a clock that was wrong, or from settings
    # that have changed since.
    longest = LEASE_SECONDS if state.step else interval_seconds
    return not now < state.due_at <= now + longest


class Turn:
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
        """Takes the turn, to go on with what another broke off or to begin; with `when_due` only
        if a sync is due. Raises NotOurTurn and DatabaseUnavailable."""
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
        self.step = self._state.step
        """Where to go on, at `place`."""
        self.place = Place.of(self._state)

    def hold(self) -> None:
        """Makes sure that nobody else has the turn; to be called before each request.

        Raises NotOurTurn and DatabaseUnavailable.
        """
        now = self._clock()
        if now + LEASE_SECONDS / 2 < self._state.due_at:
            with self._store.read() as reader:
                self._require_ours(reader)
        else:
            self._write(replace(self._state, due_at=now + LEASE_SECONDS))

    def state_at(self, step: str, place: Place) -> SyncState:
        """What is to be written together with what was seen up to there; then call `reached`."""
        step = _DRY_RUN if self._dry_run else step
        return SyncState(self.run, step, place.text(), self._clock() + LEASE_SECONDS)

    def reached(self, state: SyncState, drift: int) -> None:
        """The state was written, and so many more differences were found: they are written down
        with whatever is written next."""
        self._state = state
        place = Place.of(state)
        self.place = replace(place, drift=place.drift + drift)

    def end(self) -> None:
        """All was read. Raises NotOurTurn and DatabaseUnavailable."""
        if self._dry_run:
            self.give_back()
            return
        now = self._clock()
        last = Place(Last(now, self.place.drift)).text()
        self._write(SyncState(self.run, "", last, now + self._interval_seconds))

    def give_back(self) -> None:
        """Breaks off: whoever comes next may go on at once. Raises NotOurTurn and
        DatabaseUnavailable."""
        if not self._dry_run:
            self._write(replace(self._state, cursor=self.place.text(), due_at=self._clock()))
            return
        last = Place(self.place.last).text()
        due_at = self._clock() if self._before.step else self._before.due_at
        self._write(SyncState(self.run, "", last, due_at))

    def _first_state(self) -> SyncState:
        before, now = self._before, self._clock()
        broke_off = before.step not in ("", _DRY_RUN) and now - before.due_at < RESUME_SECONDS
        if broke_off and not self._dry_run:
            return replace(before, due_at=now + LEASE_SECONDS)
        step = _DRY_RUN if self._dry_run else _BEGINNING
        place = Place(Place.of(before).last)
        return SyncState(before.run + 1, step, place.text(), now + LEASE_SECONDS)

    def _require_due(self) -> None:
        if not is_due(self._before, self._clock(), self._interval_seconds):
            if not self._before.step:
                raise NotOurTurn("no sync is due yet")
            raise NotOurTurn(
                f"a sync is under way, or its process died less than {LEASE_SECONDS:.0f} s ago"
            )

    def _require_ours(self, reader: Reader) -> None:
        found = read_sync(reader)
        if (found.run, found.due_at) != (self._state.run, self._state.due_at):
            raise NotOurTurn("another process has taken the sync over")

    def _write(self, state: SyncState) -> None:
        with self._store.write() as transaction:
            self._require_ours(transaction)
            write_sync(transaction, state)
        self._state = state
