"""Waits, after a write, until no replica can answer from before it.

    state.barrier (raised by the caller) -> every replica, at its next poll -> replicas.acknowledged

A replica that does not acknowledge (stopped, cut off, dead) can answer from before the write only
for its own staleness bound. So a caller waits at most for the longest bound of the rows that exist
when it raises the barrier. A row that is inserted later belongs to a replica that has confirmed
nothing from before. ADR 12 has the whole argument.
"""

import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, select, update

from pdp.database.engine import announce, begin_read, connect_to_write
from pdp.errors import DatabaseUnavailable, Overloaded, RevisionNotReached
from pdp.facts.replica.leases import CLOCK_DRIFT
from pdp.facts.store import tables
from pdp.facts.store.changelog import CHANNEL
from pdp.facts.store.state import State, read_state

BARRIERS_MAX = 8
PAUSE_SECONDS_MIN = 0.005
PAUSE_SECONDS_MAX = 0.1


@dataclass(frozen=True, slots=True)
class BarrierResult:
    """No replica answers from before `revision` any more."""

    revision: int
    replicas: int
    """Number of replicas when the barrier was raised."""
    silent: int
    """Number of replicas that did not acknowledge; their staleness bounds have passed."""


class Barriers:
    """The barriers of one process. Thread-safe. Holds no connection while it waits."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._slots = threading.BoundedSemaphore(BARRIERS_MAX)

    def wait(self, revision: int) -> BarrierResult:
        """Waits until no replica answers from before a revision.

        Args:
            revision: A committed revision; 0: the latest one.

        Raises:
            RevisionNotReached: The database does not hold it, or was restored meanwhile.
            Overloaded: BARRIERS_MAX calls wait already.
            DatabaseUnavailable: The barrier could not be raised.
        """
        if not self._slots.acquire(blocking=False):
            raise Overloaded("barriers_max", BARRIERS_MAX)
        try:
            return self._wait(revision)
        finally:
            self._slots.release()

    def _wait(self, revision: int) -> BarrierResult:
        state, revision, bounds = self._raise(revision)
        # An answer from before was confirmed before this moment.
        began = time.monotonic()
        waiting = set(bounds)
        silent = 0
        pause = PAUSE_SECONDS_MIN
        while waiting:
            time.sleep(pause)
            pause = min(pause * 1.5, PAUSE_SECONDS_MAX)
            with suppress(
                DatabaseUnavailable
            ):  # the bounds of replicas pass without the database too
                waiting &= self._unacknowledged(revision, state.epoch)
            passed = time.monotonic() - began
            over = {replica for replica in waiting if passed > bounds[replica] * (1 + CLOCK_DRIFT)}
            silent += len(over)
            waiting -= over
        return BarrierResult(revision, len(bounds), silent)

    def _raise(self, revision: int) -> tuple[State, int, Mapping[str, float]]:
        """Returns the state, the revision to wait for, and the staleness bound of each replica, in
        seconds."""
        table = tables.state
        with connect_to_write(self._engine) as connection:
            with connection.begin():
                state = read_state(connection)
                if revision > state.revision:
                    raise _not_reached(revision, state)
                revision = revision or state.revision
                connection.execute(
                    update(table).where(table.c.barrier < revision).values(barrier=revision)
                )
                bounds = _bounds(connection)
            # If this fails, the replicas find the barrier by polling.
            with suppress(DatabaseUnavailable):
                announce(connection, CHANNEL)
        return state, revision, bounds

    def _unacknowledged(self, revision: int, epoch: str) -> set[str]:
        replicas = tables.replicas.c
        with begin_read(self._engine) as connection:
            state = read_state(connection)
            if state.epoch != epoch:
                # It restarted, was restored or failed over: the revision may be lost.
                raise RevisionNotReached(
                    "the database began a new epoch meanwhile; read what it holds, and ask again",
                    wanted=revision,
                    seen=state.revision,
                )
            query = select(replicas.id).where(replicas.acknowledged < revision)
            return set(connection.execute(query).scalars())


def _bounds(connection: Connection) -> dict[str, float]:
    replicas = tables.replicas.c
    rows = connection.execute(select(replicas.id, replicas.staleness_seconds_max))
    return {row.id: row.staleness_seconds_max for row in rows}


def _not_reached(revision: int, state: State) -> RevisionNotReached:
    return RevisionNotReached(
        f"revision {revision} is not in the database, which is at {state.revision}",
        wanted=revision,
        seen=state.revision,
    )
