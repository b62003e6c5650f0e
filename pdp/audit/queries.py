"""Reads the decision log from SQL, where the shippers of all processes write it."""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TypeAlias

from sqlalchemy import ColumnElement, Connection, Engine, select

from pdp.administration_records import AdministrationRecord
from pdp.audit.administration_log import ORIGIN as ADMINISTRATION
from pdp.audit.administration_log import records_between
from pdp.audit.order import (
    Cursor,
    Range,
    end_of_order,
    number_new,
    places_after,
    ranges_from,
)
from pdp.audit.records import decode
from pdp.audit.rows import filterable, row_key
from pdp.audit.tables import audit_gaps, audit_records
from pdp.database.engine import begin_read
from pdp.errors import NotFound
from pdp.model import DecisionRecord, Effect, Reason

FOLLOW_RANGES_MAX = 100
FOLLOW_POSITIONS_MAX = 10_000
"""Positions that one call reads: a filter without matches must not read the whole log."""
REPORTERS_MAX = 100
"""Records that are returned for one decision id."""


@dataclass(frozen=True, slots=True)
class DecisionFilter:
    """A record matches if every field that is set matches. Identifiers compare byte for byte."""

    user_id: str | None = None
    permission: str | None = None
    resource_type: str | None = None
    resource_id: str | None = None
    effect: Effect | None = None
    reason: Reason | None = None
    organization_id: str | None = None
    """The actor's active organization."""
    caller: str | None = None
    reported_by: str | None = None
    not_before: float | None = None
    """Decided at or after; seconds since 1970-01-01 UTC."""
    before: float | None = None
    """Decided before."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Decisions that a process dropped at one place of its log."""

    dropped: int
    noticed_at: float
    """Seconds since 1970-01-01 UTC."""


Record: TypeAlias = DecisionRecord | AdministrationRecord | Gap


@dataclass(frozen=True, slots=True)
class Followed:
    """The records after a cursor."""

    records: Sequence[tuple[Record, Cursor]]
    """Each with the cursor after it."""
    cursor: Cursor
    """The cursor after all records that were read, matching or not."""
    more: bool
    """Whether there are more records now."""


class DecisionLog:
    """The decision log. A decision appears shortly after its answer: see `Shipper`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def list(
        self, where: DecisionFilter, after: str | None, limit: int
    ) -> "list[DecisionRecord]":  # quoted: inside the class, `list` is this method
        """Lists decisions, newest first by id.

        Args:
            where: The filter.
            after: The `key` of the last decision of the page before; None: the first page.
            limit: The largest number of decisions.

        Raises:
            DatabaseUnavailable: The database does not answer.
        """
        statement = (
            select(*RECORD_COLUMNS)
            .where(*conditions(where))
            .order_by(audit_records.c.decision_id.desc())
            .limit(limit)
        )
        if after is not None:
            statement = statement.where(audit_records.c.decision_id < filterable(after))
        with begin_read(self._engine) as connection:
            return [record_of(*row) for row in connection.execute(statement)]

    def end(self) -> Cursor:
        """Returns the cursor at the end of the log. Raises DatabaseUnavailable."""
        number_new(self._engine)
        with begin_read(self._engine) as connection:
            return end_of_order(connection)

    def waiting(self, cursor: Cursor) -> int:
        """Returns the number of places after a cursor, of records and of counts. Raises
        DatabaseUnavailable."""
        with begin_read(self._engine) as connection:
            return places_after(connection, cursor)

    def follow(
        self,
        where: DecisionFilter,
        cursor: Cursor,
        limit: int,
        *,
        with_changes_and_gaps: bool = False,
    ) -> "Followed":
        """Returns up to `limit` records after the cursor, in the order of their arrival in SQL.

        Args:
            where: The filter, for decisions.
            cursor: Where to begin.
            limit: The largest number of records.
            with_changes_and_gaps: Whether to return more than decisions.

        Raises:
            InvalidRequest: The cursor is not of this log.
            DatabaseUnavailable: The database does not answer.
        """
        number_new(self._engine)
        found: list[tuple[Record, Cursor]] = []
        positions_read = 0
        with begin_read(self._engine) as connection:
            for part, first, end in _windows(ranges_from(connection, cursor, FOLLOW_RANGES_MAX)):
                if positions_read >= FOLLOW_POSITIONS_MAX:
                    return Followed(found, cursor, more=True)
                window, room = (part, first, end), limit - len(found)
                kinds: list[Iterator[tuple[int, Record]]]
                if with_changes_and_gaps and part.origin == ADMINISTRATION:
                    kinds = [records_between(connection, part.log_id, first, end, room)]
                else:
                    kinds = [_decisions(connection, window, room, where)]
                    if with_changes_and_gaps:
                        kinds.append(_gaps(connection, window, room))
                merged = heapq.merge(*kinds, key=lambda placed: placed[0])
                for position, record in islice(merged, room):
                    cursor = part.at(position + 1)
                    found.append((record, cursor))
                if len(found) == limit:
                    return Followed(found, cursor, more=True)
                positions_read += end - first
                cursor = part.at(end)
            more = end_of_order(connection).number > cursor.number
        return Followed(found, cursor, more=more)

    def key(self, record: DecisionRecord) -> str:
        """Returns the key of a record in `list`."""
        return row_key(filterable(record.decision_id), record.reported_by)

    def get(self, decision_id: str) -> Sequence[DecisionRecord]:
        """Returns the records with this id: first that of a decision point, then those that callers
        reported.

        Raises:
            NotFound: There is none.
            DatabaseUnavailable: The database does not answer.
        """
        key = filterable(decision_id)
        column = audit_records.c
        reported = (column.decision_id >= row_key(key, "")) & (
            column.decision_id < row_key(key, "\x7f")
        )
        statement = (
            select(*RECORD_COLUMNS)
            .where((column.decision_id == key) | reported)
            .order_by(column.decision_id)
            .limit(REPORTERS_MAX)
        )
        with begin_read(self._engine) as connection:
            found = [record_of(*row) for row in connection.execute(statement)]
        if not found:
            raise NotFound("decision", decision_id)
        return found


_column = audit_records.c
RECORD_COLUMNS = (_column.record, _column.reported_by, _column.occurrences, _column.last_decided_at)


Window: TypeAlias = tuple[Range, int, int]
"""A part of a range: the range, its first position, and the position after the last."""


def _decisions(
    connection: Connection, window: Window, limit: int, where: DecisionFilter
) -> Iterator[tuple[int, DecisionRecord]]:
    (part, first, end), column = window, audit_records.c
    statement = (
        select(column.position, *RECORD_COLUMNS)
        .where(column.origin == part.origin, column.log_id == part.log_id)
        .where(column.position >= first, column.position < end)
        .where(*conditions(where))
        .order_by(column.position)
        .limit(limit)
    )
    for position, *fields in connection.execute(statement):
        yield position, record_of(*fields)


def _gaps(connection: Connection, window: Window, limit: int) -> Iterator[tuple[int, Gap]]:
    (part, first, end), column = window, audit_gaps.c
    statement = (
        select(column.position, column.dropped, column.noticed_at)
        .where(column.origin == part.origin, column.log_id == part.log_id)
        .where(column.position >= first, column.position < end)
        .order_by(column.position)
        .limit(limit)
    )
    for position, dropped, noticed_at in connection.execute(statement):
        yield position, Gap(dropped, noticed_at)


def _windows(ranges: Sequence[tuple[Range, int]]) -> Iterator[Window]:
    """Splits ranges into parts of at most FOLLOW_POSITIONS_MAX."""
    for part, start in ranges:
        for first in range(start, part.end, FOLLOW_POSITIONS_MAX):
            yield part, first, min(part.end, first + FOLLOW_POSITIONS_MAX)


def record_of(
    payload: str, reported_by: str | None, occurrences: int, last_decided_at: float | None
) -> DecisionRecord:
    """Converts the values of RECORD_COLUMNS."""
    record = decode(payload)
    if reported_by is None and last_decided_at is None:
        return record
    return replace(
        record,
        reported_by=reported_by,
        occurrences=occurrences,
        last_decided_at=last_decided_at,
    )


def conditions(where: DecisionFilter) -> "list[ColumnElement[bool]]":
    """The conditions of a filter on the columns of the decision log."""
    column = audit_records.c
    texts: dict[ColumnElement[str], str | None] = {
        column.user_id: where.user_id,
        column.permission: where.permission,
        column.resource_type: where.resource_type,
        column.resource_id: where.resource_id,
        column.effect: None if where.effect is None else where.effect.name,
        column.reason: None if where.reason is None else where.reason.name,
        column.organization_id: where.organization_id,
        column.caller: where.caller,
        column.reported_by: where.reported_by,
    }
    conditions: list[ColumnElement[bool]] = [
        column_ == filterable(text) for column_, text in texts.items() if text is not None
    ]
    if where.not_before is not None:
        conditions.append(column.decided_at >= where.not_before)
    if where.before is not None:
        conditions.append(column.decided_at < where.before)
    return conditions
