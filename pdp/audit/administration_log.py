"""The log of administration records, in SQL: appends the records of committed changes, and lists
them.

A change and its record are committed together. A background task of any process appends the
records to the log: it gives each a position and the digest of its frame, which continues the chain
as in a segment. Revisions are committed in their order, so the records after the last one that has
a place are exactly those to append. All of this is in one database, so a crash at any moment leaves
a record appended once or to be appended.

Each epoch of the database has a log of its own, because the revisions of two epochs may be equal.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

import structlog
from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    RowMapping,
    Select,
    func,
    select,
    tuple_,
)

from pdp.administration_records import AdministrationRecord, Source, decode, entity_digest
from pdp.audit.destinations import put_place, read_place
from pdp.audit.rows import filterable, insert_new, payload_of
from pdp.audit.segments import NO_DIGEST, Header, Log, Place, encode_header, next_frame
from pdp.audit.tables import audit_shipping
from pdp.concurrency.background import BackgroundTask
from pdp.database.administration_table import administration_places, administration_records
from pdp.database.engine import begin_read, begin_write, lock_table
from pdp.gauges import Gauges
from pdp.model import Key

ORIGIN: Final = "@administration"
"""No process has this origin: see `segments.check_origin`."""
KIND_ADMINISTRATION: Final = b"A"
"""The kind of the frames. No segment holds one."""
APPEND_ROWS: Final = 1_000
"""In one transaction."""
WAITING_ROWS_MAX: Final = 100_000
"""Up to which waiting records are counted."""
APPEND_SECONDS: Final = 1.0
BACKLOG_SECONDS: Final = 0.25
"""Pause between the transactions of a backlog. SQLite has one writer at a time, and those that wait
look for a free lock only every 100 ms."""
RETRY_SECONDS: Final = (0.5, 30.0)
STOP_SECONDS_MAX: Final = 5.0

_log = structlog.get_logger(__name__)

_records, _places = administration_records.c, administration_places.c


@dataclass(frozen=True, slots=True)
class ChangeFilter:
    """A record matches if every field that is set matches. Identifiers compare byte for byte."""

    kind: str | None = None
    key: Key | None = None
    """With `kind`: exactly this entity."""
    name: str | None = None
    source: Source | None = None
    not_before: float | None = None
    """Recorded at or after; seconds since 1970-01-01 UTC."""
    before: float | None = None
    """Recorded before."""


class AdministrationLog:
    """The administration records. A record appears with the commit of its change."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._waiting = 0
        self._task = BackgroundTask(
            "administration-log",
            self._append,
            retry_seconds=RETRY_SECONDS,
            log=_log,
            failed="administration_records_not_appended",
            on_recovered=lambda: _log.info("administration_records_appended_again"),
        )

    def start(self) -> None:
        """Starts to append; returns at once, even if the database is not reachable."""
        self._task.start()

    def stop(self) -> None:
        """Stops within STOP_SECONDS_MAX. Another process, or the next start, appends the rest."""
        self._task.stop(STOP_SECONDS_MAX)

    def list(
        self, where: ChangeFilter, after: tuple[int, int] | None, limit: int
    ) -> Sequence[AdministrationRecord]:
        """Lists records, newest first.

        Args:
            where: The filter.
            after: Revision and number of the last record of the page before; None: the first page.
            limit: The largest number of records.

        Raises:
            DatabaseUnavailable: The database does not answer.
        """
        statement = (
            select(_records.record)
            .where(*_conditions(where))
            .order_by(_records.revision.desc(), _records.number.desc())
            .limit(limit)
        )
        if after is not None:
            statement = statement.where(tuple_(_records.revision, _records.number) < tuple_(*after))
        with begin_read(self._engine) as connection:
            return [decode(payload) for payload in connection.execute(statement).scalars()]

    def gauges(self) -> Gauges:
        """Returns the gauges for metrics."""
        return {
            "pdp_audit_waiting_changes": (
                "Administration records that wait to be appended to the log.",
                lambda: self._waiting,
            )
        }

    def _append(self) -> float:
        self._waiting = waiting_records(self._engine)
        if self._waiting:
            appended = append_records(self._engine)
            self._waiting = max(0, self._waiting - appended)
        return BACKLOG_SECONDS if self._waiting else APPEND_SECONDS


def waiting_records(engine: Engine) -> int:
    """Returns the number of records without a place, up to WAITING_ROWS_MAX.

    Raises:
        DatabaseUnavailable: The database does not answer.
    """
    with begin_read(engine) as connection:
        new = _new(connection, WAITING_ROWS_MAX).with_only_columns(_records.revision).subquery()
        return connection.execute(select(func.count()).select_from(new)).scalar_one()


def append_records(engine: Engine) -> int:
    """Appends up to APPEND_ROWS records to the log, in one transaction.

    Returns:
        The number of appended records.

    Raises:
        DatabaseUnavailable: The database does not answer.
    """
    with begin_write(engine) as connection:
        lock_table(connection, "administration_places")
        rows = connection.execute(_new(connection, APPEND_ROWS)).mappings().all()
        for epoch, records in groupby(rows, key=lambda row: row["epoch"]):
            log = Log(ORIGIN, epoch)
            place = read_place(connection, log) or _beginning(log)
            places = []
            for row in records:
                place = next_frame(place, KIND_ADMINISTRATION, payload_of(row["record"])).after
                places.append(_place_row(row, log, place))
            if not insert_new(connection, administration_places, places):
                raise RuntimeError("an administration record has a place in the log already")
            put_place(connection, log, place)
        return len(rows)


def placed_records(
    connection: Connection, rows_at_once: int, *where: ColumnElement[bool]
) -> Iterator[RowMapping]:
    """Yields the records with their places, each log in order; the columns of a record that was
    deleted are None."""
    statement = _placed(*where).execution_options(yield_per=rows_at_once)
    yield from connection.execute(statement).mappings()


def placed_after(
    connection: Connection, log_id: str, first: int, rows_at_once: int
) -> Iterator[RowMapping]:
    """Yields the records of one epoch from a position on; as `placed_records`."""
    where = (_places.log_id == log_id, _places.position >= first)
    return placed_records(connection, rows_at_once, *where)


def placed_change(connection: Connection, revision: int, number: int) -> RowMapping | None:
    """Returns a record with its place; None: it has none."""
    where = (_places.revision == revision, _places.number == number)
    return connection.execute(_placed(*where)).mappings().first()


def is_recorded(connection: Connection, revision: int, number: int) -> bool:
    """Returns whether there is such a record, with or without a place in the log."""
    same = (_records.revision == revision, _records.number == number)
    return connection.execute(select(_records.number).where(*same)).first() is not None


def log_ids(connection: Connection) -> Sequence[str]:
    """Returns the ids of the logs: one for each epoch."""
    column = audit_shipping.c
    statement = select(column.log_id).where(column.origin == ORIGIN).order_by(column.log_id)
    return connection.execute(statement).scalars().all()


def records_between(
    connection: Connection, log_id: str, first: int, end: int, limit: int
) -> Iterator[tuple[int, AdministrationRecord]]:
    """Yields up to `limit` records of a log with positions from `first` to before `end`, each with
    its position."""
    window = (_places.log_id == log_id, _places.position >= first, _places.position < end)
    statement = _placed(*window, _records.record.is_not(None)).limit(limit)
    for row in connection.execute(statement).mappings():
        yield row["position"], decode(row["record"])


def _placed(*where: ColumnElement[bool]) -> Select[Any]:
    """Returns the query for records with their places, each log in order; the columns of a record
    that was deleted are NULL."""
    same = (_records.revision == _places.revision) & (_records.number == _places.number)
    columns = [column for column in administration_records.columns if not column.primary_key]
    return (
        select(administration_places, *columns)
        .join_from(administration_places, administration_records, same, isouter=True)
        .where(*where)
        .order_by(_places.log_id, _places.position)
    )


def _new(connection: Connection, limit: int) -> Select[Any]:
    """Returns the query for up to `limit` records without a place, in their order."""
    last = connection.execute(
        select(_places.revision, _places.number)
        .order_by(_places.revision.desc(), _places.number.desc())
        .limit(1)
    ).first()
    query = select(_records.revision, _records.number, _records.epoch, _records.record)
    if last is not None:
        query = query.where(tuple_(_records.revision, _records.number) > tuple_(*last))
    return query.order_by(_records.revision, _records.number).limit(limit)


def _beginning(log: Log) -> Place:
    header = Header(log.origin, log.log_id, 1, 0, NO_DIGEST, 0)
    content, digest = encode_header(header)
    return Place(1, len(content), 0, digest)


def _place_row(row: RowMapping, log: Log, place: Place) -> dict[str, Any]:
    return {
        "revision": row["revision"],
        "number": row["number"],
        "log_id": log.log_id,
        "position": place.position - 1,
        "digest": place.digest,
    }


def _conditions(where: ChangeFilter) -> "list[ColumnElement[bool]]":
    conditions: list[ColumnElement[bool]] = []
    if where.kind is not None:
        kind = filterable(where.kind)
        conditions.append(_records.kind == kind)
        if where.key is not None:
            conditions.append(_records.entity == entity_digest(kind, where.key))
    if where.name is not None:
        conditions.append(_records.name == filterable(where.name))
    if where.source is not None:
        conditions.append(_records.source == where.source.name)
    if where.not_before is not None:
        conditions.append(_records.recorded_at >= where.not_before)
    if where.before is not None:
        conditions.append(_records.recorded_at < where.before)
    return conditions
