"""One order of all records in SQL, for those who read the decision log from a cursor on.

Each log is in order, but logs arrive apart: replicas ship at their own pace, a sidecar reports when
it is no longer cut off, and transactions commit in another order than they began. So neither the
time of a decision nor a sequence of the database says what a reader has not seen yet. The places in
`audit_shipping` do: what is below them is committed. Each time somebody reads, what was committed
since gets the next numbers, in ranges of positions of one log, under a lock that is held until
these numbers are committed. Whoever sees a number therefore sees every number below it, and a
cursor (a number, and a position within its range) stays small however many logs there are.

Records that were committed beside refused ones follow with the next record of their log, because
only that moves its place.
"""

import hashlib
from typing import Final, NamedTuple

from sqlalchemy import Connection, Engine, RowMapping, func, insert, select, text, update

from pdp.audit.tables import audit_order, audit_shipping
from pdp.database.engine import begin_read, begin_write
from pdp.errors import InvalidRequest, Violation

_MARK_DIGITS: Final = 16
_LOGS_MAX: Final = 1_000
"""How many logs are numbered in one transaction; the others follow in the next."""


class Cursor(NamedTuple):
    """A place in the order. All zero: before the first record."""

    number: int = 0
    position: int = 0
    """In the log of this number: of the next record."""
    mark: str = ""
    """Digits of the digest over what the number stands for: after a restore from a backup the
    numbers are given again, to other ranges."""


class Range(NamedTuple):
    """Records of one log, with positions from `first` to before `end`."""

    number: int
    origin: str
    log_id: str
    first: int
    end: int

    def at(self, position: int) -> Cursor:
        """The cursor in front of the record at this position."""
        content = f"{self.number}\n{self.origin}\n{self.log_id}\n{self.first}"
        mark = hashlib.sha256(content.encode()).hexdigest()[:_MARK_DIGITS]
        return Cursor(self.number, position, mark)


def number_new(engine: Engine) -> None:
    """Gives numbers to what was committed since the last time. Raises DatabaseUnavailable."""
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
        if connection.dialect.name == "postgresql":
            # SQLite's write lock is held already.
            connection.execute(text("LOCK TABLE audit_order IN SHARE ROW EXCLUSIVE MODE"))
        # A log that is just being written to is numbered the next time.
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
    """Behind everything that has a number."""
    row = (
        connection.execute(select(audit_order).order_by(audit_order.c.number.desc()).limit(1))
        .mappings()
        .one_or_none()
    )
    if row is None:
        return Cursor()
    last = _range(row)
    return last.at(last.end)


def ranges_from(connection: Connection, cursor: Cursor, limit: int) -> list[tuple[Range, int]]:
    """The ranges from a cursor on, `limit` at the most, each with the position at which to begin.

    Raises InvalidRequest for a cursor that is not of this order.
    """
    order = audit_order.c
    statement = select(audit_order).where(order.number >= cursor.number).order_by(order.number)
    ranges = [_range(row) for row in connection.execute(statement.limit(limit)).mappings()]
    starts = [one.first for one in ranges]
    if cursor.number:
        if not ranges or ranges[0].at(cursor.position) != cursor:
            problem = "is of another history of this log, or its place was removed"
            raise InvalidRequest(Violation("cursor", problem))
        starts[0] = cursor.position
    return list(zip(ranges, starts, strict=True))


def _range(row: RowMapping) -> Range:
    return Range(row["number"], row["origin"], row["log_id"], row["first"], row["end"])
