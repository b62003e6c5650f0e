"""The row in `replicas` that lets a waiting barrier know of a replica.

In: what the replica has applied. Out: the row in `replicas`, refreshed and verified.

A replica confirms a revision only if the same transaction saw its row. So no row means: no replica
answers. A replica removes its row once no answer can depend on it any more. Other replicas
remove the row if it was not refreshed for SILENT_SECONDS_MAX plus the replica's own bound; long
before that, after UNREFRESHED_SECONDS_MAX, the replica itself confirms nothing. Each replica
measures this on its own monotonic clock, from what it saw itself. `seen_at` is only compared with
itself, so a clock that jumps does not matter. ADR 12 has the whole argument.
"""

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    bindparam,
    delete,
    insert,
    literal_column,
    select,
    update,
)

from pdp.database.engine import begin_poll, begin_read, connect_to_poll, database_errors
from pdp.errors import DatabaseUnavailable, FactsStale
from pdp.facts.store import tables
from pdp.facts.store.state import State, read_state, state_columns, state_of

REFRESH_SECONDS = 10.0
UNREFRESHED_SECONDS_MAX = 30.0
SILENT_SECONDS_MAX = 60.0

_NOW: Mapping[str, ColumnElement[float]] = {
    "postgresql": literal_column("extract(epoch FROM clock_timestamp())"),
    "sqlite": literal_column("(julianday('now') - 2440587.5) * 86400.0"),
}
_NEVER = float("-inf")


@dataclass(frozen=True, slots=True)
class KnownReplica:
    """What the database knows about a replica."""

    id: str
    staleness_seconds_max: float
    """How long it may answer without a confirmation that it is current."""
    silent_seconds: float
    """Since it refreshed its row, which it does every REFRESH_SECONDS."""


def known_replicas(engine: Engine) -> Sequence[KnownReplica]:
    """Returns all replicas that have a row, by id. Raises DatabaseUnavailable."""
    row = tables.replicas.c
    silent = _NOW[engine.dialect.name] - row.seen_at
    query = select(row.id, row.staleness_seconds_max, silent).order_by(row.id)
    with begin_read(engine) as connection:
        return [KnownReplica(*found) for found in connection.execute(query)]


@dataclass(frozen=True, slots=True)
class PollResult:
    """The state of the database and the row of this replica, as one transaction sees them."""

    state: State
    acknowledged: int
    connection: Connection


class Registration:
    """The row of one replica, and the connection that polls the database.

    The connection is not of the pool, so that no load of requests can delay a poll. For one thread
    at a time, except `require`.
    """

    def __init__(self, engine: Engine, staleness_seconds_max: float) -> None:
        self._engine = engine
        self._id = str(uuid.uuid4())
        self._staleness_seconds_max = staleness_seconds_max
        self._connection: Connection | None = None
        self._refreshed_at = _NEVER
        """time.monotonic() before the row was last written; _NEVER: it must be inserted."""
        self._was_registered = False
        self._others: dict[tuple[str, float], float] = {}
        """Id and `seen_at` of other rows -> time.monotonic() when this pair was first seen."""
        dialect = engine.dialect.name
        self._now = _NOW[dialect]
        self._query = select(*state_columns(dialect), tables.replicas.c.acknowledged).select_from(
            tables.state.outerjoin(tables.replicas, tables.replicas.c.id == bindparam("replica"))
        )

    def refresh(self) -> None:
        """Inserts or refreshes the row if it is due. A failure is retried at the next call.

        Raises:
            DatabaseUnavailable: The row is older than UNREFRESHED_SECONDS_MAX, so that nothing may
                be confirmed.
        """
        now = time.monotonic()
        if now < self._refreshed_at + REFRESH_SECONDS:
            return
        try:
            with self._transaction(write=True) as connection:
                self._write(connection)
            self._refreshed_at = now
            self._remove_silent()
        except DatabaseUnavailable:
            if now >= self._refreshed_at + UNREFRESHED_SECONDS_MAX:
                raise

    @contextmanager
    def poll(self) -> Iterator[PollResult]:
        """Reads the state of the database, in a transaction that lasts as long as the block.

        Raises:
            FactsStale: The row is missing; the next `refresh` inserts it.
            DatabaseUnavailable: The database cannot be reached or does not answer soon.
        """
        with self._transaction() as connection:
            row = connection.execute(self._query, {"replica": self._id}).mappings().one()
            state = state_of(row)
            acknowledged = row["acknowledged"]
            if acknowledged is None:
                self._refreshed_at = _NEVER
                raise FactsStale("this process is not registered")
            self._was_registered = True
            yield PollResult(state, acknowledged, connection)

    def require(self, connection: Connection) -> None:
        """Checks that the row exists, in the transaction of another thread.

        Raises:
            FactsStale: It is missing or was not refreshed in time.
        """
        replicas = tables.replicas.c
        row = connection.execute(select(replicas.id).where(replicas.id == self._id)).first()
        if row is None or time.monotonic() >= self._refreshed_at + UNREFRESHED_SECONDS_MAX:
            raise FactsStale("this process is not registered")

    def acknowledge(self, revision: int, epoch: str) -> None:
        """Records that no answer from before this revision depends on this replica any more.

        Raises:
            DatabaseUnavailable: It was not recorded; the next call may succeed.
        """
        replicas = tables.replicas
        with self._transaction(write=True) as connection:
            # The database may have been restored meanwhile.
            if read_state(connection).epoch == epoch:
                connection.execute(
                    update(replicas).where(replicas.c.id == self._id).values(acknowledged=revision)
                )

    def leave(self) -> None:
        """Removes the row. Call it once no answer depends on this replica any more."""
        if self._refreshed_at != _NEVER:
            replicas = tables.replicas
            with suppress(DatabaseUnavailable), self._transaction(write=True) as connection:
                connection.execute(delete(replicas).where(replicas.c.id == self._id))
        self._disconnect()

    def _write(self, connection: Connection) -> None:
        replicas = tables.replicas
        own = replicas.c.id == self._id
        if self._refreshed_at != _NEVER:
            connection.execute(update(replicas).where(own).values(seen_at=self._now))
            return
        # A replica that never served starts at the current revision; one that did starts at 0.
        acknowledged = 0 if self._was_registered else read_state(connection).revision
        # The row may exist: the confirmation of an earlier insert may have been lost.
        connection.execute(delete(replicas).where(own))
        connection.execute(
            insert(replicas).values(
                id=self._id,
                acknowledged=acknowledged,
                staleness_seconds_max=self._staleness_seconds_max,
                seen_at=self._now,
            )
        )

    def _remove_silent(self) -> None:
        replicas = tables.replicas.c
        with self._transaction() as connection:
            rows = connection.execute(
                select(replicas.id, replicas.seen_at, replicas.staleness_seconds_max)
            ).all()
        now = time.monotonic()
        self._others = {
            (row.id, row.seen_at): self._others.get((row.id, row.seen_at), now)
            for row in rows
            if row.id != self._id
        }
        for row in rows:
            since = self._others.get((row.id, row.seen_at), now)
            if now > since + SILENT_SECONDS_MAX + row.staleness_seconds_max:
                quiet = delete(tables.replicas).where(
                    replicas.id == row.id, replicas.seen_at == row.seen_at
                )
                with self._transaction(write=True) as connection:
                    connection.execute(quiet)

    @contextmanager
    def _transaction(self, *, write: bool = False) -> Iterator[Connection]:
        try:
            with database_errors():
                if self._connection is None:
                    self._connection = connect_to_poll(self._engine)
                with begin_poll(self._connection, write=write):
                    yield self._connection
        except DatabaseUnavailable:
            self._disconnect()
            raise

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(DatabaseUnavailable), database_errors():
                connection.close()
