"""The single row with the state of the database: revision, epoch, barrier.

The epoch identifies the history that revisions count. On PostgreSQL it includes the start time of
the server, because every event that loses committed revisions (a restore from a backup, a failover
to a standby that lacks them) starts another server. A plain restart begins a new epoch too; it only
costs a reload.
"""

import secrets
from dataclasses import dataclass
from typing import Any

import structlog
from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    Connection,
    Engine,
    RowMapping,
    literal_column,
    select,
    update,
)

from pdp.database.engine import begin_write
from pdp.errors import DatabaseUnavailable
from pdp.facts.store import tables

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class State:
    """The state, as one transaction sees it."""

    revision: int
    epoch: str
    """Identifies the history that revisions count; changes after a restore."""
    barrier: int
    """The latest revision that a caller waits for every replica to apply."""


def state_columns(dialect: str) -> list[ColumnElement[Any]]:
    """Returns the columns that `state_of` needs, in a query of `tables.state`."""
    state = tables.state.c
    columns: list[ColumnElement[Any]] = [state.revision, state.epoch, state.barrier]
    if dialect == "postgresql":
        columns += (_STARTED_AT, _STANDBY)
    return columns


def state_of(row: RowMapping) -> State:
    """Converts a row.

    Raises:
        DatabaseUnavailable: The server is a standby, which may lag by any time.
    """
    if row.get("is_standby"):
        raise DatabaseUnavailable("the database server takes no writes: it is a standby")
    epoch = row["epoch"]
    if "started_at" in row:
        epoch = f"{epoch}.{row['started_at']:x}"
    return State(row["revision"], epoch, row["barrier"])


def read_state(connection: Connection) -> State:
    """Reads the state.

    Raises:
        DatabaseUnavailable: The server is a standby, which may lag by any time.
    """
    query = _ON_POSTGRESQL if connection.dialect.name == "postgresql" else _ON_SQLITE
    return state_of(connection.execute(query).mappings().one())


def renew_epoch(engine: Engine) -> None:
    """Begins a new epoch, so that every replica and client drops what it remembers.

    Call it after a restore that the database itself cannot detect.

    Raises:
        DatabaseUnavailable: The database does not answer.
    """
    with begin_write(engine) as connection:
        before = read_state(connection)
        connection.execute(update(tables.state).values(epoch=secrets.token_hex(16), barrier=0))
        # Replicas acknowledged revisions of the other history.
        connection.execute(update(tables.replicas).values(acknowledged=0))
        after = read_state(connection)
    log.warning("epoch_changed", before=before.epoch, after=after.epoch, revision=after.revision)


_STARTED_AT = literal_column(
    "(extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint", BigInteger
).label("started_at")
_STANDBY = literal_column("pg_is_in_recovery()", Boolean).label("is_standby")
# Built once: to build a query costs more than to execute it.
_ON_SQLITE = select(*state_columns("sqlite"))
_ON_POSTGRESQL = select(*state_columns("postgresql"))
