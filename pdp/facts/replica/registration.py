"""The row by which those who wait at a barrier know of a replica.

In: what the replica has applied. Out: the row in `replicas`, kept fresh and seen to be there.

A replica confirms nothing unless its row was there in the same look at the database, so who sees
no row knows that nobody stands behind it. A row is removed by its replica once nobody can give an
answer because of it any more; and by others once it was not refreshed for QUIET_SECONDS and the
replica's own bound, while a replica that could not refresh its row for UNREFRESHED_SECONDS_MAX
confirms nothing. Each of them counts that on its own monotonic clock from what it saw itself:
`seen_at` is only compared with itself, so that no clock that jumps can matter. ADR 12 has the
whole argument.
"""

import time
import uuid
from collections.abc import Iterator, Mapping
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

from pdp.database.engine import begin_poll, connect_to_poll, database_errors
from pdp.errors import DatabaseUnavailable, FactsStale
from pdp.facts.store import tables
from pdp.facts.store.state import State, read_state, state_columns, state_of

REFRESH_SECONDS = 10.0
UNREFRESHED_SECONDS_MAX = 30.0
QUIET_SECONDS = 60.0

_NOW: Mapping[str, ColumnElement[float]] = {
    "postgresql": literal_column("extract(epoch FROM clock_timestamp())"),
    "sqlite": literal_column("(julianday('now') - 2440587.5) * 86400.0"),
}
_NEVER = float("-inf")


@dataclass(frozen=True, slots=True)
class Standing:
    """Where the database stands, and the row of this replica, in one transaction."""

    state: State
    acknowledged: int
    connection: Connection


class Registration:
    """The row of one replica, and the connection with which it follows the database: its own, so
    that no load of requests can keep a replica from knowing that it is current. For one thread at
    a time, but for `require`."""

    def __init__(self, engine: Engine, staleness_seconds_max: float) -> None:
        self._engine = engine
        self._id = str(uuid.uuid4())
        self._staleness_seconds_max = staleness_seconds_max
        self._connection: Connection | None = None
        self._refreshed_at = _NEVER
        """time.monotonic() before the row was last written; never: it has to be made."""
        self._has_stood = False
        self._others: dict[tuple[str, float], float] = {}
        """Id and `seen_at` of other rows -> since when they are known to have been so."""
        dialect = engine.dialect.name
        self._now = _NOW[dialect]
        self._query = select(*state_columns(dialect), tables.replicas.c.acknowledged).select_from(
            tables.state.outerjoin(tables.replicas, tables.replicas.c.id == bindparam("replica"))
        )

    def refresh(self) -> None:
        """Makes or refreshes the row where it is time to.

        Raises DatabaseUnavailable where it could not for so long that nothing may be confirmed;
        before that it is tried again the next time.
        """
        now = time.monotonic()
        if now < self._refreshed_at + REFRESH_SECONDS:
            return
        try:
            with self._transaction(write=True) as connection:
                self._write(connection)
            self._refreshed_at = now
            self._remove_quiet()
        except DatabaseUnavailable:
            if now >= self._refreshed_at + UNREFRESHED_SECONDS_MAX:
                raise

    @contextmanager
    def look(self) -> Iterator[Standing]:
        """One look at the database.

        Raises:
            FactsStale: the row is not there; the next `refresh` makes it.
            DatabaseUnavailable: the database cannot be reached or does not answer soon.
        """
        with self._transaction() as connection:
            row = connection.execute(self._query, {"replica": self._id}).mappings().one()
            state = state_of(row)
            acknowledged = row["acknowledged"]
            if acknowledged is None:
                self._refreshed_at = _NEVER
                raise FactsStale("this process is not registered")
            self._has_stood = True
            yield Standing(state, acknowledged, connection)

    def require(self, connection: Connection) -> None:
        """The same, for another thread and in its own transaction. Raises FactsStale."""
        replicas = tables.replicas.c
        row = connection.execute(select(replicas.id).where(replicas.id == self._id)).first()
        if row is None or time.monotonic() >= self._refreshed_at + UNREFRESHED_SECONDS_MAX:
            raise FactsStale("this process is not registered")

    def acknowledge(self, revision: int, epoch: str) -> None:
        """Says that nobody gives answers from before this revision because of this replica.

        Raises DatabaseUnavailable; the next one may say it.
        """
        replicas = tables.replicas
        with self._transaction(write=True) as connection:
            # The database may have been restored since that was true of it.
            if read_state(connection).epoch == epoch:
                connection.execute(
                    update(replicas).where(replicas.c.id == self._id).values(acknowledged=revision)
                )

    def leave(self) -> None:
        """Removes the row. To be called when nobody gives answers because of this replica."""
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
        # Who has never answered cannot have from before; who has, may.
        acknowledged = 0 if self._has_stood else read_state(connection).revision
        # It may be there: that it was made is not always heard.
        connection.execute(delete(replicas).where(own))
        connection.execute(
            insert(replicas).values(
                id=self._id,
                acknowledged=acknowledged,
                staleness_seconds_max=self._staleness_seconds_max,
                seen_at=self._now,
            )
        )

    def _remove_quiet(self) -> None:
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
            if now > since + QUIET_SECONDS + row.staleness_seconds_max:
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
