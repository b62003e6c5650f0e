"""Reads the decision log from SQL, where the shippers of all processes write it.

`list` looks at a bounded number of records, whatever it is asked for (ADR 41). It goes back in
steps. In each it takes the index, of one filter that is set, whose next STEP_ROWS entries
reach back the farthest. The other filters are written so that no index serves them: then a planner
needs no statistics.
"""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Final, TypeAlias

from sqlalchemy import ColumnElement, Connection, Engine, Select, select, text

from pdp.administration_records import AdministrationRecord
from pdp.audit.administration_log import ORIGIN as ADMINISTRATION
from pdp.audit.administration_log import records_between
from pdp.audit.decision_filters import (
    DecisionFilter,
    Texts,
    conditions,
    equal,
    id_range,
    ids_between,
    texts_of,
    times_of,
)
from pdp.audit.order import (
    Cursor,
    Range,
    end_of_order,
    number_new,
    places_after,
    ranges_from,
)
from pdp.audit.records import DecisionRecord, decode
from pdp.audit.rows import filterable, row_key
from pdp.audit.tables import STRAY, audit_gaps, audit_records
from pdp.database.engine import begin_read
from pdp.errors import NotFound

FOLLOW_RANGES_MAX = 100
FOLLOW_POSITIONS_MAX = 10_000
"""Positions that one call reads: a filter without matches must not read the whole log."""
STEP_ROWS: Final = 10_000
STEPS_MAX: Final = 3
"""STEPS_MAX * STEP_ROWS records are looked at for one page."""
REPORTERS_MAX = 100
"""Records that are returned for one decision id."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A page. It may be short or empty although there are more."""

    decisions: Sequence[DecisionRecord]
    """Newest first by id."""
    after: str | None
    """The key after which the list continues; None: it is complete."""


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
        self, where: DecisionFilter, after: str | None, limit: int, *, within: str | None = None
    ) -> Listed:
        """Lists decisions, newest first by id.

        Args:
            where: The filter.
            after: `Listed.after` of the page before, or the `key` of a decision; None: the first
                page.
            limit: The largest number of decisions.
            within: A field of the filter; then how far a page reaches, and so `Listed.after`,
                depends only on records with its value.

        Raises:
            DatabaseUnavailable: The database does not answer.
        """
        first, end = id_range(where)
        if after is not None:
            end = filterable(after) if end is None else min(filterable(after), end)
        indexed, others = _split(where, within)
        is_exact = len(indexed) <= 1 and not others
        found: dict[str, DecisionRecord] = {}
        with begin_read(self._engine) as connection:
            if where.not_before is not None or where.before is not None:
                found |= _strays(connection, where, after, limit + 1)
            for _ in range(STEPS_MAX):
                leading, begin = next(iter(indexed), ""), first
                if not is_exact:
                    leading, begin = _next_step(connection, indexed, first, end)
                statement = _SELECT.where(*others, *ids_between(begin, end))
                for name, texts in indexed.items():
                    statement = statement.where(*equal(texts, use_index=name == leading))
                statement = statement.order_by(_column.decision_id.desc()).limit(limit + 1)
                found |= _records(connection, statement)
                end = begin
                if begin == first or sum(key >= begin for key in found) > limit:
                    break
        keys = sorted((key for key in found if begin == first or key >= begin), reverse=True)
        page = [found[key] for key in keys[:limit]]
        if len(keys) > limit:
            return Listed(page, keys[limit - 1])
        return Listed(page, None if begin == first else begin)

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
_SELECT = select(_column.decision_id, *RECORD_COLUMNS)
_RESOURCE = (_column.resource_type, _column.resource_id)
"""Their index has both, in front of the id."""
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


# --- list -----------------------------------------------------------------------------------------


def _split(
    where: DecisionFilter, within: str | None
) -> tuple[dict[str, Texts], list[ColumnElement[bool]]]:
    """Returns the filters that an index in the order of ids serves, by name, and conditions for
    the others. `within`: Only this filter may use its index."""
    texts, others = dict(texts_of(where)), times_of(where)
    resource = [(column, texts.pop(column)) for column in _RESOURCE if column in texts]
    indexed: dict[str, Texts] = {
        str(column.key): [(column, text)] for column, text in texts.items()
    }
    if len(resource) == len(_RESOURCE):
        indexed["resource"] = resource
    else:
        others += equal(resource, use_index=False)
    if within is not None:
        chosen = {within: indexed.pop(within)}
        for rest in indexed.values():
            others += equal(rest, use_index=False)
        return chosen, others
    return indexed, others


def _next_step(
    connection: Connection, indexed: dict[str, Texts], first: str, end: str | None
) -> tuple[str, str]:
    """Returns the filter whose next STEP_ROWS records reach back the farthest, and the id of the
    last of them, or `first` if there are fewer."""
    steps: list[tuple[str, str]] = []
    for name, texts in (indexed or {"": ()}).items():
        statement = (
            select(_column.decision_id)
            .where(*equal(texts, use_index=True), *ids_between(first, end))
            .order_by(_column.decision_id.desc())
            .offset(STEP_ROWS)
            .limit(1)
        )
        begin = connection.execute(statement).scalar()
        if begin is None:
            return name, first
        steps.append((begin, name))
    begin, name = min(steps)
    return name, begin


def _strays(
    connection: Connection, where: DecisionFilter, after: str | None, limit: int
) -> dict[str, DecisionRecord]:
    """Returns the newest records that match, and whose id is not of the time of their decision."""
    id_ = _column.decision_id.concat("")  # not from the index of all ids
    statement = (
        _SELECT.where(text(STRAY[connection.dialect.name]), *times_of(where))
        .where(*equal(texts_of(where), use_index=False))
        .order_by(id_.desc())
        .limit(limit)
    )
    if after is not None:
        statement = statement.where(id_ < filterable(after))
    return _records(connection, statement)


def _records(connection: Connection, statement: Select[Any]) -> dict[str, DecisionRecord]:
    """Returns the records that a statement finds, by key."""
    return {row.decision_id: record_of(*row[1:]) for row in connection.execute(statement)}
