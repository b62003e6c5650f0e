"""The one row that says where the database stands: revision, epoch, barrier.

The epoch names the history that revisions count. On PostgreSQL it holds, beside what is stored,
when the server started: whatever takes committed revisions away (a restore from a backup, of any
kind; a standby that takes over and had not received them) ends one server and starts another. A
server that is merely restarted begins a new epoch too, which costs reading everything again.
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
    """As one transaction sees it."""

    revision: int
    epoch: str
    """Names the history that revisions count: another one after a restore."""
    barrier: int
    """The latest revision of which somebody waits to hear that every replica has applied it."""


def state_columns(dialect: str) -> list[ColumnElement[Any]]:
    """What `state_of` reads, of a query of `tables.state` on this engine."""
    state = tables.state.c
    columns: list[ColumnElement[Any]] = [state.revision, state.epoch, state.barrier]
    if dialect == "postgresql":
        columns += (_STARTED_AT, _STANDBY)
    return columns


def state_of(row: RowMapping) -> State:
    """Raises DatabaseUnavailable where a standby was asked, which may be behind by any time."""
    if row.get("is_standby"):
        raise DatabaseUnavailable("the database server takes no writes: it is a standby")
    epoch = row["epoch"]
    if "started_at" in row:
        epoch = f"{epoch}.{row['started_at']:x}"
    return State(row["revision"], epoch, row["barrier"])


def read_state(connection: Connection) -> State:
    """Raises DatabaseUnavailable where a standby was asked, which may be behind by any time."""
    query = _ON_POSTGRESQL if connection.dialect.name == "postgresql" else _ON_SQLITE
    return state_of(connection.execute(query).mappings().one())


def renew_epoch(engine: Engine) -> None:
    """To be done after a restore that the database itself cannot tell: what anybody remembers of
    the history before is dropped.

    Raises DatabaseUnavailable.
    """
    with begin_write(engine) as connection:
        before = read_state(connection)
        connection.execute(update(tables.state).values(epoch=secrets.token_hex(16), barrier=0))
        # What replicas acknowledged was of the other history.
        connection.execute(update(tables.replicas).values(acknowledged=0))
        after = read_state(connection)
    log.warning("epoch_changed", before=before.epoch, after=after.epoch, revision=after.revision)


_STARTED_AT = literal_column(
    "(extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint", BigInteger
).label("started_at")
_STANDBY = literal_column("pg_is_in_recovery()", Boolean).label("is_standby")
# Made once: to make one costs more than to execute it.
_ON_SQLITE = select(*state_columns("sqlite"))
_ON_POSTGRESQL = select(*state_columns("postgresql"))
