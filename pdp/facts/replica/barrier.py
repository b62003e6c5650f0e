"""Waiting, after a write, until nobody anywhere can answer from before it.

    state.barrier (raised by who waits) -> every replica, at its next poll -> replicas.acknowledged

A replica that does not acknowledge cannot have answered from before for longer than its own bound:
it may be stopped, cut off, or dead. So whoever waits never waits longer than the longest bound of
the rows that there are once the barrier is raised; rows that come later belong to replicas that
have confirmed nothing from before. ADR 12 has the whole argument.
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
LOOK_SECONDS_MIN = 0.005
LOOK_SECONDS_MAX = 0.1


@dataclass(frozen=True, slots=True)
class Passed:
    """Nobody answers from before `revision` any more."""

    revision: int
    replicas: int
    """How many there were."""
    silent: int
    """How many of them did not say so, and could not have answered for longer than was waited."""


class Barriers:
    """Those of one process. Thread-safe. No connection is held while one waits."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._room = threading.BoundedSemaphore(BARRIERS_MAX)

    def wait(self, revision: int) -> Passed:
        """Waits until nobody answers from before a revision; 0: the one that is committed last.

        Raises:
            RevisionNotReached: it is not committed, or no longer: the database was restored.
            Overloaded: BARRIERS_MAX wait already.
            DatabaseUnavailable: the barrier could not be raised.
        """
        if not self._room.acquire(blocking=False):
            raise Overloaded("barriers_max", BARRIERS_MAX)
        try:
            return self._wait(revision)
        finally:
            self._room.release()

    def _wait(self, revision: int) -> Passed:
        state, revision, bounds = self._raise(revision)
        # Whoever answers from before has confirmed that before this moment.
        began = time.monotonic()
        waiting = set(bounds)
        silent = 0
        pause = LOOK_SECONDS_MIN
        while waiting:
            time.sleep(pause)
            pause = min(pause * 1.5, LOOK_SECONDS_MAX)
            with suppress(DatabaseUnavailable):  # time passes for replicas without it too
                waiting &= self._unacknowledged(revision, state.epoch)
            passed = time.monotonic() - began
            over = {one for one in waiting if passed > bounds[one] * (1 + CLOCK_DRIFT)}
            silent += len(over)
            waiting -= over
        return Passed(revision, len(bounds), silent)

    def _raise(self, revision: int) -> tuple[State, int, Mapping[str, float]]:
        """The state, the revision that is meant, and how long each replica that there is may answer
        from what it confirmed last."""
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
            # What fails here is found by polling.
            with suppress(DatabaseUnavailable):
                announce(connection, CHANNEL)
        return state, revision, bounds

    def _unacknowledged(self, revision: int, epoch: str) -> set[str]:
        replicas = tables.replicas.c
        with begin_read(self._engine) as connection:
            state = read_state(connection)
            if state.epoch != epoch:
                # It restarted, was restored or failed over: what was waited for may not be in it.
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
