"""Defines one order of all records in SQL, for readers that follow the decision log by a cursor.

Each log has an order, but logs arrive independently: replicas ship at their own pace, a sidecar
reports once it is connected again, and transactions commit in another order than they began. So
neither the time of a decision nor a sequence of the database shows what a reader has not seen. The
places in `audit_shipping` do: all records below them are committed.

At each read, the records that were committed since get the next numbers, as ranges of positions of
one log. A lock is held until these numbers are committed. So a reader that sees a number sees every
smaller number too, and a cursor (a number and a position in its range) is small for any number of
logs.

If some frames of a commit were refused, its other records follow with the next record of their log,
because the place of the log moves only then.
"""

import hashlib
from typing import Final, NamedTuple

from sqlalchemy import Connection, Engine, RowMapping, func, insert, select, update

from pdp.audit.tables import audit_order, audit_shipping
from pdp.database.engine import begin_read, begin_write, lock_table
from pdp.errors import InvalidRequest, Violation

_MARK_DIGITS: Final = 16
WAITING_RANGES_MAX: Final = 100_000
"""Ranges that are counted: a reader that is months behind must be able to begin."""
_LOGS_MAX: Final = 1_000
"""Logs that one transaction numbers; the next one numbers the others."""


class Cursor(NamedTuple):
    """A position in the order. All zero: before the first record."""

    number: int = 0
    position: int = 0
    """Position of the next record, in the log of this number."""
    mark: str = ""
    """Digits of a digest of the range. After a restore from a backup, other ranges get the same
    numbers."""


class Range(NamedTuple):
    """Records of one log, with positions from `first` to before `end`."""

    number: int
    origin: str
    log_id: str
    first: int
    end: int

    def at(self, position: int) -> Cursor:
        """Returns the cursor before the record at this position."""
        content = f"{self.number}\n{self.origin}\n{self.log_id}\n{self.first}"
        mark = hashlib.sha256(content.encode()).hexdigest()[:_MARK_DIGITS]
        return Cursor(self.number, position, mark)


def number_new(engine: Engine) -> None:
    """Numbers the records that were committed since the last call. Raises DatabaseUnavailable."""
    shipping = audit_shipping.c
    grown = (
        select(shipping.origin, shipping.log_id, shipping.position, shipping.numbered)
        .where(shipping.position > shipping.numbered)
        .order_by(shipping.origin, shipping.log_id)
        .limit(_LOGS_MAX)
    )
    with begin_read(engine) as connection:
        if connection.execute(grown.limit(1)).first() is None:
            return
    with begin_write(engine) as connection:
        lock_table(connection, "audit_order")
        # Skips a log that another transaction is writing to: the next call numbers it.
        rows = connection.execute(grown.with_for_update(skip_locked=True)).mappings().all()
        if not rows:
            return
        last: int = connection.execute(
            select(func.coalesce(func.max(audit_order.c.number), 0))
        ).scalar_one()
        connection.execute(
            insert(audit_order),
            [
                {
                    "number": last + 1 + index,
                    "origin": row["origin"],
                    "log_id": row["log_id"],
                    "first": row["numbered"],
                    "end": row["position"],
                }
                for index, row in enumerate(rows)
            ],
        )
        for row in rows:
            connection.execute(
                update(audit_shipping)
                .where(shipping.origin == row["origin"], shipping.log_id == row["log_id"])
                .values(numbered=row["position"])
            )


def end_of_order(connection: Connection) -> Cursor:
    """Returns the cursor after all numbered records."""
    row = (
        connection.execute(select(audit_order).order_by(audit_order.c.number.desc()).limit(1))
        .mappings()
        .one_or_none()
    )
    if row is None:
        return Cursor()
    last = _range(row)
    return last.at(last.end)


def places_after(connection: Connection, cursor: Cursor) -> int:
    """Returns the number of places after a cursor that this order has given, in the next
    WAITING_RANGES_MAX ranges at most."""
    order = audit_order.c
    following = (
        select((order.end - order.first).label("places"))
        .where(order.number > cursor.number)
        .order_by(order.number)
        .limit(WAITING_RANGES_MAX)
        .subquery()
    )
    places = func.coalesce(func.sum(following.c.places), 0)
    later = connection.execute(select(places)).scalar_one()
    end = connection.execute(select(order.end).where(order.number == cursor.number)).scalar()
    return int(later) + (0 if end is None else end - cursor.position)


def ranges_from(connection: Connection, cursor: Cursor, limit: int) -> list[tuple[Range, int]]:
    """Returns up to `limit` ranges from a cursor on, each with the position to begin at.

    Raises:
        InvalidRequest: The cursor is not of this order.
    """
    order = audit_order.c
    statement = select(audit_order).where(order.number >= cursor.number).order_by(order.number)
    ranges = [_range(row) for row in connection.execute(statement.limit(limit)).mappings()]
    starts = [range_.first for range_ in ranges]
    if cursor.number:
        if not ranges or ranges[0].at(cursor.position) != cursor:
            problem = "is of another history of this log, or its place was removed"
            raise InvalidRequest(Violation("cursor", problem))
        starts[0] = cursor.position
    return list(zip(ranges, starts, strict=True))


def _range(row: RowMapping) -> Range:
    return Range(row["number"], row["origin"], row["log_id"], row["first"], row["end"])
