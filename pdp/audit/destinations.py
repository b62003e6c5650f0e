"""Destinations of a shipper: the protocol, and SQL, where every log ends."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from sqlalchemy import Connection, Engine, Table, select
from sqlalchemy.dialects import postgresql, sqlite

from pdp.audit.counts import Counts, count_of
from pdp.audit.records import MalformedRecordError
from pdp.audit.rollups import Rollups, new_rows
from pdp.audit.rows import Row, gap_row, record_row
from pdp.audit.segments import KIND_RECORD, Frame, Log, Place
from pdp.audit.tables import audit_gaps, audit_records, audit_shipping
from pdp.database.engine import begin_read, begin_write


class Refusal(NamedTuple):
    """A frame that the destination refused permanently."""

    position: int
    what: str


class Destination(Protocol):
    """Accepts logs. Idempotent: frames that are sent again, after a crash or a lost response, are
    stored once."""

    def place(self, log: Log) -> Place | None:
        """Returns how far a log is stored; None: not at all. Saves work only. Raises PdpError."""

    def commit(self, log: Log, frames: Sequence[Frame]) -> Sequence[Refusal]:
        """Stores consecutive frames and the place after them, in one transaction.

        If some are refused, the place does not move: they are sent again, should the shipper stop
        before it sets their segment aside.

        Raises:
            PdpError: Nothing was stored; try again.
        """


class SqlDestination:
    """The database of this process."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def place(self, log: Log) -> Place | None:
        """See `Destination.place`. Raises DatabaseUnavailable."""
        with begin_read(self._engine) as connection:
            return read_place(connection, log)

    def commit(self, log: Log, frames: Sequence[Frame]) -> Sequence[Refusal]:
        """See `Destination.commit`. Raises DatabaseUnavailable."""
        records: list[Row] = []
        gaps: list[Row] = []
        counts = Counts(log)
        refusals: list[Refusal] = []
        for frame in frames:
            try:
                if frame.kind == KIND_RECORD:
                    records.append(record_row(frame, log))
                elif count := count_of(frame.payload):
                    counts.add(frame, count)
                else:
                    gaps.append(gap_row(frame, log))
            except MalformedRecordError as error:
                refusals.append(Refusal(frame.position, str(error)))
        rollups = Rollups()
        with begin_write(self._engine) as connection:
            for row in new_rows(connection, records):
                rollups.add(row, row["decided_at"])
            insert_new(connection, audit_records, records)
            insert_new(connection, audit_gaps, gaps)
            refusals += (Refusal(*problem) for problem in counts.write(connection, rollups))
            if not refusals:
                put_place(connection, log, frames[-1].after)
            rollups.write(connection)
        return refusals


def read_place(connection: Connection, log: Log) -> Place | None:
    """Reads how far a log is stored in SQL."""
    table = audit_shipping.c
    statement = select(table.segment, table.byte_offset, table.position, table.digest).where(
        table.origin == log.origin, table.log_id == log.log_id
    )
    row = connection.execute(statement).one_or_none()
    return None if row is None else Place(row[0], row[1], row[2], bytes(row[3]))


def put_place(connection: Connection, log: Log, place: Place) -> None:
    """Stores how far a log is stored in SQL. It does not go back if frames are shipped again."""
    values = {
        "segment": place.sequence,
        "byte_offset": place.byte_offset,
        "position": place.position,
        "digest": place.digest,
    }
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    statement = dialect.insert(audit_shipping).values(
        origin=log.origin, log_id=log.log_id, **values
    )
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["origin", "log_id"],
            set_=values,
            where=audit_shipping.c.position <= place.position,
        )
    )


def insert_new(connection: Connection, table: Table, rows: Sequence[Row]) -> bool:
    """Inserts the rows whose key is new; returns whether all were.

    The rows go directly to the driver: in SQLAlchemy, the processing of parameters would take as
    long as the rest of the shipping.
    """
    if not rows:
        return True
    if connection.dialect.name == "postgresql":
        statement = postgresql.insert(table).on_conflict_do_nothing()
        sql = str(statement.compile(dialect=connection.dialect))
        done = connection.exec_driver_sql(sql, list(rows))
    else:
        sql = str(sqlite.insert(table).on_conflict_do_nothing().compile(dialect=connection.dialect))
        names = [column.name for column in table.columns]
        done = connection.exec_driver_sql(sql, [tuple(row[name] for name in names) for row in rows])
    return done.rowcount == len(rows)
